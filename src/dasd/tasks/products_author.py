"""Who writes the workings of Products? Somebody who misremembers some products, and never errs when taking one apart.

In one go the author says each product from memory. Of a fixed share of all pairs of factors a wrong value is remembered, with
its carry left out or ten off, and said nearly always. Whether to check is decided by a coin that knows nothing of this: a check
takes the product apart (47 * 8 is 320 + 56) and is always right, and what it contradicts is corrected. So what is wrong is
wrong with certainty, accuracy depends on checks, and uncertain are the choices alone that make no answer: which product is
next, in which words, whether it is checked, which part comes first.

This is an instrument, built so that the uncertain token is not the answer. How often that is so elsewhere it cannot tell.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from dasd.tasks.products import NAMES, Pair, all_pairs, is_held_out
from dasd.tasks.splits import bucket

TURNS = ("now", "next", "then")
VERBS = ("take", "try", "do")
DOUBTS = ("wait,", "hmm,")
CHECKS = ("check", "perhaps", "maybe")
AGREEMENTS = ("right,", "good,", "fine,")
CORRECTION = "no,"
RESULT = "so"
NAMED = tuple(f"{name}:" for name in NAMES)

MISREMEMBERED_SHARE = 0.22  # of the pairs
SLIP = 0.95  # how often a misremembered value is said


def misremembered(pair: Pair) -> int | None:
    """The wrong value that the author remembers of a pair; None where the right one is known."""
    return _slips().get(pair)


@cache
def _slips() -> dict[Pair, int]:
    """The same share of small and large pairs, and of those that are held out, by a hash: there is no rule to be learnt."""
    groups: dict[tuple[bool, bool], list[Pair]] = {}
    for pair in all_pairs():
        groups.setdefault((pair[0] >= 60, is_held_out(pair)), []).append(pair)
    slips: dict[Pair, int] = {}
    for group in groups.values():
        group.sort(key=lambda pair: bucket(f"misremembered {pair[0]} * {pair[1]}", 2**64))
        slips |= {pair: _wrong(*pair) for pair in group[: round(MISREMEMBERED_SHARE * len(group))]}
    return slips


def _wrong(a: int, b: int) -> int:
    """Without its carry; ten more or less where it has none."""
    carry = a % 10 * b // 10
    off = -10 * carry if carry else 10 if bucket(f"ten more {a} * {b}", 2) else -10
    return a * b + off


def choices(texts: Sequence[str]) -> list[bool]:
    """Which tokens of a working choose among equals: an order, a wording, a check. `texts` is what each token adds to it."""
    words = [text.strip() for text in texts]
    chosen = []
    for before, word in pairwise([".", *words]):
        wording = word in (*TURNS, *VERBS, *DOUBTS, *CHECKS, *AGREEMENTS)
        order = word in NAMED or before in CHECKS
        chosen.append(bool(word) and (wording or order or (word == RESULT and before == ".")))
    return chosen


@dataclass(frozen=True)
class Author:
    """How a working is written. `check`: probability of a check after a product; who `knows` says no wrong value."""

    check: float
    knows: bool = False

    def write(self, pairs: Sequence[Pair], rng: random.Random) -> str:
        """The text of one working; every wording and every order is as likely as the others."""
        words = []
        for name, (a, b) in rng.sample(list(zip(NAMES, pairs, strict=False)), len(pairs)):
            value = self._remember((a, b), rng)
            words += [rng.choice(TURNS), rng.choice(VERBS), f"{name}: {a} * {b} = {value}."]
            if rng.random() < self.check:
                first, second = rng.sample((a // 10 * 10 * b, a % 10 * b), 2)
                words += [rng.choice(DOUBTS), rng.choice(CHECKS), f"{first} + {second} = {a * b}."]
                words.append(rng.choice(AGREEMENTS) if value == a * b else CORRECTION)
                value = a * b
            words.append(f"{RESULT} {name} {value}.")
        return " ".join(words)

    def _remember(self, pair: Pair, rng: random.Random) -> int:
        slip = None if self.knows else misremembered(pair)
        return pair[0] * pair[1] if slip is None or rng.random() >= SLIP else slip
