"""Are the probe's effects the paired differences, and does its verdict say what they say?"""

import pytest

from dasd.analysis.probe_summary import summarize_probe, verdict


def outcome(correct, right=1, checked=2, epistemic=0, length=10):
    n = len(correct)
    return {
        "correct": correct, "steps_right": [right] * n, "steps_checked": [checked] * n, "epistemic": [epistemic] * n,
        "length": [length] * n,
    }  # fmt: skip


def position(rank, uncertain, conform, deviate, control, **changes):
    outcomes = {"conform": outcome(conform, **changes), "deviate": outcome(deviate), "resample": outcome(control)}
    forced = {"conform": 7, "deviate": 8, "resample": None}
    return {"index": 0, "uncertain": uncertain, "rank": rank, "entropy": 1.0, "forced": forced, "outcomes": outcomes}


def record(name, *positions, token=7):
    return {"problem_id": name, "context": "solution", "token_ids": [token], "correct": 1.0, "positions": list(positions)}


# Two problems: at uncertain tokens conforming loses and deviating gains, at sure tokens the other way round.
RECORDS = [
    record(
        "a",
        position(0.95, True, [0, 0], [1, 1], [1, 0], right=2, length=14),
        position(0.15, False, [1, 1], [0, 0], [1, 1]),
    ),
    record("b", position(0.85, True, [1, 0], [1, 1], [1, 1]), position(0.25, False, [1, 1], [0, 1], [0, 1]), token=3),
]


def test_effects_by_hand():
    found = summarize_probe(RECORDS)["solution"]
    effects = found["effects"]
    assert effects["uncertain"]["conform"]["correct"]["mean"] == pytest.approx((-0.5 - 0.5) / 2)
    assert effects["uncertain"]["deviate"]["correct"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert effects["sure"]["conform"]["correct"]["mean"] == pytest.approx((0.0 + 0.5) / 2)
    assert effects["sure"]["deviate"]["correct"]["mean"] == pytest.approx((-1.0 + 0.0) / 2)
    assert effects["uncertain"]["conform"]["pass_at_m"]["mean"] == pytest.approx((-1 + 0) / 2)
    assert effects["uncertain"]["conform"]["step_accuracy"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert effects["uncertain"]["conform"]["length"]["mean"] == pytest.approx(2.0)
    assert effects["uncertain"]["conform"]["correct"]["positions"] == 2
    assert found["baseline"]["uncertain"]["correct"] == pytest.approx(0.75)
    assert found["agreement"] == {"uncertain": 0.5, "sure": 0.5}


def test_intervals_are_clustered_by_problem():
    """Ten positions of one problem say no more than that problem: two problems that disagree leave the whole range."""
    good = [position(0.9, True, [1], [0], [0]) for _ in range(10)]
    bad = [position(0.9, True, [0], [0], [1]) for _ in range(10)]
    cell = summarize_probe([record("a", *good), record("b", *bad)])["solution"]["effects"]["uncertain"]["conform"]["correct"]
    assert (cell["mean"], cell["low"], cell["high"]) == (0.0, -1.0, 1.0)


def test_rho_is_where_deviating_begins_to_pay():
    def at(rank):
        pays = rank >= 0.7
        return position(rank, rank >= 0.8, [0.0 if pays else 1.0], [1.0 if pays else 0.0], [0.5])

    records = [record(str(i), *(at(decile / 10 + 0.05) for decile in range(10))) for i in range(5)]
    assert summarize_probe(records)["solution"]["rho"] == {"rho": 0.7, "support": {"0.7": 1.0}}
    deciles = summarize_probe(records)["solution"]["deciles"]
    assert [decile["deviate"]["mean"] for decile in deciles] == [-0.5] * 7 + [0.5] * 3


def test_nothing_measured_is_said_and_no_error():
    found = summarize_probe([record("a")])["solution"]
    assert found["positions"] == 0
    assert "was not measured" in found["verdict"][0]
    assert found["rho"]["rho"] == 1.0


def test_steps_that_cannot_be_checked_are_left_out():
    cell = summarize_probe([record("a", position(0.9, True, [1], [1], [1], checked=0))])
    assert cell["solution"]["effects"]["uncertain"]["conform"]["step_accuracy"]["positions"] == 0


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.01, 0.2, "helps"), (-0.3, -0.1, "hurts"), (-0.1, 0.1, "has no clear effect")]
)
def test_verdict_follows_the_interval(low, high, word):
    cell = {"correct": {"mean": (low + high) / 2, "low": low, "high": high}}
    table = {side: dict.fromkeys(("conform", "deviate"), cell) for side in ("uncertain", "sure")}
    said = verdict(table, {"rho": 0.8, "support": {"0.8": 0.75}})
    assert [word in sentence for sentence in said] == [True] * 4 + [False]
    assert "20% most uncertain" in said[-1]
    assert "75%" in said[-1]
