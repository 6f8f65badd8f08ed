"""Is each figure named, meant and documented once?"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from dasd.report.data.metrics import METRICS, RATE, describe, in_order
from dasd.report.data.results import comparison_row, main_figures, without_lower_ks

DOCS = Path(__file__).parents[2] / "docs"


def test_a_key_is_described_with_its_number() -> None:
    assert (describe("pass_at_8").label, describe("pass_at_8").meaning) == (
        "Pass@8",
        "problems solved by at least one of 8 samples",
    )
    assert describe("pass_at_1").meaning.endswith("one of 1 sample")
    assert describe("truncated").better == -1
    unknown = describe("pass_at_many")
    assert (unknown.label, unknown.meaning, unknown.role) == ("pass_at_many", "", "other")


def test_every_key_has_one_line_and_every_label_is_its_own() -> None:
    keys = [metric.pattern.replace(r"(\d+)", "8").replace("(.+)", "acc") for metric in METRICS]
    for key, metric in zip(keys, METRICS, strict=True):
        assert [other.pattern for other in METRICS if re.fullmatch(other.pattern, key)] == [metric.pattern]
    assert len({describe(key).label for key in keys}) == len(METRICS)


def test_the_order_is_the_tables_and_lower_ks_are_left_out() -> None:
    names = ["other", "mean_length", "maj_at_2", "pass_at_16", "pass_at_2", "avg_at_16", "maj_at_16"]
    assert in_order(names)[0] == "avg_at_16"
    assert without_lower_ks(names) == ["avg_at_16", "pass_at_16", "maj_at_16", "mean_length", "other"]
    assert main_figures(names) == ["avg_at_16", "pass_at_16", "mean_length"]
    assert main_figures(["avg_at_1", "pass_at_1"]) == ["avg_at_1"]  # the same
    assert main_figures(["pass_at_1", "pass_at_2"]) == ["pass_at_1", "pass_at_2"]  # runs with different numbers of samples


def test_a_row_of_a_comparison() -> None:
    value = {"mean": 0.25, "low": 0.2, "high": 0.3}
    other = value | {"mean": 0.5}
    row = comparison_row("loops", {"values": [value, other], "differences": [value | {"p_value": 0.00001}]})
    assert (row.unit, row.plain(0), row.plain(1), row.difference.p) == (RATE, "25.0 %", "50.0 %", "<0.0001")
    assert (row.change(), row.change_interval(), row.change_class()) == ("+25.0 points", "[+20.0, +30.0]", "clear worse")
    alone = comparison_row("loops", {"values": [value]})
    assert (alone.plain(), alone.difference.known, alone.difference.p) == ("25.0 %", False, "\N{EN DASH}")


@pytest.mark.parametrize(
    ("low", "p", "holm", "clear"),
    [
        (0.001, 0.0526, None, False),  # the interval leaves out 0, the test does not
        (0.001, 0.02, 0.06, False),  # one of several comparisons
        (0.001, 0.02, 0.04, True),
        (-0.001, 0.02, 0.02, False),
        (0.001, None, None, True),  # no test was made
        (None, 0.01, 0.01, False),
    ],
)
def test_a_difference_is_clear_where_interval_and_test_agree(low, p, holm, clear) -> None:
    difference = {"mean": 0.03, "low": low, "high": 0.06, "p_value": p, "p_holm": holm}
    row = comparison_row("avg_at_4", {"values": [{}, {}], "differences": [difference]})
    assert row.difference.clear == clear
    assert row.change_class() == ("clear better" if clear else "")


def test_the_document_has_every_figure_and_names_code_that_is_there() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for metric in METRICS:
        key = metric.pattern.replace(r"(\d+)", "k").replace("(.+)", "NAME")
        assert f"`{key}`" in text, key
    places = re.findall(r"`(\w+)\.py::(\w+)`", text)
    assert len(places) >= 8
    for module, function in places:
        homes = [f"dasd.{package}.{module}" for package in ("evaluation", "evaluation.readers", "tasks", "report.data")]
        found = [home for home in homes if importlib.util.find_spec(home)]
        assert any(hasattr(importlib.import_module(home), function) for home in found), f"{module}.py::{function}"
