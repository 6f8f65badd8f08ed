"""Is a user's task called safely, is the template in examples/ right, and is what is wrong with a file said?"""

import shutil
import time
from pathlib import Path

import pytest

from dasd.config import BadInput, DataConfig
from dasd.data.problems import check_problems, load_problems, task_of
from dasd.tasks import make_task
from dasd.tasks.base import Grade, GradeStatus, MakesProblems, Problem, StepCheck

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_task.py"
PROBLEM = Problem(id="x", problem="What?", answer="4", solution="2 + 2 = 4")

HOSTILE = """
import os, time
from dasd.tasks import Grade, GradeStatus

class Mine:
    seconds = 1.0

    def grade(self, problem, completion):
        if completion == "hangs":
            time.sleep(60)
        if completion == "raises":
            raise RuntimeError("broken")
        if completion == "dies":
            os._exit(3)
        if completion == "says nothing":
            return None
        if completion == "says too much":
            return 7
        if completion == "half":
            return 0.5
        return completion == problem.answer

    def check_steps(self, problem, completion):
        if completion == "raises":
            raise RuntimeError("broken")
        return [True, False, True]

def make_task(seconds=1.0, **settings):
    task = Mine()
    task.seconds = seconds
    return task

def no_task():
    return 3
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(HOSTILE)
    return path


@pytest.fixture(scope="module")
def task(own):
    task = make_task(f"{own}:make_task", settings={"seconds": 5.0})
    assert task.grade(PROBLEM, "4").correct  # the workers run
    task.seconds = 1.0
    return task


def test_what_hangs_raises_or_dies_costs_only_itself(task):
    texts = ["4", "hangs", "5", "raises", "dies", "says nothing", "says too much", "half", "4"]
    started = time.monotonic()
    grades = task.grade_all([(PROBLEM, text) for text in texts])
    assert time.monotonic() - started < 1.0 + 15.0
    right, wrong, failed = (
        Grade(GradeStatus.CORRECT, None, 1.0),
        Grade(GradeStatus.INCORRECT, None, 0.0),
        Grade(GradeStatus.GRADER_ERROR),
    )
    assert grades == [right, failed, wrong, failed, failed, failed, failed, Grade(GradeStatus.INCORRECT, None, 0.5), right]


def test_steps_are_checked_by_the_task_and_a_failure_checks_none(task):
    assert task.check_steps(PROBLEM, "4") == StepCheck(2, 3)
    assert task.check_steps(PROBLEM, "4").first_wrong == 2
    assert task.check_steps(PROBLEM, "raises") == StepCheck(0, 0)


def test_a_task_without_problems_of_its_own_needs_a_source(own, task):
    assert not isinstance(task, MakesProblems)
    with pytest.raises(BadInput, match="no problems of its own"):
        load_problems(DataConfig(task=f"{own}:make_task"))


def test_the_template_makes_and_grades_problems():
    config = DataConfig(task=f"{EXAMPLE}:make_task", task_settings={"length": 4}, limit=6, split="test")
    problems, task = load_problems(config), task_of(config)
    assert len({problem.answer for problem in problems}) == 6
    assert all(len(problem.answer) == 4 for problem in problems)
    assert check_problems(problems, task, "solution") == []
    train = load_problems(config.model_copy(update={"split": "train"}))
    assert not {problem.problem for problem in problems} & {problem.problem for problem in train}
    first = problems[0]
    wrong = first.answer[:-1] + "?"
    assert task.grade(first, "I do not know.") == Grade(GradeStatus.NO_ANSWER)
    assert task.grade(first, f"Answer: {wrong}").status is GradeStatus.INCORRECT
    assert task.grade(first, f"Answer: {first.answer}") == Grade(GradeStatus.CORRECT, first.answer, 1.0)


def test_a_verifier_that_is_wrong_about_gold_or_junk_is_a_finding(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "class Mine:\n    def __init__(self, always):\n        self.always = always\n"
        "    def grade(self, problem, completion):\n        return self.always\n"
        "def make_task(always):\n    return Mine(always)\n"
    )
    for always, message in ((False, "do not grade as right"), (True, "calls junk right")):
        task = make_task(f"{path}:make_task", settings={"always": always})
        [finding] = check_problems([PROBLEM], task, None)
        assert finding.fatal
        assert message in finding.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{folder}/nofile.py:make_task", "nofile.py does not exist"),
        ("{own}:make_tusk", "has no function 'make_tusk'; it has: .*make_task"),
        ("{own}:no_task", "returned int, which has no method grade"),
        ("{folder}/broken.py:make_task", "cannot be run: ZeroDivisionError"),
        ("{example}:make_task", "TypeError: .*unexpected keyword argument"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(own, tmp_path, name, message):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    shutil.copy(EXAMPLE, tmp_path / "example.py")
    name = name.format(folder=tmp_path, own=own, example=tmp_path / "example.py")
    with pytest.raises(BadInput, match=message):
        task_of(DataConfig(task=name, task_settings={"letters": 3} if "example" in name else {}))


def test_loading_the_file_is_in_nobodys_time(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text("import time\ntime.sleep(1.5)\n" + HOSTILE)
    task = make_task(f"{path}:make_task", settings={"seconds": 1.0})
    assert task.grade(PROBLEM, "4").correct
