"""Is a working of Products judged by the rules alone, and are problems and their author what they are said to be?"""

import hashlib
import random
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.tasks import make_task
from dasd.tasks.base import GradeStatus, MakesProblems, StepCheck, TellsSolutionsApart
from dasd.tasks.products import (
    MAX_CHARS,
    NAMES,
    SPLIT_SHARES,
    ProductsSpec,
    ProductsTask,
    all_pairs,
    is_held_out,
    make_problem,
    make_problems,
    problem_id,
    read_problem,
    split_of,
)
from dasd.tasks.products_author import SLIP, Author, choices, misremembered

CORRECT, INCORRECT, NO_ANSWER = GradeStatus.CORRECT, GradeStatus.INCORRECT, GradeStatus.NO_ANSWER
TASK = ProductsTask()
PAIRS = [(47, 8), (23, 6), (51, 4)]
PROBLEM = make_problem(PAIRS)
WORKING = (
    "now take c: 51 * 4 = 204. so c 204. next try a: 47 * 8 = 326. wait, check 320 + 56 = 376. no, so a 376. "
    "then do b: 23 * 6 = 138. hmm, maybe 18 + 120 = 138. right, so b 138."
)
pairs_lists = st.lists(st.sampled_from(all_pairs()), min_size=1, max_size=len(NAMES), unique=True)


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    "completion",
    [
        WORKING,
        "so a 376. so b 138. so c 204.",
        "so c 204. so b 138. so a 376.",
        "so a 376, so b 138, so c 204",
        "so a 326. so b 138. so c 204. so a 376.",  # the last one counts
        "now take a: 47 * 8 = 326. so a 376. so b 138. so c 204.",  # a wrong step, a right answer
        "we say so: so a 376.\nso b 138.\nso c 204.\n",
    ],
)
def test_right_answers(completion):
    assert TASK.grade(PROBLEM, completion).status is CORRECT


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ("so a 326. so b 138. so c 204.", "47 * 8 is 376"),
        ("so a 376. so b 138. so c 204. so a 326.", "the last one counts"),
        ("so a 376. so b 138. so c 204. so d 1.", "nobody asked for d"),
        ("so a 138. so b 376. so c 204.", "swapped"),
        (WORKING.replace("so a 376", "so a 326"), "checked, and said wrong all the same"),
    ],
)
def test_wrong_answers(completion, why):
    assert TASK.grade(PROBLEM, completion).status is INCORRECT, why


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ("", "nothing"),
        ("376 138 204", "no names"),
        ("so a 376. so b 138.", "c is left out"),
        ("a 376. b 138. c 204.", "not said as results"),
        ("also a 376. also b 138. also c 204.", "another word that ends in so"),
        ("so a 376.5. so b 138. so c 204.", "a decimal"),
        ("so a 376 + 0. so b 138. so c 204.", "an expression"),
        ("so a 0000376. so b 138. so c 204.", "seven digits"),
        ("so a ٣٧٦. so b 138. so c 204.", "digits of another script"),
        (" so a 376. so b 138. so c 204." + "." * MAX_CHARS, "too far from the end"),
    ],
)
def test_no_answers(completion, why):
    assert TASK.grade(PROBLEM, completion).status is NO_ANSWER, why


def test_what_was_said_is_put_in_one_form():
    """Maj@k counts equal answers: the order of the working must not tell them apart."""
    texts = "so c 204. so b 138. so a 1.", "so a 1. so b 138. so c 204."
    assert [TASK.grade(PROBLEM, text).extracted for text in texts] == ["a 1, b 138, c 204"] * 2


