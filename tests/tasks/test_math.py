"""Are final answers of mathematics graded by value, and does a poisoned answer cost its own grade and no more?"""

import json
import threading
import time
from pathlib import Path

import pytest

from dasd.tasks import make_task
from dasd.tasks import math as math_task
from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck, grade_completions
from dasd.tasks.math import MathTask

CORRECT, INCORRECT, NO_ANSWER = GradeStatus.CORRECT, GradeStatus.INCORRECT, GradeStatus.NO_ANSWER
GRADER_ERROR = GradeStatus.GRADER_ERROR
TASK = MathTask(seconds=20.0)  # honest answers: never short of time, however busy the machine is
HASTY = MathTask(seconds=1.0)
POWER_TOWER = "9^{9^{9^{9}}}"
GOLDEN = Path(__file__).parents[1] / "golden" / "math_answers.jsonl"


def make(answer):
    return Problem(id="x", problem="What is it?", answer=answer)


def status(answer, completion, task=TASK):
    return task.grade(make(answer), completion).status


@pytest.fixture(scope="module", autouse=True)
def started_worker():
    """Importing sympy takes a second that no test should pay for."""
    assert status("1", "\\boxed{1}") is CORRECT


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("4", "\\boxed{4}"),
        ("4", "2 + 2 = \\boxed{4}."),
        ("4", "The answer is 4."),
        ("4", "\\boxed{\\frac{8}{2}}"),
        ("\\frac{1}{2}", "so it is \\boxed{0.5}"),
        ("0.5", "$\\frac{2}{4}$"),
        ("1000", "\\boxed{1,000}"),
        ("2\\sqrt{2}", "\\boxed{\\sqrt{8}}"),
        ("x^2+2x+1", "\\boxed{(x+1)^2}"),
        ("(1, 2)", "\\boxed{(1,2)}"),
        ("\\{1, 2\\}", "\\boxed{\\{2, 1\\}}"),
        ("-3", "\\boxed{-3}"),
        ("4", f"{'word ' * 200_000}\\boxed{{4}}"),
    ],
)
def test_right_answers_in_any_form(answer, completion):
    assert status(answer, completion) is CORRECT


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("4", "\\boxed{5}"),
        ("4", "\\boxed{-4}"),
        ("4", "2 + 2 = 4, so \\boxed{5}"),
        ("0.5", "\\boxed{\\frac{1}{3}}"),
        ("(1, 2)", "\\boxed{(2, 1)}"),
        ("x^2+1", "\\boxed{(x+1)^2}"),
    ],
)
def test_wrong_answers(answer, completion):
    assert status(answer, completion) is INCORRECT


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("3", "\\boxed{٣}"),
        ("7 \\text{ apples}", "\\boxed{7 \\text{ pears}}"),
        ("p \\equiv 1 \\pmod 4", "\\boxed{4k + 1}"),
        ("101_2", "\\boxed{5}"),
        ("3\\text{:}30 \\text{ PM}", "\\boxed{3:30}"),
    ],
)
def test_what_the_grader_cannot_decide_is_neither_right_nor_wrong(answer, completion):
    assert status(answer, completion) is GradeStatus.UNDECIDED


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("???", "it says nothing"),
        ("nan", "it says nothing"),
        ("", "it is empty"),
        ("\\frac{", "brackets"),
        ("\\frac{1}{}", "lacks a part"),
        ("about forty or so", "vague"),
        ("The train that leaves the station first", "a sentence of 7 words"),
        ("5", None),
        ("\\text{No solution}", None),
        ("p \\equiv 1 \\pmod 4", None),
        ("\\begin{cases} x & x > 0 \\\\ -x & x \\le 0 \\end{cases}", None),
        ("3 \\text{ m}, 4 \\text{ m}", None),
        ("(-\\infty, 2) \\cup (3, 4]", None),
        ("ABCD", None),
        ("3:4", None),
        ("10:30 \\text{ a.m.}", None),
    ],
)
def test_gold_answers_that_nothing_can_be_compared_with(answer, reason):
    [found] = TASK.unreadable([answer])
    assert (found is None) if reason is None else (found is not None and reason in found)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("1/2", "0.5", True),
        ("x = 3 \\text{ or } x = 4", "4, 3", True),
        ("3, 4", "x = 4 \\text{ or } x = 3", True),
        ("2", "3", False),
        ("3 \\text{ m}", "3 \\text{ cm}", False),
        ("7 \\text{ apples}", "7 \\text{ pears}", False),
    ],
)
def test_two_answers_are_one_answer(first, second, same):
    assert TASK.same_answers([(first, second), (second, first)]) == [same, same]


