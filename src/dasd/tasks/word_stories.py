"""What are the stories of the word problems made of? Stages, random draws, and facts that no question needs.

A story is a chain of facts from which one more number can be worked out at every stage: a stage says something new, has a
question of its own, and the working of that question, one equation or two. A problem tells a story up to one of its stages and
asks that stage's question. Every story draws its numbers so that all results are whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_PEOPLE = (
    "Ada she her|Bela he his|Chidi he his|Dara she her|Emil he his|Fatima she her|Goran he his|Hana she her|Ivo he his|"
    "Jun he his|Kira she her|Leo he his|Mara she her|Nils he his|Oya she her|Pavel he his|Rosa she her|Samir he his|"
    "Tess she her|Umar he his|Vera she her|Wen she her|Yusuf he his|Zoe she her"
)
PEOPLE = [tuple(person.split()) for person in _PEOPLE.split("|")]


@dataclass(frozen=True)
class Stage:
    """What is told, what may be asked, and the working: sentences with an equation behind each colon."""

    told: str
    asked: str
    worked: tuple[str, ...]


class Draw:
    """Random choices of one story. `size` stretches the ranges of its larger numbers."""

    def __init__(self, rng: random.Random, size: float) -> None:
        self.rng, self.size = rng, size
        people = rng.sample(PEOPLE, 3)
        (self.name, self.they, self.their), (self.friend, *_), (self.other, *_) = people
        self.They = self.they.capitalize()

    def few(self, low: int = 2, high: int = 6) -> int:
        return self.rng.randint(low, high)

    def many(self, low: int, high: int) -> int:
        return self.rng.randint(low, max(low + 1, round(low + (high - low) * self.size)))

    def of(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def divisor(self, number: int, low: int = 2, high: int = 12) -> int | None:
        """One of the divisors of `number` in a range, None where it has none."""
        found = [n for n in range(low, high + 1) if number % n == 0 and n < number]
        return self.rng.choice(found) if found else None


SHARES = {2: "half", 3: "one third", 4: "one quarter", 5: "one fifth"}

# Facts with a number in them that no question needs; those about a person go where the story has one.
DISTRACTORS = (
    "It has been warm for {n} days.",
    "The radio says that it will be {n} degrees tomorrow.",
    "The next town is {n} kilometers away.",
    "The clock on the wall is {n} minutes late.",
    "A song of {n} seconds is on the radio.",
)
PERSONAL_DISTRACTORS = (
    "{They} lives in house number {n}.",
    "{Their} brother is {n} years old.",
    "{They} has {n} cousins.",
    "{They} has been awake for {n} minutes.",
    "{Their} best friend lives {n} kilometers away.",
)
