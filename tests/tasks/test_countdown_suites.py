"""Is each suite one step away from training, in the way it says, and never further than tokenizer and verifier reach?"""

import random
import re
from itertools import combinations

import pytest
from transformers import AutoTokenizer

from dasd.assets import BASE_MODEL
from dasd.prompts import tokenize_prompt
from dasd.tasks import make_task
from dasd.tasks.base import Problem
from dasd.tasks.countdown import is_solution, make_problems, may_leave_out, read_problem, split_of, write_problem
from dasd.tasks.countdown_search import all_chains
from dasd.tasks.countdown_suites import SUITES

TASK = make_task("countdown")
PROBLEMS = {name: make() for name, make in SUITES.items()}
SIZES = {
    "in_distribution": 200, "more_numbers": 200, "larger_numbers": 200, "larger_targets": 90, "unseen_operators": 138,
    "distractor": 200,
}  # fmt: skip


def operators(chain):
    return {operator for _, operator, _, _ in chain}


def solutions(numbers, target):
    return [chain for chain in all_chains(numbers) if chain[-1][3] == target]


@pytest.mark.parametrize("name", SUITES)
def test_every_problem_is_sound_new_and_the_same_each_time(name):
    problems = PROBLEMS[name]
    assert len({p.id for p in problems}) == len({p.problem for p in problems}) == len(problems) == SIZES[name]
    for problem in problems:
        numbers, target = read_problem(problem.problem)
        assert split_of(numbers, target) == "test"
        assert problem.answer == str(target)
        assert TASK.grade(problem, TASK.gold_completion(problem)).correct
        steps = TASK.check_steps(problem, problem.solution)
        assert steps.right == steps.checked > 0
    assert SUITES[name]() == problems


def test_in_distribution_is_what_the_quickstart_tests_on():
    assert PROBLEMS["in_distribution"] == make_problems(200, 0, "test")


@pytest.mark.parametrize(
    ("name", "count", "numbers_in", "targets_in"),
    [
        ("in_distribution", 3, (1, 20), (10, 80)),
        ("more_numbers", 4, (1, 20), (10, 80)),
        ("larger_numbers", 3, (21, 60), (10, 80)),
        ("larger_targets", 3, (1, 20), (81, 99)),
        ("unseen_operators", 3, (1, 20), (10, 80)),
        ("distractor", 4, (1, 20), (10, 80)),
    ],
)
def test_each_suite_changes_one_thing(name, count, numbers_in, targets_in):
    for problem in PROBLEMS[name]:
        numbers, target = read_problem(problem.problem)
        assert len(numbers) == count
        assert numbers_in[0] <= min(numbers) <= max(numbers) <= numbers_in[1]
        assert targets_in[0] <= target <= targets_in[1]
        assert may_leave_out(problem.problem) == (name == "distractor")


def test_unseen_operators_cannot_be_solved_without_division_and_training_rarely_asks_for_it():
    def divides(problem):
        return all("/" in operators(chain) for chain in solutions(*read_problem(problem.problem)))

    assert all(map(divides, PROBLEMS["unseen_operators"]))
    share = sum(map(divides, make_problems(1500, 0, "train"))) / 1500
    assert 0.05 < share < 0.11  # 8 %: rare, not unseen


def test_a_distractor_is_not_needed():
    for problem in PROBLEMS["distractor"]:
        numbers, target = read_problem(problem.problem)
        used = [int(n) for n in re.findall(r"\d+", problem.solution)]
        assert any(solutions(three, target) for three in combinations(numbers, 3))
        assert len(used) == 6  # two steps


def test_the_bundled_tokenizer_has_every_number_as_one_token():
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    for name, problems in PROBLEMS.items():
        for problem in problems:
            text = problem.problem + " answer: " + problem.solution
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            numbers = [
                tokenizer.decode([token]).strip() for token in ids if any(c.isdigit() for c in tokenizer.decode([token]))
            ]
            assert numbers == re.findall(r"\d+", text), name
            assert len(tokenize_prompt(tokenizer, [{"role": "user", "content": problem.problem}])) + 128 <= 512


# ---------------------------------------------------------------- leaving one out


def make(numbers, target, spare=True):
    return Problem("x", write_problem(numbers, target, spare), str(target))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("3 * 7 = 21, 21 + 8 = 29", True),  # 5 is left out
        ("8 - 5 = 3, 3 * 3 = 9", False),
        ("3 * 7 = 21, 8 * 5 = 40, 21 + 40 = 61", False),  # all used, another target
        ("21 + 8 = 29", False),  # 21 is from nowhere
        ("3 * 7 = 21, 21 + 8 = 29, 29 * 5 = 145", False),
        ("8 - 5 = 3, 3 * 7 = 21, 21 + 8 = 29", False),  # 8 twice, although 3 and its double are there
        ("3 * 7 = 21, 8 + 5 = 13, 21 + 8 = 29", False),  # a step for nothing uses 5 up
        ("8 + 5 = 13, 3 * 7 = 21, 21 + 8 = 29", False),
    ],
)
def test_one_number_may_be_left_out(answer, right):
    assert TASK.grade(make([3, 7, 5, 8], 29), f"answer: {answer}.").correct == right


def test_not_two_numbers_and_none_where_the_problem_does_not_say_so():
    assert not TASK.grade(make([3, 7, 5, 8, 1], 29), "answer: 3 * 7 = 21, 21 + 8 = 29.").correct
    assert not TASK.grade(make([3, 7, 5, 8], 29, spare=False), "answer: 3 * 7 = 21, 21 + 8 = 29.").correct
    assert TASK.grade(make([3, 7, 5, 8], 34), "answer: 3 * 7 = 21, 21 + 8 = 29, 29 + 5 = 34.").correct


def test_a_step_that_gives_back_its_operand_cannot_hide_a_number():
    """6 / 1 = 6 leaves a 6 behind: it must not count as the unused 6 with the 1 used."""
    assert not is_solution([6, 1, 20, 9], 29, [(6, "/", 1, 6), (20, "+", 9, 29)], spare=1)
    assert is_solution([6, 1, 20, 9], 29, [(20, "+", 9, 29)], spare=2)


def test_leaving_out_agrees_with_trying_every_subset():
    rng, seen = random.Random(3), {True: 0, False: 0}
    while min(seen.values()) < 150:
        numbers = [rng.randint(1, 9) for _ in range(4)]
        chain = rng.choice(all_chains(rng.sample(numbers, rng.choice((2, 3, 3, 4)))) or [()])
        if not chain:
            continue
        target = rng.choice((chain[-1][3], chain[-1][3], 30))
        kept = [numbers, *(numbers[:i] + numbers[i + 1 :] for i in range(4))]
        expected = any(is_solution(subset, target, chain) for subset in kept)
        assert is_solution(numbers, target, chain, spare=1) == expected
        seen[expected] += 1


def test_gold_without_reference_may_leave_one_out():
    for spare in (True, False):
        problem = make([2, 50, 37], 100, spare)
        assert TASK.grade(problem, TASK.gold_completion(problem)).correct == spare


def test_a_right_answer_has_a_key_where_a_number_may_be_left_out():
    answer = "answer: 2 * 50 = 100."
    keys = [TASK.solution_key(make([2, 50, 37], 100, spare), answer) for spare in (True, False)]
    assert keys == ["50 * 2 = 100", None]