def test_a_comparison_that_takes_for_ever_is_none():
    assert HASTY.same_answers([("4", POWER_TOWER), ("4", "4.0")]) == [None, True]


ASKS_FOR_A_BOX = Problem(id="x", problem="What is 15 squared less 176? Put the answer in \\boxed{}.", answer="49")


@pytest.mark.parametrize(
    ("answer_format", "problem", "expected"),
    [
        ("auto", ASKS_FOR_A_BOX, NO_ANSWER),
        ("auto", make("49"), CORRECT),
        ("boxed", make("49"), NO_ANSWER),
        ("last", ASKS_FOR_A_BOX, CORRECT),
    ],
)
def test_without_a_box_there_is_no_answer_where_one_was_asked_for(answer_format, problem, expected):
    task = make_task("math", answer_format)
    assert task.grade(problem, "so 225 - 176 = 49").status is expected
    assert task.grade(problem, "so 225 - 176 = \\boxed{49}").status is CORRECT
    assert task.grade(problem, "so 225 - 176 = \\boxed{49").status is expected  # cut off inside the box


def test_a_box_may_be_asked_for_by_the_system_message():
    told = ({"role": "system", "content": "End with \\boxed{}."}, {"role": "user", "content": "What is it?"})
    asked = Problem(id="x", problem="What is it?", answer="49", prompt=told)
    assert TASK.grade(asked, "so 225 - 176 = 49").status is NO_ANSWER
    assert TASK.grade(asked, "so \\boxed{49}").status is CORRECT


def test_a_completion_that_was_cut_off_has_no_answer_unless_it_is_in_a_box():
    texts = ["so 225 - 176 = 49", "so \\boxed{49}. Let me check: 225 - 17", "so it is 49"]
    grades = grade_completions(TASK, [(make("49"), text) for text in texts], [True, True, False])
    assert [grade.status for grade in grades] == [NO_ANSWER, CORRECT, CORRECT]


@pytest.mark.parametrize("completion", ["", "I cannot tell.", "\\boxed{}", " \n\0"])
def test_no_answer(completion):
    assert TASK.grade(make("4"), completion) == Grade(NO_ANSWER, None)


def test_the_extracted_answer_is_reported():
    assert TASK.grade(make("4"), "it is \\boxed{5}") == Grade(INCORRECT, "5")
    assert TASK.grade(make("4"), f"\\boxed{{{'x+' * 300}1}}").extracted == ("x+" * 300)[:200]


@pytest.mark.parametrize(
    "answer", ["4", "-1.5", "\\frac{3}{7}", "2\\sqrt{2}", "(1, 2)", "x^2 + 1", "\\pi", "50\\%", "A", "[0, 1)"]
)
def test_gold_completions_grade_as_right(answer):
    assert status(answer, TASK.gold_completion(make(answer))) is CORRECT


def test_equations_are_steps():
    assert TASK.check_steps(make("4"), "2 + 2 = 4, 2 * 2 = 5. \\boxed{4}") == StepCheck(right=1, checked=2)


