"""Products: a few products in any order, each said in one go, with or without a check.

    Find a: 47 * 8, b: 23 * 6, c: 51 * 4.
    now take c: 51 * 4 = 204. so c 204. next try a: 47 * 8 = 326. wait, check 320 + 56 = 376. no, so a 376.
    then do b: 23 * 6 = 138. hmm, maybe 18 + 120 = 138. right, so b 138.

A completion is right when every name of the problem is given the value of its product (`so a 376`), in any order; of a name
that is given several the last one counts, and no other name may be given any. Text is only matched against fixed patterns and
compared as integers: nothing is ever evaluated as code, and a run of more than `MAX_DIGITS` digits is not a number here.
`products_author` writes such texts, and says what is hard about them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dasd.tasks import splits
from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck

MAX_DIGITS = 6
MAX_CHARS = 20_000  # no honest working is longer; only the last MAX_CHARS of a completion are read
NAMES = "abcde"

Pair = tuple[int, int]  # two factors, the larger one first

# [0-9] and never \d, which also matches the digits of other scripts.
_NUMBER = rf"([0-9]{{1,{MAX_DIGITS}}})"
_NAMED = re.compile(rf"\b([a-z]): ?{_NUMBER} ?\* ?{_NUMBER}(?![0-9]|\.[0-9]| ?[-+*/])")
# A step stands alone: it is not a piece of a decimal or of a longer expression.
_END = r"(?![0-9a-zA-Z]|\.[0-9]| ?[-+*/=])"
_PRODUCT = rf"\b(?P<name>[a-z]): ?{_NUMBER} ?\* ?{_NUMBER} ?= ?{_NUMBER}{_END}"
_SUM = rf"(?<![0-9.])(?<![-+*/])(?<![-+*/] ){_NUMBER} ?\+ ?{_NUMBER} ?= ?{_NUMBER}{_END}"
_STEP = re.compile(f"{_PRODUCT}|{_SUM}")
_VALUE = re.compile(rf"\bso ([a-z]) {_NUMBER}{_END}")


def write_problem(pairs: Sequence[Pair]) -> str:
    return f"Find {', '.join(f'{name}: {a} * {b}' for name, (a, b) in zip(NAMES, pairs, strict=False))}."


def write_values(pairs: Sequence[Pair]) -> str:
    """The gold answer: each name with its value."""
    return ", ".join(f"{name} {a * b}" for name, (a, b) in zip(NAMES, pairs, strict=False))


def read_problem(text: str) -> dict[str, Pair]:
    """Name -> factors, in the order of a problem's text. Raises ValueError for a text of another form."""
    found = [(name, (int(a), int(b))) for name, a, b in _NAMED.findall(text)]
    if not found or len(dict(found)) < len(found):
        raise ValueError(f"not a problem of products: {text[:80]!r}; expected a text like 'Find a: 47 * 8, b: 23 * 6.'")
    return dict(found)


def read_values(completion: str) -> dict[str, int]:
    """Name -> the last value that a completion gives it."""
    return {name: int(value) for name, value in _VALUE.findall(completion[-MAX_CHARS:])}


@dataclass(frozen=True)
class ProductsSpec:
    """A distribution of problems: how many products, the inclusive range of their two-digit factor, and whether only pairs are
    asked that no problem of another distribution has."""

    products: int = 4
    factors: tuple[int, int] = (11, 59)
    held_out: bool = False


ONE_DIGIT = (3, 9)  # inclusive range of the other factor
SPLIT_SHARES = {"pretrain": 60, "train": 25, "validation": 5, "test": 10}  # percent; pretrain makes the base model
HELD_OUT_SHARE = 15  # percent of the pairs


