"""Are the word problems sound: worked solutions that hold step by step, splits that never meet, a dial that turns?"""

import re

import pytest

from dasd.config import BadInput, DataConfig
from dasd.data.problems import check_problems, load_problems, task_of
from dasd.tasks.base import GradeStatus
from dasd.tasks.equations import find_equations
from dasd.tasks.word_problems import LEVELS, PROMPT, SPLIT_SHARES, STORIES, make_problems

PROBLEMS = {level: make_problems(300, 0, "train", spec) for level, spec in LEVELS.items()}


@pytest.mark.parametrize("level", LEVELS)
def test_every_step_of_every_solution_holds_and_can_be_checked(level):
    low, high = LEVELS[level].steps
    for problem in PROBLEMS[level]:
        equations = find_equations(problem.solution)
        assert all(equation.holds for equation in equations), problem
        assert len(equations) == problem.solution.count("="), problem
        assert low <= len(equations) <= high
        assert equations[-1].right == problem.answer
        assert int(problem.answer) > 0
        assert problem.solution.endswith(f"The answer is \\boxed{{{problem.answer}}}.")


@pytest.mark.parametrize("level", LEVELS)
def test_every_number_of_a_step_is_told_or_was_worked_out(level):
    """The solution needs nothing that the problem does not say: numbers are told, or are results, 2 and 3 may be words."""
    for problem in PROBLEMS[level]:
        known = {*re.findall(r"\d+", problem.question), "2", "3", "4", "5", "100"}
        for equation in find_equations(problem.solution):
            assert set(re.findall(r"\d+", equation.left)) <= known, (problem, equation)
            known.add(equation.right)


def test_every_story_is_told_and_reads_as_sentences():
    for problem in PROBLEMS[1]:
        assert problem.problem == PROMPT.format(question=problem.question)
    texts = [problem.question for problems in PROBLEMS.values() for problem in problems]
    assert len({re.sub(r"\d+|[A-Z]\w+", "", text) for text in texts}) > 10 * len(STORIES)
    for story in texts:
        assert re.fullmatch(r"(?:[A-Z0-9][^.?]*\. )+[A-Z][^.?]*\?", story), story
        assert not re.search(r"\b1 [a-z]+s\b|  |[{}]|\ba [aeiou]", story), story


def test_splits_never_meet_whatever_the_seed():
    cores = {
        split: {re.sub(r"[A-Za-z]+", "", p.solution) + p.id for seed in range(3) for p in make_problems(300, seed, split)}
        for split in SPLIT_SHARES
    }
    ids = {split: {core[-12:] for core in found} for split, found in cores.items()}
    assert not ids["train"] & ids["test"]
    assert not ids["train"] & ids["validation"]
    assert not ids["validation"] & ids["test"]


def test_the_same_arguments_give_the_same_list():
    assert make_problems(20, 7, "test") == make_problems(20, 7, "test")
    assert make_problems(20, 7, "test") != make_problems(20, 8, "test")
    assert make_problems(10, 7, "test") == make_problems(20, 7, "test")[:10]
    assert len({problem.id for problem in make_problems(1500, 0, "train")}) == 1500


def test_difficulty_asks_for_more_steps_and_larger_numbers():
    steps = [sum(p.solution.count("=") for p in PROBLEMS[level]) for level in sorted(LEVELS)]
    assert steps == sorted(steps)
    sizes = [sorted(int(p.answer) for p in PROBLEMS[level])[270] for level in (1, 3, 5)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_they_are_data_of_their_own():
    config = DataConfig(task="word_problems", split="test", limit=5, task_settings={"difficulty": 1})
    problems, task = load_problems(config), task_of(config)
    assert check_problems(problems, task, "solution") == []
    first = problems[0]
    assert task.grade(first, f"So it is {first.answer}.").status is GradeStatus.NO_ANSWER  # the problem asks for a box
    assert task.grade(first, f"So \\boxed{{{first.answer} \\text{{ dollars}}}}").correct
    assert task.check_steps(first, first.solution).right == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_settings": {"difficulty": 6}}, "difficulty must be one of 1, 2, 3, 4, 5, got 6"),
        ({"task_settings": {"level": 2}}, "no setting 'level'"),
        ({"split": "tset"}, "data.split 'tset' is not one of train, validation, test, did you mean 'test'"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(BadInput, match=message):
        load_problems(DataConfig(task="word_problems", **values))
