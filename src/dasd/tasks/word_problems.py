"""Word problems of grade-school arithmetic: two to five steps in plain English, made here, with a worked solution.

    Ada buys 3 notebooks that cost 4 dollars each. She pays with 20 dollars. How many dollars does Ada get back?
    The notebooks cost: 3 * 4 = 12. The change is: 20 - 12 = 8. The answer is \\boxed{8}.

`word_stories` says what a story is, `word_stories_money` and `word_stories_counts` tell them. A problem's split is a hash of
its story and numbers, so splits never overlap, whatever the seed, the names and the wording; math-verify grades, and each
equation of a text is a step.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dasd.tasks import splits, word_stories_counts, word_stories_money
from dasd.tasks.base import Problem
from dasd.tasks.math import MathTask
from dasd.tasks.word_stories import DISTRACTORS, PERSONAL_DISTRACTORS, Draw, Stage

# Asked with one worked example, without which a model of 0.5 B writes essays and is cut off: LOG.md has the other wordings.
PROMPT = """\
Question: Ada buys 3 notebooks that cost 4 dollars each. She pays with 20 dollars. How many dollars does Ada get back?
Answer: The notebooks cost 3 * 4 = 12. The change is 20 - 12 = 8. The answer is \\boxed{{8}}.

Question: {question}
Answer:"""
STORIES = {story.__name__: story for story in (*word_stories_money.STORIES, *word_stories_counts.STORIES)}
SPLIT_SHARES = {"train": 80, "validation": 10, "test": 10}  # percent
MOST_IN_VAIN = 20_000  # draws without a new problem


@dataclass(frozen=True)
class WordProblemSpec:
    """How hard the problems are: inclusive range of steps, size of numbers (1 is small), expected number of distractors."""

    steps: tuple[int, int]
    size: float
    distractors: float


LEVELS = {
    1: WordProblemSpec((2, 2), 0.5, 0.0),
    2: WordProblemSpec((2, 3), 0.8, 0.25),
    3: WordProblemSpec((2, 4), 1.0, 0.5),
    4: WordProblemSpec((3, 5), 1.5, 0.75),
    5: WordProblemSpec((4, 5), 3.0, 1.0),
}
DEFAULT_LEVEL = 1  # what an instruct model of 0.5 B can do at times within 200 tokens


@dataclass(frozen=True)
class WordProblemTask(MathTask):
    """Mathematics with problems of its own; the completion that must grade as right is the worked solution."""

    name: str = "word_problems"
    spec: WordProblemSpec = LEVELS[DEFAULT_LEVEL]
    splits: tuple[str, ...] = tuple(SPLIT_SHARES)

    def make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        return make_problems(count, seed, split, self.spec)

    def gold_completion(self, problem: Problem) -> str:
        return problem.solution or super().gold_completion(problem)


def read_settings(settings: Mapping[str, Any]) -> WordProblemSpec:
    """The distribution that `data.task_settings` names. Raises ValueError."""
    unknown = set(settings) - {"difficulty"}
    if unknown:
        raise ValueError(f"word_problems has no setting {min(unknown)!r}; it has: difficulty")
    level = settings.get("difficulty", DEFAULT_LEVEL)
    if level not in LEVELS or isinstance(level, bool):
        raise ValueError(f"difficulty must be one of {', '.join(map(str, LEVELS))}, got {level!r}")
    return LEVELS[level]


def split_of(core: str) -> str:
    """The split that a story with its numbers belongs to."""
    return splits.split_of(core, SPLIT_SHARES)


def make_problems(count: int, seed: int, split: str, spec: WordProblemSpec = LEVELS[DEFAULT_LEVEL]) -> list[Problem]:
    """`count` distinct problems of one split, the same list for the same arguments.

    Raises ValueError for an unknown split, and where a level has too few problems.
    """
    if split not in SPLIT_SHARES:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLIT_SHARES)}")
    rng = random.Random(f"word_problems/{split}/{seed}/{spec}")
    problems: dict[str, Problem] = {}
    tried_in_vain = 0
    while len(problems) < count and tried_in_vain < MOST_IN_VAIN:
        tried_in_vain += 1
        core, problem = write_problem(rng, spec)
        if core not in problems and split_of(core) == split:
            tried_in_vain = 0
            problems[core] = problem
    if len(problems) < count:
        raise ValueError(f"found only {len(problems)} of {count} {split} problems for {spec}: ask for fewer")
    return list(problems.values())


def write_problem(rng: random.Random, spec: WordProblemSpec) -> tuple[str, Problem]:
    """(story and numbers, problem) of one random story, told up to a stage that takes as many steps as asked for."""
    while True:
        name = rng.choice(list(STORIES))
        draw = Draw(rng, spec.size)
        stages = list(STORIES[name](draw))
        ends = [end for end in range(1, len(stages) + 1) if spec.steps[0] <= _steps(stages[:end]) <= spec.steps[1]]
        if ends:
            break
    told = stages[: rng.choice(ends)]
    sentences = [stage.told for stage in told]
    for _ in range(int(spec.distractors + rng.random())):
        place = rng.randint(1, len(sentences))
        choices = PERSONAL_DISTRACTORS if draw.name in sentences[place - 1] else DISTRACTORS
        distractor = rng.choice(choices).format(n=rng.randint(3, 40), They=draw.They, Their=draw.their.capitalize())
        sentences.insert(place, distractor)
    working = [line for stage in told for line in stage.worked]
    answer = working[-1].rpartition("= ")[2]
    core = f"{name}: {'; '.join(_equation(line) for line in working)}"
    question = f"{' '.join(sentences)} {told[-1].asked}"
    solution = f"{'. '.join(working)}. The answer is \\boxed{{{answer}}}."
    name = hashlib.sha256(core.encode()).hexdigest()[:12]
    return core, Problem(name, PROMPT.format(question=question), answer, solution, question=question)


def _steps(stages: list[Stage]) -> int:
    return sum(len(stage.worked) for stage in stages)


def _equation(line: str) -> str:
    match = re.search(r": (\d.*)", line)
    assert match is not None, line
    return match[1]