@dataclass(frozen=True)
class ProductsTask:
    """Grades and step-checks; names and factors are read from the problem's text."""

    name: str = "products"
    spec: ProductsSpec = ProductsSpec()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(SPLIT_SHARES)

    def make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        return make_problems(count, seed, split, self.spec)

    def gold_completion(self, problem: Problem) -> str:
        return f"so {problem.answer.strip().replace(', ', '. so ')}."

    def grade(self, problem: Problem, completion: str) -> Grade:
        """No answer is what leaves out a name."""
        asked, values = read_problem(problem.problem), read_values(completion)
        if not asked.keys() <= values.keys():
            return Grade(GradeStatus.NO_ANSWER)
        right = values == {name: a * b for name, (a, b) in asked.items()}
        said = ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
        return Grade(GradeStatus.CORRECT if right else GradeStatus.INCORRECT, extracted=said)

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        return [self.grade(problem, completion) for problem, completion in pairs]

    def solution_key(self, problem: Problem, completion: str) -> str | None:
        """The order in which a right completion takes the products."""
        if not self.grade(problem, completion).correct:
            return None
        named = (match["name"] for match in _STEP.finditer(completion[-MAX_CHARS:]) if match["name"])
        return " ".join(dict.fromkeys(named))

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """Every product that is named and every sum is a step.

        A product is right when its name and factors are the problem's and its value is true; a sum is right when it holds and
        its value is that of the product named last.
        """
        asked, verdicts, value = read_problem(problem.problem), [], None
        for match in _STEP.finditer(completion[-MAX_CHARS:]):
            name, a, b, product, left, right, total = match.groups()
            if name:
                value = int(a) * int(b)
                same = sorted((int(a), int(b))) == sorted(asked.get(name, ()))
                verdicts.append(same and value == int(product))
            else:
                verdicts.append(int(left) + int(right) == int(total) == value)
        return StepCheck.of(verdicts)


def read_settings(settings: Mapping[str, Any]) -> ProductsSpec:
    """The distribution that `data.task_settings` names. Raises ValueError."""
    unknown = set(settings) - {"products"}
    if unknown:
        raise ValueError(f"products has no setting {min(unknown)!r}; it has: products")
    products = settings.get("products", ProductsSpec.products)
    if isinstance(products, bool) or not isinstance(products, int) or not 2 <= products <= len(NAMES):
        raise ValueError(f"products must be a whole number from 2 to {len(NAMES)}, got {products!r}")
    return ProductsSpec(products)


def all_pairs(low: int = 11, high: int = 99) -> list[Pair]:
    """Every two-digit number of the range but the round ones, which need no check, with every one-digit factor."""
    return [(a, b) for a in range(low, high + 1) if a % 10 for b in range(ONE_DIGIT[0], ONE_DIGIT[1] + 1)]


def is_held_out(pair: Pair) -> bool:
    """Whether a pair occurs in no problem of training, validation and test but those of the suite that asks for such pairs."""
    return splits.bucket(f"held out {pair[0]} * {pair[1]}") < HELD_OUT_SHARE


def problem_id(pairs: Sequence[Pair]) -> str:
    """Canonical name: the order of the products does not make another problem."""
    return "-".join(f"{a}*{b}" for a, b in sorted(pairs))


def split_of(pairs: Sequence[Pair]) -> str:
    """The split a problem belongs to, by a hash of its canonical name."""
    return splits.split_of(problem_id(pairs), SPLIT_SHARES)


def make_problem(pairs: Sequence[Pair]) -> Problem:
    return Problem(
        id=problem_id(pairs), problem=write_problem(pairs), answer=write_values(pairs), solution=write_solution(pairs)
    )


def write_solution(pairs: Sequence[Pair]) -> str:
    """The reference: each product with its value."""
    return ", ".join(f"{name}: {a} * {b} = {a * b}" for name, (a, b) in zip(NAMES, pairs, strict=False))


def make_problems(count: int, seed: int, split: str, spec: ProductsSpec | None = None) -> list[Problem]:
    """`count` distinct problems of one split, the same list for the same arguments, no pair twice in a problem.

    Pairs that are held out occur in the `pretrain` split, and where the specification asks for nothing else. Raises ValueError
    for an unknown split.
    """
    if split not in SPLIT_SHARES:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLIT_SHARES)}")
    spec = spec or ProductsSpec()
    if count < 0 or not 1 <= spec.products <= len(NAMES):
        raise ValueError(f"count must be at least 0 and products 1 to {len(NAMES)}, got {count} and {spec.products}")
    pairs = all_pairs(*spec.factors)
    if spec.held_out or split != "pretrain":
        pairs = [pair for pair in pairs if is_held_out(pair) == spec.held_out]
    rng = random.Random(f"products/{split}/{seed}/{spec}")
    problems: dict[str, Problem] = {}
    tried_in_vain = 0
    while len(problems) < count and tried_in_vain < 50_000:
        tried_in_vain += 1
        drawn = rng.sample(pairs, spec.products)
        if split_of(drawn) == split and problem_id(drawn) not in problems:
            tried_in_vain = 0
            problem = make_problem(drawn)
            problems[problem.id] = problem
    if len(problems) < count:
        raise ValueError(
            f"found only {len(problems)} of {count} {split} problems for {spec}: ask for fewer, or for more products in each"
        )
    return list(problems.values())
