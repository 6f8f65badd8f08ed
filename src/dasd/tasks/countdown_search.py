"""Who writes Countdown's visible searches? A random searcher that knows arithmetic but not where to look.

It tries chains of steps at random, compares each result with the target, changes the last step ("alternatively") or starts
over ("wait, maybe"), and stops at a solution or gives up. The bundled base model is trained on these texts; references are
written in the same language, so that a teacher can use them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from dasd.tasks.countdown_steps import OPERATORS, RESULT_LIMIT, Step, apply_operator, write_step

OPENINGS = ("perhaps", "maybe", "try")
RESTARTS = ("wait, perhaps", "wait, maybe", "hmm, try")
GIVE_UP = "hmm, no luck."


def next_steps(numbers: Sequence[int], low: int = 1, high: int = RESULT_LIMIT) -> list[Step]:
    """Every step from these numbers with a result in low..high, larger operand first, without duplicates."""
    steps = set()
    for i, first in enumerate(numbers):
        for second in numbers[i + 1 :]:
            a, b = max(first, second), min(first, second)
            for operator in OPERATORS:
                result = apply_operator(a, operator, b)
                if result is not None and low <= result <= high:
                    steps.add((a, operator, b, result))
    return sorted(steps)


def remaining(numbers: Sequence[int], step: Step) -> list[int]:
    """The numbers left after a step: its operands used up, its result added."""
    rest = list(numbers)
    rest.remove(step[0])
    rest.remove(step[2])
    return [*rest, step[3]]


def all_chains(numbers: Sequence[int], low: int = 1, high: int = RESULT_LIMIT) -> list[tuple[Step, ...]]:
    """Every chain of steps that uses all numbers, with results in low..high."""
    if len(numbers) == 1:
        return [()]
    steps = next_steps(numbers, low, high)
    return [(step, *rest) for step in steps for rest in all_chains(remaining(numbers, step), low, high)]


def random_chain(numbers: Sequence[int], rng: random.Random) -> list[Step] | None:
    """One chain drawn step by step, or None where a step has no allowed continuation."""
    chain: list[Step] = []
    while len(numbers) > 1:
        steps = next_steps(numbers)
        if not steps:
            return None
        chain.append(rng.choice(steps))
        numbers = remaining(numbers, chain[-1])
    return chain


@dataclass(frozen=True)
class Searcher:
    """How a search behaves. Probabilities are per attempt.

    `insight` picks a solution instead of a random chain, `persistence` changes only the last step of the previous attempt,
    `attempts` is the inclusive range of attempts before giving up.
    """

    insight: float = 0.1
    persistence: float = 0.5
    attempts: tuple[int, int] = (4, 7)

    def write(self, numbers: Sequence[int], target: int, rng: random.Random) -> str:
        """The text of one search."""
        untried = all_chains(numbers)
        solutions = [chain for chain in untried if chain[-1][3] == target]
        words: list[str] = []
        previous: tuple[Step, ...] | None = None
        for _ in range(rng.randint(*self.attempts)):
            same_start = [c for c in untried if previous is not None and c[:-1] == previous[:-1] and len(c) > 1]
            persist = bool(same_start) and rng.random() < self.persistence
            pool = same_start if persist else untried
            if not pool:
                break
            hits = [c for c in pool if c[-1][3] == target]
            chain = rng.choice(hits) if hits and rng.random() < self.insight else self._draw(pool, rng)
            if persist:
                words.append("alternatively " + write_step(chain[-1]) + ".")
            else:
                opening = rng.choice(OPENINGS if previous is None else RESTARTS)
                words.append(f"{opening} {', '.join(map(write_step, chain))}.")
            untried.remove(chain)
            result = chain[-1][3]
            relation = "<" if result < target else ">" if result > target else "="
            words.append(f"check {result} {relation} {target}.")
            if chain in solutions:
                words.append(f"answer: {', '.join(map(write_step, chain))}.")
                return " ".join(words)
            previous = chain
        return " ".join([*words, GIVE_UP])

    @staticmethod
    def _draw(pool: list[tuple[Step, ...]], rng: random.Random) -> tuple[Step, ...]:
        """A chain drawn step by step, so that a first step with many continuations is not favoured."""
        depth = 0
        while len(pool) > 1:
            step = rng.choice(sorted({chain[depth] for chain in pool}))
            pool = [chain for chain in pool if chain[depth] == step]
            depth += 1
        return pool[0]
