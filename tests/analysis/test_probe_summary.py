"""Are the probe's effects the paired differences, and its intervals those of problems?"""

import math

import pytest

from dasd.analysis.probe_file import assemble
from dasd.analysis.probe_summary import summarize_probe


def outcome(correct, right=1, checked=2, epistemic=0, length=10):
    n = len(correct)
    return {
        "correct": correct, "steps_right": [right] * n, "steps_checked": [checked] * n, "epistemic": [epistemic] * n,
        "length": [length] * n,
    }  # fmt: skip


def lines(name, *places, revisions=(), tokens=10, own=7):
    """What is on file of one problem. A place: kinds, rank, outcomes of conform, deviate, control (None: not there yet)."""
    rollout = {
        "kind": "rollout", "problem_id": name, "token_ids": [own] * tokens,
        "correct": 1.0, "steps_right": 1, "steps_checked": 2, "epistemic": 0, "length": tokens,
        "student_logps": [-1.0] * tokens, "entropies": [float(i) for i in range(tokens)],
        "positions": [{"index": i, "kinds": kinds, "rank": rank, "entropy": 1.0} for i, (kinds, rank, *_) in enumerate(places)],
        "revisions": [{"index": 5 + i, "suppressed": 4} for i in range(len(revisions))],
    }  # fmt: skip
    forced = {str(i): {"conform": 7, "deviate": 8} for i in range(len(places))}
    reading = {
        "kind": "reading", "problem_id": name, "context": "solution", "forced": forced,
        "teacher_logps": [-1.0 + 0.1 * i for i in range(tokens)], "tv": [0.05 * i for i in range(tokens)],
        "slope": [-0.5] * tokens, "terms": {"dasd": [0.2] * 5 + [-0.2] * (tokens - 5)},
    }  # fmt: skip
    branches = [
        (i, "student", token, result)
        for i, (_, _, *results) in enumerate(places)
        for token, result in zip((7, 8, None), results, strict=True)
    ]
    for i, (kept, suppressed, taught) in enumerate(revisions):
        branches += [(5 + i, "student", own, kept), (5 + i, "student", 4, suppressed), (5 + i, "solution", own, taught)]
    return [rollout, reading] + [
        {"kind": "branch", "problem_id": name, "index": i, "writer": writer, "token": token, "outcomes": result, "tokens": 1}
        for i, writer, token, result in branches
        if result is not None
    ]


def summary(*problems, contexts=("solution",)):
    return summarize_probe(assemble([line for problem in problems for line in problem], contexts), contexts, rho=0.8)


# Two problems: at high entropy conforming loses and deviating gains, at low entropy the other way round.
A = lines(
    "a",
    (("high", "random"), 0.95, outcome([0, 0], right=2, length=14), outcome([1, 1]), outcome([1, 0])),
    (("low",), 0.15, outcome([1, 1]), outcome([0, 0]), outcome([1, 1])),
    revisions=[(outcome([1, 1]), outcome([0, 1]), outcome([1, 1]))],
)
B = lines(
    "b",
    (("high",), 0.85, outcome([1, 0]), outcome([1, 1]), outcome([1, 1])),
    (("low",), 0.25, outcome([1, 1]), outcome([0, 1]), outcome([0, 1])),
    revisions=[(outcome([1, 0]), outcome([0, 0]), outcome([1, 1]))],
    own=3,
)


