"""Are the report's small parts right: written numbers, inert text, means of curves, imports?"""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np

import dasd.credit
import dasd.report
from dasd.report.data.curves import binned, smooth
from dasd.report.data.inputs import number
from dasd.report.data.methods import METHODS, describe_method
from dasd.report.data.metrics import COUNT, RATE
from dasd.report.data.rollouts import inert


def test_values_are_written_with_true_signs() -> None:
    assert RATE.write(-0.00001, sign=True) == "+0.0"
    assert RATE.write(0.125) == "12.5"
    assert COUNT.write(-1234.5) == "\N{MINUS SIGN}1,234.50"
    assert COUNT.write(math.nan) == "\N{EN DASH}"
    assert inert("a<\u200b>\n") == "a&lt;\\u200b&gt;\n"
    assert all(math.isnan(number(value)) for value in (None, True, "1", math.inf, 10**400, [1]))


def test_curves_are_means_that_leave_out_what_was_not_logged() -> None:
    steps, values = binned(np.arange(1.0, 601.0), np.where(np.arange(600) % 2, 3.0, math.nan))
    assert (len(steps), steps[0], set(values)) == (300, 1.5, {3.0})
    assert smooth(np.array([1.0, math.nan, 3.0])).tolist()[::2] == [1.0, 3.0]  # too short a curve to smooth
    assert smooth(np.array([0.0] * 4 + [3.0] + [0.0] * 4)).tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 3
    curve = np.zeros(60)
    curve[30] = 5.0  # window of 5
    assert smooth(curve)[[27, 28, 32, 33]].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_every_method_is_described_in_a_line() -> None:
    assert set(METHODS) == set(dasd.credit.METHODS)
    assert all(title and line.endswith(".") and len(line) < 240 for title, line in METHODS.values())
    assert describe_method("mine")[0] == "mine"


def test_report_imports_nothing_else_of_dasd() -> None:
    for path in Path(dasd.report.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("torch", "transformers", "trl")
                assert not name.startswith("dasd") or name.startswith("dasd.report")
