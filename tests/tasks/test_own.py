"""Is a user's task called safely, is the template in examples/ right, and is what is wrong with a file said?"""

import os
import shutil
import time
from pathlib import Path

import pytest

from dasd.config import BadInput, DataConfig
from dasd.credit import make_method
from dasd.data.problems import check_problems, load_problems, task_of
from dasd.tasks import make_task
from dasd.tasks.base import Grade, GradeStatus, MakesProblems, Problem, StepCheck
from dasd.training.own_rewards import OwnReward

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


def test_why_it_failed_is_said_once_for_each_kind(tmp_path, caplog):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dasd.tasks import Grade, GradeStatus\n"
        "class Mine:\n"
        "    def grade(self, problem, completion):\n"
        "        if completion == 'silent':\n"
        "            return Grade(GradeStatus.GRADER_ERROR)\n"
        "        if completion == 'down':\n"
        "            return Grade(GradeStatus.GRADER_ERROR, reason='server is down: ' + 'x' * 500)\n"
        "        if completion == 'wrong':\n"
        "            return Grade(GradeStatus.INCORRECT, reason='no box')\n"
        "        return float(completion)\n"
        "    def gold_completion(self, problem):\n"
        "        return {}[problem.answer]\n"
        "def make_task():\n"
        "    return Mine()\n"
    )
    task = make_task(f"{path}:make_task")
    with caplog.at_level("WARNING", "dasd"):
        down, _ = task.grade_all([(PROBLEM, "down"), (PROBLEM, "wrong")])
        for text in ("one", "two", "silent", "three"):
            task.grade(PROBLEM, text)
    assert down.reason == "server is down: " + "x" * 384
    assert [message.split(" completions: ")[1][:32] for message in caplog.messages] == [
        "server is down: xxxxxxxxxxxxxxxx", "ValueError: could not convert st", "it says GRADER_ERROR and no reas",
    ]  # fmt: skip
    [finding] = check_problems([PROBLEM], task, None)
    assert "gold_completion of task make_task failed: KeyError: '4'" in finding.message


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
        ("{folder}/script.py:make_task", "cannot be run: SystemExit: 0"),
        ("{example}:make_task", "TypeError: .*unexpected keyword argument"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(own, tmp_path, name, message):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    shutil.copy(EXAMPLE, tmp_path / "example.py")
    name = name.format(folder=tmp_path, own=own, example=tmp_path / "example.py")
    with pytest.raises(BadInput, match=message):
        task_of(DataConfig(task=name, task_settings={"letters": 3} if "example" in name else {}))


MODERN = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Mine:
    right: str = "4"

    def grade(self, problem: Problem, completion: str) -> bool:
        return completion == self.right

    def solution_key(self, problem: Problem, completion: str) -> Mine:
        return Mine(completion)
"""
ALL_IN_ONE = """
from pathlib import Path

with Path(__file__).with_suffix(".runs").open("a") as file:
    file.write(f"{os.getpid()}\\n")

def brevity(completions, **columns):
    return [1.0] * len(completions)

class Credit:
    needs = frozenset()

    def __call__(self, signals):
        raise NotImplementedError
"""


def test_a_dataclass_with_annotations_as_text_is_a_task(tmp_path):
    """`dataclass` looks its module up by name; so does whoever carries an object from a worker."""
    path = tmp_path / "modern.py"
    path.write_text(MODERN)
    task = make_task(f"{path}:Mine", settings={"right": "5"})
    assert [task.grade(PROBLEM, text).correct for text in ("5", "4")] == [True, False]
    assert task.solution_key(PROBLEM, "6").right == "6"


def test_a_file_is_run_once_in_a_process_whatever_is_taken_from_it(tmp_path):
    path = tmp_path / "all_in_one.py"
    path.write_text(HOSTILE + ALL_IN_ONE)
    task, reward = make_task(f"{path}:make_task", settings={}), OwnReward(f"{path}:brevity")
    method = make_method(f"{path}:Credit")
    assert task.grade(PROBLEM, "4").correct
    assert reward(completions=["a"]) == [1.0]
    assert method.needs == frozenset()
    runs = path.with_suffix(".runs").read_text().split()
    assert runs.count(str(os.getpid())) == 1
    assert len(runs) == len(set(runs))


def test_loading_the_file_is_in_nobodys_time(tmp_path):
    path = tmp_path / "slow.py"
    path.write_text("import time\ntime.sleep(1.5)\n" + HOSTILE)
    task = make_task(f"{path}:make_task", settings={"seconds": 1.0})
    assert task.grade(PROBLEM, "4").correct


def test_why_a_verifier_fails_is_said_once(own, task, caplog):
    """The reason was lost: a typo in a user's verifier looked like bad data."""
    again = make_task(f"{own}:make_task")
    with caplog.at_level("WARNING", "dasd"):
        for _ in range(2):
            grades = again.grade_all([(PROBLEM, "raises"), (PROBLEM, "4"), (PROBLEM, "says nothing")])
    assert [grade.reason for grade in grades] == [
        "RuntimeError: broken", None, "TypeError: grade must return a Grade, a bool or a number from 0 to 1, got None",
    ]  # fmt: skip
    assert caplog.messages == ["task make_task: grade failed on 2 of 3 completions: RuntimeError: broken"]
    assert task.grade(PROBLEM, "dies").reason == "no answer in 1 s, or its process ended"


MADE = """
from dasd.tasks import Problem

class Mine:
    def __init__(self, how):
        self.how = how

    def grade(self, problem, completion):
        if self.how == "wrong fails" and completion != "\\\\boxed{1}":
            return None
        if self.how == "strings":
            return "right"
        return completion == "\\\\boxed{1}"

    def make_problems(self, count, seed, split):
        if self.how == "raises":
            return undefined
        if self.how == "dicts":
            return [{"problem": "?", "answer": "1"}] * count
        if self.how == "numbers":
            return [Problem(str(i), "?", 1) for i in range(count)]
        if self.how == "same id":
            return [Problem("same", f"{i}?", "1") for i in range(count)]
        if self.how == "none":
            return None
        return [Problem(str(i), f"{i}?", "1") for i in range(count - (self.how == "fewer"))]

def make_task(how):
    return Mine(how)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "mine.py"
    path.write_text(MADE)
    return lambda how: DataConfig(task=f"{path}:make_task", task_settings={"how": how}, count=4)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("same id", "two problems have the id 'same'; each needs one of its own"),
        ("dicts", "must return a list of dasd.tasks.base.Problem, entry 0 is of type dict"),
        ("numbers", "answer of entry 0 must be text, got 1"),
        ("none", "must return a list of dasd.tasks.base.Problem, got None"),
        ("raises", r"make_problems of task make_task\(4, 0, 'train'\) failed: NameError: name 'undefined' is not defined"),
    ],
)
def test_problems_that_cannot_be_told_apart_or_are_none_are_refused(made, how, message):
    """Those of one id were sampled as one, and counted as many."""
    with pytest.raises(BadInput, match=message):
        load_problems(made(how))


def test_fewer_problems_than_asked_for_are_said(made, caplog):
    with caplog.at_level("WARNING", "dasd"):
        assert len(load_problems(made("fewer"))) == 3
    assert caplog.messages == ["make_problems of task make_task returned 3 problems, asked for 4"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("wrong fails", "the verifier of task make_task fails on 12 of 12 wrong completions, on '': TypeError: grade must"),
        (
            "strings",
            r"'.*boxed.1.' is grader_error (TypeError: grade must return a Grade, a bool or a number from 0 to 1, got 'r",
        ),
    ],
)
def test_a_verifier_that_fails_is_no_ready_one(made, how, message):
    problems = load_problems(made(how))
    [finding] = check_problems(problems, task_of(made(how)), None)
    assert finding.fatal
    assert message.removeprefix(r"'.*boxed.1.' ") in finding.message
    assert check_problems(load_problems(made("fine")), task_of(made("fine")), None) == []
