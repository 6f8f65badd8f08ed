"""Problems and verifiers of the reasoning-gym package: `data.task: reasoning_gym/NAME` (`pip install reasoning-gym==0.1.25`).

Its generators make a problem from a seed and an index, its `score_answer` grades: 1.0 is right, what lies below is kept as
partial credit. An answer is what stands between <answer> and </answer>, or in a box. Each split draws from seeds of its own,
and a hash of the question decides as well, so that a question which two seeds make is in one split only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dasd.tasks.base import AnswerFormat, Grade, GradeStatus, Problem, StepCheck
from dasd.tasks.equations import check_equations
from dasd.tasks.math_notation import last_boxed
from dasd.tasks.splits import split_of
from dasd.tasks.workers import WorkerPool

INSTRUCTION = "Think step by step, then put your final answer, and nothing else, between <answer> and </answer>."
SPLIT_SHARES = {"train": 80, "validation": 10, "test": 10}  # percent of the questions
SIZE = 1_000_000  # problems of one seed; a generator's item i depends on seed + i
MOST_SEEDS = 600
MOST_IN_VAIN = 2_000  # items in a row without a new question of the split
MAX_CHARS = 20_000  # the answer is looked for in the completion's last characters
WORKED = ("answer_cot", "cot", "reasoning", "solution_steps")  # metadata in which generators ship worked text

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# Importing the package takes seconds that are no answer's.
_pool = WorkerPool("dasd.tasks.reasoning_gym", "score", warm_up=("chain_sum", "{}", 0, 0, "0"))


@dataclass(frozen=True)
class ReasoningGymTask:
    """One generator with its settings. `instruction` is said after each question."""

    dataset: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    answer_format: AnswerFormat = "auto"
    instruction: str = INSTRUCTION
    seconds: float = 10.0
    splits: tuple[str, ...] = tuple(SPLIT_SHARES)

    def __post_init__(self) -> None:
        """Raises ImportError without the package, ValueError for an unknown generator or setting."""
        _generator(self.dataset, _packed(self.settings), 0)

    @property
    def name(self) -> str:
        return f"reasoning_gym-{self.dataset}"

    def make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        if not 0 <= seed < MOST_SEEDS:
            raise ValueError(f"data.seed must lie between 0 and {MOST_SEEDS - 1} for reasoning_gym, got {seed}")
        if count > SIZE:
            raise ValueError(f"a seed has {SIZE:,} problems, {count:,} were asked for: use data.limit")
        first = (list(SPLIT_SHARES).index(split) * MOST_SEEDS + seed) * SIZE
        problems: dict[str, Problem] = {}
        in_vain = 0
        for index in range(SIZE):
            if len(problems) == count or in_vain >= MOST_IN_VAIN:
                break
            entry, in_vain = _entry(self.dataset, _packed(self.settings), first, index), in_vain + 1
            question = str(entry["question"]).strip()
            if question not in problems and split_of(question, SPLIT_SHARES) == split:
                problems[question], in_vain = self._problem(question, entry, first, index), 0
        if len(problems) < count:
            raise ValueError(
                f"found only {len(problems)} of {count} {split} problems of {self.dataset}: ask for fewer (data.limit), or "
                "widen data.task_settings"
            )
        return list(problems.values())

    def _problem(self, question: str, entry: Mapping[str, Any], first: int, index: int) -> Problem:
        answer = next((text for text in _answers(entry) if self._score(entry, first, text) >= 1), str(entry["answer"]))
        worked = next((entry["metadata"][key] for key in WORKED if isinstance(entry["metadata"].get(key), str)), "")
        told = f"{worked.rpartition('####')[0].strip() or worked.strip()}\n{_tagged(answer)}".strip()
        return Problem(id=f"{first}:{index}", problem=f"{question}\n\n{self.instruction}", answer=answer, solution=told)

    def _score(self, entry: Mapping[str, Any], first: int, answer: str) -> float:
        return float(_generator(self.dataset, _packed(self.settings), first).score_answer(answer, entry))

    def gold_completion(self, problem: Problem) -> str:
        return _tagged(problem.answer)

    def grade(self, problem: Problem, completion: str) -> Grade:
        return self.grade_all([(problem, completion)])[0]

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """`score_answer` of each answer, in worker processes; a call that takes too long or raises is a GRADER_ERROR."""
        answers = [self._read(completion) for _, completion in pairs]
        calls = [
            (self.dataset, _packed(self.settings), *map(int, problem.id.rpartition("/")[2].split(":")), answer)
            for (problem, _), answer in zip(pairs, answers, strict=True)
            if answer is not None
        ]
        scores = iter(_pool.map(calls, self.seconds))
        return [Grade(GradeStatus.NO_ANSWER) if answer is None else _graded(answer, next(scores)) for answer in answers]

    def _read(self, completion: str) -> str | None:
        completion = completion[-MAX_CHARS:]
        tagged = _TAGGED.findall(completion)
        answer = tagged[-1] if tagged else last_boxed(completion)
        if answer is None and self.answer_format == "last":
            answer = next((line for line in reversed(completion.splitlines()) if line.strip()), None)
        return answer.strip() if answer and answer.strip() else None

    def states_answer(self, completion: str) -> bool:
        return _TAGGED.search(completion[-MAX_CHARS:]) is not None or last_boxed(completion[-MAX_CHARS:]) is not None

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """Every equation between numbers is a step; see `dasd.tasks.equations` for those that are left alone."""
        return check_equations(completion)


def score(dataset: str, settings: str, first: int, index: int, answer: str) -> float:
    """reasoning-gym's score of an answer to one item, from 0 to 1. Runs in a worker."""
    return float(_generator(dataset, settings, first).score_answer(answer, _entry(dataset, settings, first, index)))


def _graded(answer: str, value: float | None) -> Grade:
    if value is None:
        return Grade(GradeStatus.GRADER_ERROR, answer[:200])
    return Grade(GradeStatus.CORRECT if value >= 1 else GradeStatus.INCORRECT, answer[:200], score=value)


def _tagged(answer: str) -> str:
    return f"<answer>{answer}</answer>"


def _answers(entry: Mapping[str, Any]) -> Iterator[str]:
    """The gold answer, or where an entry has many right ones and names none, the example that its metadata hold."""
    if entry["answer"] is not None:
        yield str(entry["answer"])
    for key in ("possible_answer", "example_answer", "solution"):
        if (value := entry["metadata"].get(key)) is not None:
            yield value if isinstance(value, str) else json.dumps(value)


def _packed(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)


@lru_cache(maxsize=8)
def _generator(dataset: str, settings: str, seed: int) -> Any:
    """A generator of the package. Raises ImportError, and ValueError for a name or a setting that it does not have."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise ImportError("the reasoning-gym package is not installed: pip install reasoning-gym==0.1.25") from None
    if taken := {"seed", "size"} & json.loads(settings).keys():
        raise ValueError(f"data.task_settings.{min(taken)} is not set there: data.seed and data.count say it")
    if dataset not in DATASETS:
        from difflib import get_close_matches

        close = get_close_matches(dataset, DATASETS, n=1)
        raise ValueError(f"reasoning-gym has no generator {dataset!r}{f', did you mean {close[0]!r}?' if close else ''}")
    try:
        return reasoning_gym.create_dataset(dataset, size=SIZE, seed=seed, **json.loads(settings))
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"{dataset} refuses data.task_settings {settings}: {error}") from None


@lru_cache(maxsize=4096)
def _entry(dataset: str, settings: str, first: int, index: int) -> Any:
    return _generator(dataset, settings, first)[index]
