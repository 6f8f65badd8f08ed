"""Are the figures of a summary those that a reader would count by hand, and NaN or absent where they are undefined?"""

import math

import pytest

from dasd.evaluation.summary import metric_sums, summarize
from dasd.report.data.metrics import describe


def record(problem, sample, text, status, tokens=(1, 2, 3), finish="stop", **more):
    return {
        "problem_id": problem, "sample": sample, "text": text, "token_ids": None if tokens is None else list(tokens),
        "finish_reason": finish, "status": status, "extracted": None if status == "no_answer" else text,
        "steps_right": 1, "steps_checked": 2, "first_wrong_step": 2, **more,
    }  # fmt: skip


RECORDS = [
    record("p", 0, "wait, it seems 4", "correct", solution_key="x"),
    record("p", 1, "unlikely, the provided solution says 5", "incorrect", [7] * 40, "length", solution_key=None),
    record("q", 0, "", "no_answer", [1, 2] * 15, solution_key=None),
    record("q", 1, "go back", "grader_error", [], solution_key=None, steps_right=3, steps_checked=3, first_wrong_step=None),
]


def test_every_figure_by_hand():
    summary = summarize(metric_sums(["p", "q"], RECORDS, 2), 2)
    expected = {
        "avg_at_2": 1 / 4,
        "pass_at_1": 1 / 4,
        "pass_at_2": 1 / 2,
        "step_accuracy": 6 / 9,
        "correct_step_rate": (1 / 2 + 1 / 2 + 1 / 2 + 1) / 4,
        "no_wrong_step": 1 / 4,
        "first_wrong_step": 2.0,
        "epistemic_per_response": 2 / 4,  # wait, seems
        "epistemic_per_100_words": 100 * 2 / 12,
        "epistemic_substrings_per_response": 3 / 4,  # and the one in unlikely
        "mean_length": (3 + 40 + 30 + 0) / 4,
        "backtracks_per_response": 2 / 4,  # wait, go back
        "revision_rate": 0.0,
        "distinct_trigrams_at_2": 1.0,  # of problem q no sample has three words
        "truncated": 1 / 4,
        "loops": 2 / 4,
        "leakage": 1 / 4,
        "undecided": 0.0,
        "no_answer": 1 / 3,  # the grader's own failure is nobody's silence
        "claims_true": 1 / 2,
        "distinct_at_2": 1 / 2,
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    assert set(summary["ci95"]) == {*expected, "maj_at_1", "maj_at_2"}


def test_distinct_solutions_count_each_way_once():
    keys = [("p", "x"), ("p", "x"), ("p", None), ("q", "x"), ("q", "y"), ("q", "y")]
    records = [record(name, i, "", "correct", solution_key=key) for i, (name, key) in enumerate(keys)]
    numerators, denominators = metric_sums(["p", "q"], records, 3)["distinct_at_3"]
    assert (numerators.tolist(), denominators.tolist()) == ([1, 2], [1, 1])


def test_first_errors_and_right_steps_by_hand():
    """Four responses: wrong at once, wrong at step 3 of 4, without an error, without a step."""
    steps = [(0, 1, 1), (3, 4, 3), (2, 2, None), (0, 0, None)]
    records = [
        record("p", i, "", "incorrect", steps_right=right, steps_checked=checked, first_wrong_step=first)
        for i, (right, checked, first) in enumerate(steps)
    ]
    summary = summarize(metric_sums(["p"], records, 4), 4)
    assert summary["step_accuracy"] == 5 / 7
    assert summary["correct_step_rate"] == pytest.approx((0 + 3 / 4 + 1) / 3)
    assert summary["no_wrong_step"] == pytest.approx(1 / 3)
    assert summary["first_wrong_step"] == (1 + 3) / 2
    del records[0]["first_wrong_step"]  # samples of an older version
    assert math.isnan(summarize(metric_sums(["p"], records, 4), 4)["first_wrong_step"])


def test_revisions_and_trigrams_by_hand():
    texts = ["3 + 8 = 11. wait, 3 * 7 = 21.", "3 + 8 = 11."]
    records = [record("p", i, text, "correct") for i, text in enumerate(texts)]
    summary = summarize(metric_sums(["p"], records, 2), 2)
    assert summary["revision_rate"] == 0.5
    assert summary["distinct_trigrams_at_2"] == 12 / 16  # the second says nothing new


def test_what_is_not_known_is_nan_or_left_out():
    text = "so it goes and " * 6
    records = [record("p", 0, text, "incorrect", None), record("p", 1, "four", "incorrect", None)]
    summary = summarize(metric_sums(["p"], records, 2), 2)
    assert math.isnan(summary["mean_length"])
    assert summary["loops"] == 1 / 2  # words stand in for tokens
    assert "distinct_at_2" not in summary  # these records do not tell
    records = [record("p", 0, "", "grader_error") | {"steps_checked": 0, "steps_right": 0, "first_wrong_step": None}]
    undefined = summarize(metric_sums(["p"], records, 1), 1)
    steps = ("correct_step_rate", "no_wrong_step", "first_wrong_step", "distinct_trigrams_at_1")
    for name in (*steps, "step_accuracy", "no_answer", "claims_true", "epistemic_per_100_words"):
        assert math.isnan(undefined[name]), name
        assert all(map(math.isnan, undefined["ci95"][name])), name


def test_every_figure_has_its_line_in_the_table():
    for name in metric_sums(["p", "q"], RECORDS, 2):
        assert describe(name).role in ("answers", "health"), name
        assert describe(name).meaning