def test_effects_by_hand():
    found = summary(A, B)
    effects = found["contexts"]["solution"]["effects"]
    assert effects["high"]["conform"]["correct"]["mean"] == pytest.approx((-0.5 - 0.5) / 2)
    assert effects["high"]["deviate"]["correct"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert effects["low"]["conform"]["correct"]["mean"] == pytest.approx((0.0 + 0.5) / 2)
    assert effects["low"]["deviate"]["correct"]["mean"] == pytest.approx((-1.0 + 0.0) / 2)
    assert effects["high"]["conform"]["pass_at_m"]["mean"] == pytest.approx((-1 + 0) / 2)
    assert effects["high"]["conform"]["step_accuracy"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert effects["high"]["conform"]["length"]["mean"] == pytest.approx(2.0)
    assert effects["high"]["conform"]["correct"]["n"] == 2
    assert (effects["random"]["conform"]["correct"]["mean"], effects["random"]["conform"]["correct"]["n"]) == (-0.5, 1)
    assert found["baseline"]["high"]["correct"]["mean"] == pytest.approx(0.75)
    assert found["baseline"]["rollouts"]["correct"]["mean"] == 1.0
    agreement = found["contexts"]["solution"]["agreement"]
    assert (agreement["high"]["mean"], agreement["low"]["mean"]) == (0.5, 0.5)
    deciles = found["contexts"]["solution"]["deciles"]
    assert [decile["conform"]["n"] for decile in deciles] == [0, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert deciles[9]["deviate"]["mean"] == 0.5


def test_revisions_by_hand():
    found = summary(A, B)["revisions"]
    assert found["rollouts"] == 2
    assert (found["preserve"]["mean"], found["suppress"]["mean"]) == (0.75, 0.25)
    assert found["preserve_minus_suppress"]["mean"] == pytest.approx(0.5)
    assert found["teacher"]["solution"]["mean"] == 1.0
    assert found["teacher_minus_preserve"]["solution"]["mean"] == pytest.approx(0.25)
    assert found["preserve"]["n"] == 2


def test_intervals_are_clustered_by_problem():
    """Ten places of one problem say no more than that problem: two problems that disagree leave the whole range."""
    good = lines("a", *[(("high",), 0.9, outcome([1]), outcome([0]), outcome([0]))] * 10)
    bad = lines("b", *[(("high",), 0.9, outcome([0]), outcome([0]), outcome([1]))] * 10)
    cell = summary(good, bad)["contexts"]["solution"]["effects"]["high"]["conform"]["correct"]
    assert (cell["mean"], cell["low"], cell["high"], cell["n"], cell["problems"]) == (0.0, -1.0, 1.0, 20, 2)


def test_no_interval_has_the_width_zero():
    """Where all agree the interval is that of as many problems: 1 - 0.025 ** (1 / n) of the range on either side."""
    same = [lines(str(i), (("high",), 0.9, outcome([1]), outcome([0]), outcome([1]))) for i in range(10)]
    effects = summary(*same)["contexts"]["solution"]["effects"]["high"]
    half = 1 - 0.025 ** (1 / 10)
    assert effects["conform"]["correct"]["low"] == pytest.approx(-half)
    assert effects["conform"]["correct"]["high"] == pytest.approx(half)
    assert math.isnan(effects["conform"]["length"]["low"])  # lengths have no range
    one = summary(same[0])["contexts"]["solution"]["effects"]["high"]["conform"]["correct"]
    assert (one["low"], one["high"]) == pytest.approx((-0.975, 0.975))


def test_tokens_by_entropy_decile():
    """Ten tokens, one in each decile: gap and total variation rise with the entropy, credit turns at the sixth."""
    found = summary(A, B)["contexts"]["solution"]["tokens"]
    assert [cell["mean"] for cell in found["tv"]] == pytest.approx([0.05 * i for i in range(10)])
    assert [cell["n"] for cell in found["tv"]] == [2] * 10
    assert [cell["mean"] for cell in found["gap"]] == pytest.approx([0.1 * i for i in range(10)])
    assert [cell["mean"] for cell in found["shift"]["dasd"]] == pytest.approx([-0.1] * 5 + [0.1] * 5)
    assert {name: cell["mean"] for name, cell in found["spearman"].items()} == pytest.approx(
        {"gap": 1.0, "abs_gap": 1.0, "tv": 1.0}
    )


def test_what_is_not_there_yet_is_left_out():
    half = lines("c", (("high",), 0.9, outcome([1]), None, outcome([0])), (("low",), 0.1, outcome([1]), outcome([1]), None))
    found = summary(half, lines("d"), contexts=("solution", "hint"))
    assert found["rollouts"] == 2
    assert found["contexts"]["solution"]["positions"] == 0
    assert found["contexts"]["hint"]["positions"] == found["contexts"]["hint"]["tokens"]["n"] == 0
    assert found["baseline"]["high"]["correct"]["n"] == 1
    assert found["revisions"]["preserve"]["n"] == 0
    assert summary()["rollouts"] == 0


def test_steps_that_cannot_be_checked_are_left_out():
    place = (("high",), 0.9, outcome([1], checked=0), outcome([1]), outcome([1], checked=0))
    cell = summary(lines("a", place))["contexts"]["solution"]["effects"]["high"]["conform"]["step_accuracy"]
    assert cell["n"] == 0
    assert math.isnan(cell["mean"])
