"""Countdown with a visible search: make a target from a few numbers, thinking aloud.

    Use 3 7 8 to make 29.
    perhaps 3 + 8 = 11, 11 * 7 = 77. check 77 > 29. alternatively 11 + 7 = 18. check 18 < 29.
    wait, maybe 3 * 7 = 21, 21 + 8 = 29. check 29 = 29. answer: 3 * 7 = 21, 21 + 8 = 29.

A completion is right when the steps after the last `answer:` are true equations of whole numbers, use every given number
exactly once, and end at the target. A problem that says so lets one number be left out. Text is only matched against fixed
patterns and compared as integers: nothing is ever evaluated as code, and a run of more than `MAX_DIGITS` digits is not a number
here. `countdown_search` writes such texts.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from dasd.tasks import splits
from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck
from dasd.tasks.countdown_search import all_chains, random_chain
from dasd.tasks.countdown_steps import Step, apply_operator, write_step

MAX_DIGITS = 6
MAX_CHARS = 20_000  # no honest search is longer; only the last MAX_CHARS of a completion are read

# [0-9] and never \d, which also matches the digits of other scripts.
_NUMBER = rf"([0-9]{{1,{MAX_DIGITS}}})"
_EQUATION = re.compile(rf"{_NUMBER} ?([-+*/]) ?{_NUMBER} ?= ?{_NUMBER}")
# A step stands alone: it is not a piece of a decimal (1.5 + 2 = 3.5) or of a longer expression (10 - 3 + 8 = 15).
_END = r"(?![0-9a-zA-Z]|\.[0-9]| ?[-+*/])"
_STEP = re.compile(rf"(?<![0-9.])(?<![-+*/])(?<![-+*/] ){_EQUATION.pattern}{_END}")
_COMPARISON = re.compile(rf"\bcheck {_NUMBER} ?([<>=]) ?{_NUMBER}{_END}")
_ANSWER = "answer:"
_PROBLEM = re.compile(rf"Use ({_NUMBER}(?: {_NUMBER})*) to make {_NUMBER}\.")
_SPARE = " One number may be left out."


def write_problem(numbers: Sequence[int], target: int, spare: bool = False) -> str:
    return f"Use {' '.join(map(str, numbers))} to make {target}.{_SPARE if spare else ''}"


def read_problem(text: str) -> tuple[list[int], int]:
    """Numbers and target of a problem's text. Raises ValueError for a text of another form."""
    match = _PROBLEM.search(text)
    if match is None:
        raise ValueError(f"not a Countdown problem: {text[:80]!r}; expected a text like 'Use 3 7 8 to make 29.'")
    return [int(number) for number in match[1].split()], int(match.groups()[-1])


def may_leave_out(text: str) -> int:
    """How many numbers a solution need not use: the problem's text says it."""
    return int(_SPARE in text)


def read_answer(completion: str) -> tuple[str | None, list[Step] | None]:
    """The text after the last `answer:` and its steps.

    Text is None where there is no such mark; steps are None where the text is anything but equations joined by commas
    with an optional full stop at the end.
    """
    _, mark, tail = completion[-MAX_CHARS:].rpartition(_ANSWER)
    if not mark:
        return None, None
    text = tail.strip().removesuffix(".").strip()
    steps: list[Step] = []
    for part in text.split(","):
        match = _EQUATION.fullmatch(part.strip())
        if match is None:
            return text, None
        a, operator, b, result = match.groups()
        steps.append((int(a), operator, int(b), int(result)))
    return text, steps


def is_solution(numbers: Sequence[int], target: int, steps: Sequence[Step], spare: int = 0) -> bool:
    """Whether the steps are true, lead to `target`, and use each of `numbers` once, but for at most `spare` of them.

    Read from the end: what is needed is the target first, and each step replaces its result by its operands. So every step
    counts towards the target; a step nobody needs cannot use up a number.
    """
    needed = Counter([target])
    for a, operator, b, result in reversed(steps):
        if needed[result] == 0 or apply_operator(a, operator, b) != result:
            return False
        needed[result] -= 1
        needed.update((a, b))
    given = Counter(numbers)
    return len(steps) > 0 and needed <= given and (given - needed).total() <= spare