@pytest.mark.parametrize(
    ("completion", "right", "checked", "first_wrong"),
    [
        (WORKING, 4, 5, 2),
        ("a: 47 * 8 = 376.", 1, 1, None),
        ("a: 8 * 47 = 376.", 1, 1, None),
        ("a: 23 * 6 = 138.", 0, 1, 1),  # true, but b's
        ("d: 47 * 8 = 376.", 0, 1, 1),  # nobody asked
        ("a: 47 * 8 = 326. wait, check 320 + 56 = 366.", 0, 2, 1),
        ("a: 47 * 8 = 376. wait, check 320 + 57 = 377.", 1, 2, 2),  # it holds, and is no check of a
        ("a: 47 * 8 = 376. wait, check 188 + 188 = 376.", 2, 2, None),  # another way to take it apart
        ("320 + 56 = 376.", 0, 1, 1),  # of nothing
        ("a: 47 * 8 = 376.5", 0, 0, None),
        ("a: 47 * 8 = 376 + 1. 1 + 320 + 56 = 377. 320 + 56 = 376 = 376.", 0, 0, None),
        ("so a 376.", 0, 0, None),
    ],
)
def test_steps(completion, right, checked, first_wrong):
    steps = TASK.check_steps(PROBLEM, completion)
    assert steps == StepCheck(right, checked)
    assert steps.first_wrong == first_wrong


def test_a_way_is_the_order_of_the_products():
    assert TASK.solution_key(PROBLEM, WORKING) == "c a b"
    assert TASK.solution_key(PROBLEM, WORKING.replace("so a 376", "so a 326")) is None
    assert TASK.solution_key(PROBLEM, "so a 376. so b 138. so c 204.") == ""


@pytest.mark.parametrize("text", ["", "Use 3 7 8 to make 29.", "Find a: 47 + 8.", "Find a: 47 * 8, a: 23 * 6."])
def test_other_problems_are_refused(text):
    with pytest.raises(ValueError, match="not a problem of products"):
        read_problem(text)


@given(st.text(max_size=200), pairs_lists)
@settings(max_examples=150, deadline=None)
def test_any_text_is_judged(text, pairs):
    problem = make_problem(pairs)
    assert TASK.grade(problem, text).status in (NO_ANSWER, INCORRECT)
    assert TASK.check_steps(problem, text).checked >= 0


def test_the_registry_has_it():
    task = make_task("products", settings={"products": 2})
    assert isinstance(task, MakesProblems)
    assert isinstance(task, TellsSolutionsApart)
    assert all(len(read_problem(problem.problem)) == 2 for problem in task.make_problems(5, 0, "train"))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"products": 6}, "from 2 to 5, got 6"),
        ({"products": 1}, "got 1"),
        ({"products": True}, "got True"),
        ({"products": "3"}, "got '3'"),
        ({"number": 3}, "no setting 'number'; it has: products"),
    ],
)
def test_settings_it_does_not_take(given, fault):
    with pytest.raises(ValueError, match=fault):
        make_task("products", settings=given)


# ---------------------------------------------------------------- problems


def test_problems_are_distinct_and_the_same_each_time_and_no_split_has_anothers():
    made = {split: make_problems(300, 3, split) for split in SPLIT_SHARES}
    for split, problems in made.items():
        assert problems == make_problems(300, 3, split) != make_problems(300, 4, split)
        assert len({problem.id for problem in problems}) == 300
        for problem in problems:
            pairs = list(read_problem(problem.problem).values())
            assert split_of(pairs) == split_of(pairs[::-1]) == split
            assert problem.id == problem_id(pairs)
            assert len(set(pairs)) == len(pairs) == 4
            assert all(11 <= a <= 59 and a % 10 and 3 <= b <= 9 for a, b in pairs)
            assert any(map(is_held_out, pairs)) <= (split == "pretrain")
            assert TASK.grade(problem, TASK.gold_completion(problem)).correct
            assert TASK.check_steps(problem, problem.solution) == StepCheck(4, 4)
    texts = [problem.problem for problems in made.values() for problem in problems]
    assert len(set(texts)) == 1200


def test_problems_that_cannot_be_made():
    with pytest.raises(ValueError, match="'holdout' is not one of pretrain, train, validation, test"):
        make_problems(1, 0, "holdout")
    with pytest.raises(ValueError, match="products 1 to 5, got 1 and 6"):
        make_problems(1, 0, "train", ProductsSpec(6))
    with pytest.raises(ValueError, match=r"found only .* of 5000 validation problems"):
        make_problems(5000, 0, "validation", ProductsSpec(2, (11, 19)))


# ---------------------------------------------------------------- the author


