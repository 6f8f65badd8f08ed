"""A task and a reward of your own, to copy and change. Nothing of it has to be installed:

    dasd eval MODEL --data.task examples/own_task.py:make_task --data.limit 50
    dasd train config.yaml --data.task examples/own_task.py:make_task --training.rewards examples/own_task.py:brevity
    dasd doctor config.yaml --data.task examples/own_task.py:make_task

A task needs `grade`. With `make_problems` it has problems of its own (`data.source: bundled`); without it, `data.source` and
`data.columns` say where yours are. Both run in worker processes: one that hangs or raises costs that grade alone.
"""

import random
import re

from dasd.tasks import Grade, GradeStatus, Problem

SPLITS = ("train", "validation", "test")


class Reversal:
    """Spell a word backwards. The answer is what stands behind the last `Answer:`."""

    name = "reversal"
    splits = SPLITS
    seconds = 5.0  # that one grade may take

    def __init__(self, length: int = 5) -> None:
        self.length = length  # from data.task_settings: {length: 7}

    def make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        """Distinct problems, the same for the same arguments; the first letter says which split a word belongs to."""
        rng = random.Random(f"{seed}/{split}")
        first = "abcdefghijklmnopqrstuvwxyz"[SPLITS.index(split) :: 3]
        words: dict[str, None] = {}
        while len(words) < count:
            words[rng.choice(first) + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=self.length - 1))] = None
        return [
            Problem(
                id=word,
                problem=f"Spell the word {word} backwards. End with a line such as `Answer: cba`.",
                answer=word[::-1],
                solution=f"From the last letter to the first: {', '.join(word[::-1])}.\nAnswer: {word[::-1]}",
            )
            for word in words
        ]

    def gold_completion(self, problem: Problem) -> str:
        """A completion that must grade as right: what the check before a run is made with."""
        return problem.solution or f"Answer: {problem.answer}"

    def grade(self, problem: Problem, completion: str) -> Grade:
        """Right, wrong or no answer. `return answer == problem.answer` would do as well, or a number from 0 to 1."""
        found = re.findall(r"Answer:\s*(\w+)", completion)
        if not found:
            return Grade(GradeStatus.NO_ANSWER)
        same = sum(a == b for a, b in zip(found[-1], problem.answer, strict=False)) / len(problem.answer)
        right = found[-1] == problem.answer
        return Grade(GradeStatus.CORRECT if right else GradeStatus.INCORRECT, found[-1], score=same)


def make_task(**settings) -> Reversal:
    return Reversal(**settings)


def brevity(completions, completion_ids, **columns) -> list[float]:
    """A reward with TRL's signature: one number a completion, None where it does not apply. It may be `async`."""
    return [1.0 - min(len(ids), 64) / 64 for ids in completion_ids]