def test_an_unreadable_gold_answer_is_the_graders_fault():
    assert status("", "\\boxed{4}") is GRADER_ERROR


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        pytest.param("4", f"\\boxed{{{POWER_TOWER}}}", id="power tower"),
        pytest.param(POWER_TOWER, "\\boxed{4}", id="power tower as gold answer"),
        pytest.param("4", f"\\boxed{{{'(' * 15_000}4{')' * 4_000}}}", id="parentheses"),
    ],
)
def test_an_answer_that_takes_for_ever_is_given_up_and_the_next_is_graded(answer, completion):
    assert status("4", "\\boxed{4}") is CORRECT  # the worker runs: what follows is the answer's own time
    started = time.monotonic()
    assert HASTY.grade(make(answer), completion) == Grade(GRADER_ERROR, None)
    assert time.monotonic() - started < 1.0 + 15.0
    assert status("4", "\\boxed{4}") is CORRECT
    assert status("4", "\\boxed{5}") is INCORRECT


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param(f"\\boxed{{{'9' * 10**6}}}", id="a million digits"),
        pytest.param("(" * 10**6, id="a million parentheses"),
        pytest.param("a" * 10**6, id="a million letters"),
        pytest.param("\\boxed{5}" + " " * 10**6, id="an answer out of sight"),
    ],
)
def test_a_million_characters_are_no_answer_and_take_no_time(completion):
    started = time.monotonic()
    assert TASK.grade(make("4"), completion).status in (NO_ANSWER, INCORRECT)
    assert time.monotonic() - started < 5.0
    assert status("4", "\\boxed{4}") is CORRECT


def test_code_is_not_run(tmp_path):
    written = tmp_path / "pwned"
    assert status("4", f"\\boxed{{__import__('pathlib').Path('{written}').touch()}}") is not CORRECT
    assert status("4", f"answer: open('{written}', 'w')") is not CORRECT
    assert not written.exists()


def test_odd_characters_do_not_hide_an_answer():
    for text in ("\0\\boxed{4}\0", "\ud800 \\boxed{4}", "\u2028\\boxed{4}"):
        assert status("4", text) is CORRECT


def test_a_worker_that_died_is_replaced():
    died = [worker.process for worker in math_task._pool._workers]
    for process in died:
        process.kill()
        process.wait()
    assert status("4", "\\boxed{4}") is CORRECT
    assert not {process.pid for process in died} & {worker.process.pid for worker in math_task._pool._workers}


def test_a_batch_is_graded_in_order_and_a_poisoned_answer_delays_only_itself():
    answers = [str(n % 7) for n in range(60)]
    pairs = [(make("3"), f"\\boxed{{{answer}}}") for answer in answers]
    pairs[5] = (make("3"), f"\\boxed{{{POWER_TOWER}}}")
    pairs[40] = (make("3"), "no idea")
    TASK.grade_all(pairs[10:30])  # both workers run
    started = time.monotonic()
    grades = HASTY.grade_all(pairs)
    assert time.monotonic() - started < 1.0 + 15.0
    expected = [Grade(CORRECT if answer == "3" else INCORRECT, answer) for answer in answers]
    expected[5], expected[40] = Grade(GRADER_ERROR), Grade(NO_ANSWER)
    assert grades == expected


def test_an_empty_batch():
    assert TASK.grade_all([]) == []


def test_the_golden_answers():
    """Expected by mathematics. `disagrees` says why the grader judges otherwise: drop the key when it no longer does."""
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert sum(row["status"] != CORRECT for row in rows) >= len(rows) / 2
    grades = TASK.grade_all([(make(row["gold"]), row["completion"]) for row in rows])
    wrong = [
        (row["gold"], row["completion"], grade.status.value)
        for row, grade in zip(rows, grades, strict=True)
        if (grade.status == row["status"]) is ("disagrees" in row)
    ]
    assert not wrong


def test_answers_of_several_threads_do_not_mix():
    grades = {}

    def grade(first):
        grades[first] = [TASK.grade(make(str(first)), f"\\boxed{{{n}}}") for n in range(first, first + 20)]

    threads = [threading.Thread(target=grade, args=(first,)) for first in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for first in (100, 200, 300, 400):
        wrong = [Grade(INCORRECT, str(n)) for n in range(first + 1, first + 20)]
        assert grades[first] == [Grade(CORRECT, str(first)), *wrong]
