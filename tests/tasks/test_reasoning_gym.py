"""Are the package's problems made by seed, graded by its own verifier, and in one split only?"""

import pytest

from dasd.tasks import make_task
from dasd.tasks.base import GradeStatus, MakesProblems
from dasd.tasks.equations import check_equations

pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym==0.1.25")


def task_of(name, settings=None, answer_format="auto"):
    return make_task(f"reasoning_gym/{name}", answer_format, settings)


@pytest.mark.parametrize("name", ["chain_sum", "gsm_symbolic", "countdown", "word_sorting", "graph_color", "mini_sudoku"])
def test_gold_answers_are_right_and_junk_is_not(name):
    task = task_of(name)
    assert isinstance(task, MakesProblems)
    problems = task.make_problems(4, 0, "train")
    grades = task.grade_all([(problem, task.gold_completion(problem)) for problem in problems])
    assert [grade.status for grade in grades] == [GradeStatus.CORRECT] * 4
    junk = task.grade_all([(problem, "<answer>purple</answer>") for problem in problems])
    assert {grade.status for grade in junk} == {GradeStatus.INCORRECT}
    assert {grade.status for grade in task.grade_all([(problem, "Hmm.") for problem in problems])} == {GradeStatus.NO_ANSWER}
    assert all(grade.score is not None and 0 <= grade.score < 1 for grade in junk)


def test_problems_are_the_same_for_the_same_seed_and_differ_else():
    task = task_of("chain_sum")
    assert task.make_problems(5, 3, "test") == task.make_problems(5, 3, "test")
    assert task.make_problems(5, 3, "test") != task.make_problems(5, 4, "test")
    assert task.make_problems(3, 3, "test") == task.make_problems(5, 3, "test")[:3]


def test_splits_share_no_question_even_where_a_generator_repeats_itself():
    task = task_of("coin_flip", {"min_trials": 4, "max_trials": 8})
    small = {split: {p.problem for p in task.make_problems(8, 0, split)} for split in ("train", "validation", "test")}
    assert all(len(questions) == 8 for questions in small.values())
    assert not small["train"] & small["test"]
    assert not small["train"] & small["validation"]
    assert not small["validation"] & small["test"]
    tiny = task_of("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    found = {split: {p.problem for p in tiny.make_problems(6, seed, split)} for seed, split in ((0, "train"), (1, "test"))}
    assert not found["train"] & found["test"]
    with pytest.raises(ValueError, match="found only"):
        tiny.make_problems(5000, 0, "train")


def test_worked_text_is_the_solution_where_there_is_one():
    problems = task_of("gsm_symbolic").make_problems(20, 0, "train")
    assert all(problem.solution.endswith(f"\n<answer>{problem.answer}</answer>") for problem in problems)
    assert not any("####" in problem.solution for problem in problems)
    assert sum(check_equations(problem.solution).right > 0 for problem in problems) >= 5
    [other] = task_of("word_sorting").make_problems(1, 0, "train")
    assert other.solution == f"<answer>{other.answer}</answer>"


def test_where_an_answer_is_read():
    [problem] = task_of("chain_sum").make_problems(1, 0, "train")
    gold = problem.answer
    texts = [f"<answer>0</answer> no: <answer> {gold}\n</answer>", f"so \\boxed{{{gold}}}", f"so\n{gold}"]
    statuses = [task_of("chain_sum").grade(problem, text).status for text in texts]
    assert statuses == [GradeStatus.CORRECT, GradeStatus.CORRECT, GradeStatus.NO_ANSWER]
    assert task_of("chain_sum", answer_format="last").grade(problem, f"so\n{problem.answer}").correct


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("leg_countin", {}, "no generator 'leg_countin', did you mean 'leg_counting'"),
        ("leg_counting", {"legs": 3}, "leg_counting refuses data.task_settings .*legs"),
        ("leg_counting", {"min_animals": -3}, "leg_counting refuses"),
    ],
)
def test_a_wrong_name_or_setting_is_said(name, settings, message):
    with pytest.raises(ValueError, match=message):
        task_of(name, settings)


def test_seed_and_size_are_settings_of_data():
    """reasoning-gym said: create_dataset() got multiple values for keyword argument 'seed'."""
    for name in ("seed", "size"):
        with pytest.raises(ValueError, match=f"data.task_settings.{name} is not set there"):
            task_of("chain_sum", {name: 3})
