"""How far does a model go beyond what it was trained on? Six suites of Countdown problems, made here, each one step away.

Fine-tuning draws three numbers of 1..20 and targets of 10..80 (`CountdownSpec`). A tenth of the texts that made the bundled
base model also had four numbers, or numbers up to 40 and targets up to 99: for it those two are rare rather than new. All
problems are of the `test` split, all numbers and results within 1..99, which the bundled tokenizer has as single tokens.

| suite | what differs |
|---|---|
| in_distribution | nothing |
| more_numbers | four numbers |
| larger_numbers | every number in 21..60 |
| larger_targets | targets in 81..99 |
| unseen_operators | every solution needs a division; 8 % of training problems do, so the mix is rare, not unseen |
| distractor | a fourth number that may be left out, which the problem says in words seen in no training |
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations_with_replacement

from dasd.tasks.base import Problem
from dasd.tasks.countdown import CountdownSpec, make_problems, problem_id, read_problem, split_of, write_problem
from dasd.tasks.countdown_search import all_chains
from dasd.tasks.countdown_steps import write_step

COUNT = 200
SPLIT = "test"


def unseen_operators() -> list[Problem]:
    """All problems of the test split whose every solution divides, in a fixed shuffled order."""
    spec = CountdownSpec()
    smallest, largest = spec.number_range
    problems = []
    for numbers in combinations_with_replacement(range(smallest, largest + 1), spec.num_numbers):
        solutions = defaultdict(list)
        for chain in all_chains(numbers):
            solutions[chain[-1][3]].append(chain)
        for target, chains in solutions.items():
            low, high = spec.target_range
            divides = all(any(operator == "/" for _, operator, _, _ in chain) for chain in chains)
            if divides and low <= target <= high and split_of(numbers, target) == SPLIT:
                rng = random.Random(problem_id(numbers, target))
                shown, solution = rng.sample(numbers, len(numbers)), rng.choice(chains)
                problems.append(_problem(shown, target, ", ".join(map(write_step, solution))))
    random.Random("countdown/unseen_operators").shuffle(problems)
    return problems[:COUNT]


def distractor() -> list[Problem]:
    """In-distribution problems with a number more, among the others; it and three others are a test problem again."""
    problems = []
    for problem in make_problems(2 * COUNT, 0, SPLIT):
        numbers, target = read_problem(problem.problem)
        rng = random.Random(problem.id)
        candidates = [n for n in range(1, 21) if split_of([*numbers, n], target) == SPLIT]
        if candidates and problem.solution is not None:
            numbers.insert(rng.randrange(len(numbers) + 1), rng.choice(candidates))
            problems.append(_problem(numbers, target, problem.solution, spare=True))
    return problems[:COUNT]


def _problem(numbers: list[int], target: int, solution: str, spare: bool = False) -> Problem:
    return Problem(
        id=problem_id(numbers, target), problem=write_problem(numbers, target, spare), answer=str(target), solution=solution
    )


def _of(spec: CountdownSpec, count: int = COUNT) -> Callable[[], list[Problem]]:
    return lambda: make_problems(count, 0, SPLIT, spec)


SUITES: dict[str, Callable[[], list[Problem]]] = {
    "in_distribution": _of(CountdownSpec()),
    "more_numbers": _of(CountdownSpec(num_numbers=4)),
    "larger_numbers": _of(CountdownSpec(number_range=(21, 60))),
    "larger_targets": _of(CountdownSpec(target_range=(81, 99)), count=90),  # of 104 that there are
    "unseen_operators": unseen_operators,
    "distractor": distractor,
}
