"""A problem's split never changes: models that were trained on one split are tested on another."""

import hashlib

import pytest

from dasd.tasks import countdown, products, reasoning_gym, word_problems
from dasd.tasks.splits import split_of


def digest(words):
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


SPLITS = {
    "countdown": lambda: [countdown.split_of([a, 7, 8], target) for a in range(1, 21) for target in range(10, 40)],
    "products": lambda: [products.split_of([(a, b), (23, 6), (51, 4)]) for a in range(11, 60) for b in range(3, 10)],
    "word_problems": lambda: [word_problems.split_of(f"buying: {a} * {b}") for a in range(20) for b in range(20)],
    "reasoning_gym": lambda: [
        split_of(f"What is {a} + {b}?", reasoning_gym.SPLIT_SHARES) for a in range(20) for b in range(20)
    ],
}
FIRST = {
    "countdown": "8c4028526fce7d0a",
    "products": "96084ab87a39f965",
    "word_problems": "1116a74228100e97",
    "reasoning_gym": "3c5159b0537b42ab",
}
FIRST_MADE = {"countdown": "7be2382b2e6f432a", "products": "5a239635cede45fb", "word_problems": "9a2ddf9c00222cf0"}


def name(task):
    return task.__name__.rpartition(".")[2]


@pytest.mark.parametrize("task", SPLITS)
def test_the_splits_are_those_of_the_first_release(task):
    assert digest(SPLITS[task]()) == FIRST[task]


@pytest.mark.parametrize("task", [countdown, products, word_problems], ids=name)
def test_the_problems_are_those_of_the_first_release(task):
    made = {split: task.make_problems(20, 0, split) for split in task.SPLIT_SHARES}
    assert (
        digest(f"{split} {problem.id} {problem.problem}" for split in made for problem in made[split]) == FIRST_MADE[name(task)]
    )


def test_pairs_that_are_held_out_are_those_of_the_first_release():
    held_out = [pair for pair in products.all_pairs() if products.is_held_out(pair)]
    assert (len(held_out), digest(map(str, held_out))) == (71, "9be84b602208cac5")