@dataclass(frozen=True)
class CountdownTask:
    """Grades and step-checks Countdown completions; numbers and target are read from the problem's text."""

    name: str = "countdown"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(SPLIT_SHARES)

    def make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        return make_problems(count, seed, split)

    def gold_completion(self, problem: Problem) -> str:
        """The problem's own reference, or where it has none the first solution there is.

        Raises ValueError where the gold answer is not the target.
        """
        numbers, target = read_problem(problem.problem)
        if problem.answer.strip() != str(target):
            raise ValueError(f"its answer is {problem.answer!r}, its target {target}")
        if problem.solution is not None and problem.solution.strip():
            return f"{_ANSWER} {problem.solution}"
        sizes = range(len(numbers), len(numbers) - may_leave_out(problem.problem) - 1, -1)
        pools = [pool for size in sizes for pool in combinations(numbers, size)]
        chains = (chain for pool in pools for chain in all_chains(pool, low=0, high=10**MAX_DIGITS - 1))
        chain = next((chain for chain in chains if chain and chain[-1][3] == target), ())
        return f"{_ANSWER} {', '.join(map(write_step, chain))}"

    def grade(self, problem: Problem, completion: str) -> Grade:
        text, steps = read_answer(completion)
        if text is None:
            return Grade(GradeStatus.NO_ANSWER)
        spare = may_leave_out(problem.problem)
        right = steps is not None and is_solution(*read_problem(problem.problem), steps, spare)
        return Grade(GradeStatus.CORRECT if right else GradeStatus.INCORRECT, extracted=text[:200])

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        return [self.grade(problem, completion) for problem, completion in pairs]

    def solution_key(self, problem: Problem, completion: str) -> str | None:
        """The steps of a right answer, whatever their order and that of the numbers added or multiplied."""
        _, steps = read_answer(completion)
        spare = may_leave_out(problem.problem)
        if not steps or not is_solution(*read_problem(problem.problem), steps, spare):
            return None
        ordered = [(max(a, b), op, min(a, b), result) if op in "+*" else (a, op, b, result) for a, op, b, result in steps]
        return ", ".join(map(write_step, sorted(ordered)))

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """Every equation and every comparison is a step.

        An equation is right when its arithmetic holds and both operands are given numbers or results written before it;
        a comparison is right when its relation holds and its right side is the target.
        """
        completion = completion[-MAX_CHARS:]
        numbers, target = read_problem(problem.problem)
        known = set(numbers)
        verdicts: dict[int, bool] = {}  # by the step's place in the text
        for match in _STEP.finditer(completion):
            a, operator, b, result = match.groups()
            true = apply_operator(int(a), operator, int(b)) == int(result)
            verdicts[match.start()] = {int(a), int(b)} <= known and true
            known.add(int(result))
        for match in _COMPARISON.finditer(completion):
            left, relation, reference = int(match[1]), match[2], int(match[3])
            holds = left < reference if relation == "<" else left > reference if relation == ">" else left == reference
            verdicts[match.start()] = holds and reference == target
        return StepCheck.of([verdicts[place] for place in sorted(verdicts)])


@dataclass(frozen=True)
class CountdownSpec:
    """A distribution of problems: how many numbers, and the inclusive ranges of numbers and target."""

    num_numbers: int = 3
    number_range: tuple[int, int] = (1, 20)
    target_range: tuple[int, int] = (10, 80)


SPLIT_SHARES = {"pretrain": 60, "train": 25, "validation": 5, "test": 10}  # percent; pretrain makes the base model


def problem_id(numbers: Sequence[int], target: int) -> str:
    """Canonical name: the order in which numbers are shown does not make another problem."""
    return f"{'-'.join(map(str, sorted(numbers)))}={target}"


def split_of(numbers: Sequence[int], target: int) -> str:
    """The split a problem belongs to, by a hash of its canonical name."""
    return splits.split_of(problem_id(numbers, target), SPLIT_SHARES)


def make_problems(count: int, seed: int, split: str, spec: CountdownSpec | None = None) -> list[Problem]:
    """`count` distinct solvable problems of one split, the same list for the same arguments.

    Raises ValueError for an unknown split, and where the specification has too few problems.
    """
    if split not in SPLIT_SHARES:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLIT_SHARES)}")
    spec = spec or CountdownSpec()
    if count < 0 or spec.num_numbers < 2:
        raise ValueError(f"count must be at least 0 and num_numbers at least 2, got {count} and {spec.num_numbers}")
    rng = random.Random(f"countdown/{split}/{seed}/{spec}")
    problems: dict[str, Problem] = {}
    low, high = spec.target_range
    tried_in_vain = 0
    while len(problems) < count and tried_in_vain < 50_000:
        tried_in_vain += 1
        numbers = [rng.randint(*spec.number_range) for _ in range(spec.num_numbers)]
        chain = random_chain(numbers, rng)
        if chain is None or not low <= (target := chain[-1][3]) <= high:
            continue
        name = problem_id(numbers, target)
        if name not in problems and split_of(numbers, target) == split:
            tried_in_vain = 0
            problems[name] = Problem(
                id=name,
                problem=write_problem(numbers, target),
                answer=str(target),
                solution=", ".join(map(write_step, chain)),
            )
    if len(problems) < count:
        raise ValueError(
            f"found only {len(problems)} of {count} {split} problems for {spec}: ask for fewer or widen its ranges"
        )
    return list(problems.values())
