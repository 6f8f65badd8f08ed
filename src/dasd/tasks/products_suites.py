"""How far does a model go beyond what it was trained on? Five suites of Products, made here, each one step away.

Fine-tuning draws four products of a number of 11..59 and one of 3..9 (`ProductsSpec`), and never a pair that is held out. The
texts that made the bundled base model have every pair; some of them also had two to five products, or numbers up to 99: for it
those are rare rather than new. All problems are of the `test` split.

| suite | what differs |
|---|---|
| in_distribution | nothing |
| other_pairs | every pair is held out from fine-tuning |
| more_products | five products |
| larger_factors | every two-digit number in 61..99 |
| other_wording | the same problems, asked in words seen in no training |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dasd.tasks.base import Problem
from dasd.tasks.products import ProductsSpec, make_problems, read_problem

COUNT = 200
SPLIT = "test"


def other_wording() -> list[Problem]:
    """In-distribution problems in other words."""
    return [replace(problem, problem=reworded(problem.problem)) for problem in make_problems(COUNT, 0, SPLIT)]


def reworded(text: str) -> str:
    asked = " and ".join(f"{name}: {a} * {b}" for name, (a, b) in read_problem(text).items())
    return f"Please tell me what these make: {asked}, thank you."


def _of(spec: ProductsSpec) -> Callable[[], list[Problem]]:
    return lambda: make_problems(COUNT, 0, SPLIT, spec)


SUITES: dict[str, Callable[[], list[Problem]]] = {
    "in_distribution": _of(ProductsSpec()),
    "other_pairs": _of(ProductsSpec(held_out=True)),
    "more_products": _of(ProductsSpec(products=5)),
    "larger_factors": _of(ProductsSpec(factors=(61, 99))),
    "other_wording": other_wording,
}
