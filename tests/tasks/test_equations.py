"""Are equations between numbers found and judged by their exact value, and is everything doubtful left alone?"""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.tasks.arithmetic import Unsure, evaluate, tokenize
from dasd.tasks.base import StepCheck
from dasd.tasks.equations import Equation, check_equations, find_equations

GOLDEN = Path(__file__).parents[1] / "golden" / "equations.jsonl"


def value(text):
    return evaluate(tokenize(text)).value


def test_the_golden_snippets():
    """Judged by hand: 98 of 100 verdicts must be right. `misses` says why an equation is left alone that a reader can judge."""
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    agreed = judged = 0
    surprises = []
    for row in rows:
        steps = check_equations(row["text"])
        agreed += min(steps.right, row["right"]) + min(steps.checked - steps.right, row["checked"] - row["right"])
        judged += steps.checked
        if (steps == StepCheck(row["right"], row["checked"])) is ("misses" in row):
            surprises.append((row["text"], steps))
    assert len(rows) >= 200
    assert agreed / judged >= 0.98
    assert not surprises


def test_what_is_found_is_reported():
    text = r"So $x = \frac{6}{2} + 1 = 4$, and then 4 \times 5 = 21."
    assert find_equations(text) == [
        Equation(r"\frac{6}{2} + 1", "4", True),
        Equation("4 * 5", "21", False),
    ]
    assert check_equations(text) == StepCheck(right=1, checked=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 * 2", 11),
        ("(3 + 4) * 2", 14),
        ("8 / 4 / 2", 1),
        ("10 - 3 - 2", 5),
        ("2^3", 8),
        ("2^{-1}", Fraction(1, 2)),
        ("(-2)^2", 4),
        ("5 - 2^2", 1),
        ("-2^3", -8),
        ("3 * -4", -12),
        ("3 - -4", 7),
        ("0.1 + 0.2", Fraction(3, 10)),
        (".5 + .5", 1),
        ("1,234,567 + 1", 1234568),
        (r"\frac{1}{2} + \frac{1}{3}", Fraction(5, 6)),
        (r"\frac{1 + 2}{\frac{3}{4}}", 4),
        (r"\sqrt{16} + \sqrt{\frac{1}{4}}", Fraction(9, 2)),
        (r"\sqrt[3]{27}", 3),
        ("√9", 3),
        ("2(3 + 4)(2)", 28),
        (r"2\sqrt{9}", 6),
        ("50%", Fraction(1, 2)),
        ("50% * 30", 15),
        ("50% + 25%", Fraction(3, 4)),
    ],
)
def test_values(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "3 +", "* 3", "+ 3", "3 4", "1 1/2", r"1\frac{1}{2}", "6/2(1+2)", "-2^2", "2^3^2", "50 + 10%", "--4", "(3 + 4",
        "3 + 4)", "(3]", "x", "3 + x", r"\sqrt{2}", r"\sqrt{-4}", "1 / 0", r"\frac{1}{0}", "0^0", "0^{-1}", "2^{1/2}", "2^1000",
        "9^{9^9}", "10^100^100", "3 (4)", r"\frac{1}", "(1, 2)", "(" * 50 + "1" + ")" * 50, "1 + " * 300 + "1", "9" * 41,
    ],
)  # fmt: skip
def test_unsure(text):
    with pytest.raises(Unsure):
        value(text)


expressions = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
    max_leaves=12,
)


@given(expressions, st.integers(-3, 3))
@settings(deadline=None, max_examples=200)
def test_agrees_with_python(expression, off):
    """Whole numbers with + - * and brackets: Python is the slow twin."""
    expected = eval(expression)
    assert value(expression) == expected
    latex = expression.replace("*", r"\times")
    for text in (f"So 1 * {expression} = {expected + off}.", rf"So $1 \cdot {latex} = {expected + off}$."):
        (found,) = find_equations(text)
        assert found.holds is (off == 0)


@given(st.text(alphabet="0123456789+-*/^=().,%$\\{}[] \nx<", max_size=80))
@settings(deadline=None, max_examples=300)
def test_any_text_is_read_without_error(text):
    steps = check_equations(text)
    assert 0 <= steps.right <= steps.checked <= text.count("=")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000 + "= 1", "= " * 50_000, "9" * 100_000 + " = 9", "\n=" * 50_000, "**a " * 25_000, "\n" * 100_000,
        "1+" * 50_000, " " * 100_000 + "=", "\\boxed{" * 14_000, "\\frac{" * 16_000 + "=",
        "3 + 4 = 7, " * 9_000, "1,111" * 20_000 + "=3",
        "a" * 100_000 + "= 1 + 1 = 2", "9^{9^{9^{9}}} = 1 + 1", "9^" * 50_000 + "= 1",
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_hostile_texts_take_little_time(text):
    started = time.process_time()
    check_equations(text)
    assert time.process_time() - started < 5.0


def test_nothing_is_run(tmp_path):
    written = tmp_path / "pwned"
    check_equations(f"open('{written}', 'w') = 1 + 1 = 2 = __import__('os').mkdir('{written}')")
    assert not written.exists()


def test_the_first_wrong_step_is_counted_from_one():
    assert check_equations("2 + 2 = 4, 2 * 2 = 5, 1 + 1 = 3").first_wrong == 2
    assert check_equations("2 + 2 = 5").first_wrong == 1
    assert check_equations("2 + 2 = 4").first_wrong is None
    assert check_equations("").first_wrong is None