def test_what_is_misremembered_is_fixed_for_ever():
    """The bundled model has learnt these values: another list would make its errors look like noise."""
    slips = {pair: value for pair in all_pairs() if (value := misremembered(pair)) is not None}
    assert hashlib.sha256(repr(sorted(slips.items())).encode()).hexdigest()[:16] == "bb883585326f2fd6"
    for (a, b), value in slips.items():
        carry = a % 10 * b // 10
        assert value == a * b - 10 * carry if carry else abs(value - a * b) == 10
        assert value > 0
    for held_out in (False, True):
        for low, high in ((11, 59), (61, 99)):
            group = [pair for pair in all_pairs(low, high) if is_held_out(pair) == held_out]
            assert abs(sum(pair in slips for pair in group) - 0.22 * len(group)) <= 0.5


@given(pairs_lists, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_one_who_knows_and_one_who_checks_are_never_wrong(pairs, seed):
    problem = make_problem(pairs)
    for author in (Author(0.3, knows=True), Author(1.0)):
        assert TASK.grade(problem, author.write(pairs, random.Random(seed))).correct
    steps = TASK.check_steps(problem, Author(0.5, knows=True).write(pairs, random.Random(seed)))
    assert steps.right == steps.checked >= len(pairs)


@given(pairs_lists, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_one_who_never_checks_is_wrong_exactly_where_memory_is(pairs, seed):
    problem, text = make_problem(pairs), Author(0.0).write(pairs, random.Random(seed))
    said = {name: int(value) for name, value in re.findall(r"([a-e]): \d+ \* \d+ = (\d+)", text)}
    wrong = [pair for name, pair in read_problem(problem.problem).items() if said[name] != pair[0] * pair[1]]
    assert all(misremembered(pair) is not None for pair in wrong)
    assert TASK.grade(problem, text).correct == (not wrong)
    assert TASK.check_steps(problem, text) == StepCheck(len(pairs) - len(wrong), len(pairs))


def test_checks_are_decided_by_a_coin_that_does_not_know_what_is_wrong():
    rng, author, counts = random.Random(0), Author(0.35), {True: [0, 0], False: [0, 0]}
    pairs = [(47, 8), *(pair for pair in all_pairs() if misremembered(pair) is not None)][:4]
    for _ in range(3000):
        text = author.write(pairs, rng)
        for a, b, value, doubt in re.findall(r": (\d+) \* (\d+) = (\d+)\. (wait,|hmm,)?", text):
            wrong = int(a) * int(b) != int(value)
            counts[wrong][0] += 1
            counts[wrong][1] += bool(doubt)
    assert all(abs(checked / said - 0.35) < 0.02 for said, checked in counts.values())
    known = sum(misremembered(pair) is not None for pair in pairs)
    assert abs(counts[True][0] / 3000 - known * SLIP) < 0.05


def test_choices_are_marked_where_the_author_draws():
    text = "now take c: 51 * 4 = 204. so c 204. next do a: 47 * 8 = 326. wait, check 320 + 56 = 376. no, so a 376. then"
    tokens = re.findall(r" ?[a-z]+[,:]?| ?[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))| ?[^ a-z0-9]", text)
    assert "".join(tokens) == text
    marked = [token.strip() for token, chosen in zip(tokens, choices(tokens), strict=True) if chosen]
    assert marked == ["now", "take", "c:", "so", "next", "do", "a:", "wait,", "check", "3", "then"]


def test_what_is_no_choice_follows_from_what_stands_before():
    """Two workings that begin alike part only at a choice, at a number said from memory, or at a verdict."""
    rng, author, pairs = random.Random(1), Author(0.5), [(47, 8), (23, 6)]
    tokens = lambda text: re.findall(r" ?[a-z]+[,:]?| ?[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))| ?[^ a-z0-9]", text)  # noqa: E731
    for one, other in pairwise(tokens(author.write(pairs, rng)) for _ in range(2000)):
        place = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), None)
        if place is None:
            continue
        memory = any("*" in token for token in one[max(0, place - 5) : place])
        assert memory or (choices(one)[place] and choices(other)[place])
