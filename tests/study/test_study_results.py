"""What do finished cells say: both figures on all evaluation sets, in their families, and sentences that claim no more?"""

from __future__ import annotations

import json
import re

import pytest

from dasd import cli
from dasd.config import BadInput
from dasd.evaluation.estimators import holm
from dasd.report import build_study_page
from dasd.study.cells import all_cells
from dasd.study.claims import better
from dasd.study.history import record
from dasd.study.results import band, results, verdict
from dasd.study.search import settle
from dasd.study.sentences import markdown, sentences, signed
from study.test_study import SMALL, answered, finish, outcome, study


def test_a_verdict_needs_test_and_both_intervals():
    clear = {"low": 0.01, "high": 0.1, "resampled": [0.02, 0.09], "p_holm": 0.01, "seeds": 3, "mean": 0.05}
    assert verdict(clear) == "above"
    assert verdict({**clear, "p_holm": 0.06}) == "undecided"
    assert verdict({**clear, "resampled": [-0.01, 0.09]}) == "undecided"
    assert verdict({**clear, "low": -0.1, "high": -0.01, "resampled": [-0.1, -0.02]}) == "below"
    assert verdict({**clear, "seeds": 1}) == "one seed"
    assert verdict(None) == "unknown"


def compared(arm: str, avg: str, passed: str = "undecided", place: str = "test") -> dict[str, object]:
    difference = {"low": 0.01, "high": 0.1, "resampled": [0.02, 0.09], "p_holm": 0.01, "seeds": 3, "mean": 0.05}
    kinds = {kind: {"verdict": verdict, "difference": difference} for kind, verdict in (("avg", avg), ("pass", passed))}
    return {"task": "t", "set": place, "own": place == "test", "arm": arm, "seeds": [0], **kinds}


def test_the_text_claims_no_more_than_the_verdicts():
    rows = [
        compared("a", "above"), compared("b", "undecided", "below"), compared("c", "unknown", "unknown"),
        compared("a", "undecided", place="larger"),
    ]  # fmt: skip
    found = {
        "progress": {"done": 3, "cells": 4, "failed": 1}, "reference": "grpo", "results": rows, "seeds": [0], "deviations": [],
        "minimum_effect": [{"task": "t", "effect": 0.02}],
        "plan": {"first": {"at": "now", "older": 0}}, "tasks": ["t"], "num_samples": 16,
        "better": [{"arm": "a", "above": ["t"], "not_lower": ["t"], "better": True}], "pairs": [],
        "choices": [], "fallen": [],
    }  # fmt: skip
    text = sentences(found)
    assert "3 of 4 cells are done, 1 failed" in text[0]
    assert text[1].startswith("Supported, on t: a is above grpo by +0.050 [+0.010, +0.100] (Avg@16, 3 seeds")
    assert text[2].startswith("Not supported, on t: any other difference from grpo. Seen: b +0.050")
    assert "0.020" in text[2]
    assert text[3].startswith("Unknown, on t: c")
    assert text[4] == "Better than grpo on t (above it, and Pass@16 not lower by 0.02 or more): a."
    assert text[5] == "Pass@16 is shown not to be lower than grpo's by 0.02 or more: on t a."
    assert text[6].startswith("Secondary, on t: b is below grpo by +0.050 [+0.010, +0.100] (Pass@16")
    assert text[7].startswith(
        "Secondary: of 4 other comparisons (Pass@k and 1 other evaluation sets; a family of their own) 3 are"
    )


def test_many_arms_are_a_table_and_no_sentence():
    """Eight are named each, with more the lowest and the highest; the table in Markdown has them all."""
    rows = [compared(f"arm{count}", "undecided") for count in range(9)]
    for row, mean in zip(rows, (0.05, -0.31, 0.02, 0.04, 0.07, -0.1, 0.0, 0.06, 0.03), strict=True):
        value = {"mean": 0.5 + mean, "low": 0.3, "high": 0.8}
        for kind in ("avg", "pass"):
            row[kind] = row[kind] | {"difference": row[kind]["difference"] | {"mean": mean}, "value": value}
    found = {
        "progress": {"done": 9, "cells": 9, "failed": 0}, "reference": "g|rpo", "results": rows, "seeds": [0], "deviations": [],
        "minimum_effect": [], "plan": {"first": {"at": "now", "older": 0}}, "tasks": ["t"], "num_samples": 16,
        "better": [], "pairs": [],
        "choices": [], "fallen": [],
    }  # fmt: skip
    said = next(text for text in sentences(found) if text.startswith("Not supported"))
    assert "Seen: of 9 arms from arm1 -0.310 [" in said
    assert "to arm4 +0.070 [" in said
    assert re.findall(r"arm\d", said) == ["arm1", "arm4"]
    eight = next(text for text in sentences({**found, "results": rows[:8]}) if text.startswith("Not supported"))
    assert re.findall(r"arm\d", eight) == [f"arm{count}" for count in range(8)]
    text, _, table = markdown({**found, "findings": [said]}).partition("\n\n")
    assert text == f"* {said}"
    lines = [re.split(r"(?<!\\)\|", line.strip()) for line in table.splitlines()]
    assert {len(line) for line in lines} == {11}
    assert lines[0][7].strip() == r"minus g\|rpo"
    assert [(line[3].strip(), line[5].strip()) for line in lines[2:4]] == [("arm0", "Avg@16"), ("arm0", "Pass@16")]
    assert "-0.310 [+0.010, +0.100]" in lines[4][7]
    assert len(lines) == 2 + 18


def test_cells_that_came_without_their_history_are_not_called_no_run(tmp_path):
    given = study(tmp_path)
    assert results(given)["findings"][-1] == "No run has been made yet."
    finish(all_cells(given)[0])
    assert results(given)["findings"][-1] == "When the first run was made, and by which plan, is not on file."


def test_the_table_has_arms_of_which_something_is_known(tmp_path, capsys):
    given = study(tmp_path)
    assert cli.run(["study", str(given.path), "--report"]) == 0
    assert "verdict" not in capsys.readouterr().out  # no head over nothing
    finish(next(cell for cell in all_cells(given) if cell.arm == "grpo"))
    assert cli.run(["study", str(given.path), "--report"]) == 0
    table, _, text = capsys.readouterr().out.partition("└")
    assert "grpo" in table
    assert "dasd" not in table.replace(str(tmp_path), "")
    assert "Unknown, on countdown: dasd" in text


def test_runs_that_made_their_model_worse_are_said(tmp_path):
    given = study(tmp_path)
    for cell in all_cells(given):
        finish(cell)
        if cell.arm == "dasd" and cell.seed == given.config.seeds[-1]:
            kept = json.loads((cell.folder / "outcome.json").read_text())
            kept["curves"]["reward"] = {str(step): 0.4 - 0.03 * step for step in range(1, 13)}
            (cell.folder / "outcome.json").write_text(json.dumps(kept))
    seeds = given.config.seeds
    [said] = [text for text in results(given)["findings"] if "worse" in text]
    assert said.startswith(f"Training made the model worse in 1 of {len(seeds)} runs of dasd on countdown")
    assert said.endswith(f"seed {seeds[-1]}).")


def test_what_the_search_chose_for_one_alone_is_said(tmp_path):
    """A difference of two arms at different rates is not that of their methods; and the best may lie beyond the grid."""
    search = {
        "grid": {"training.learning_rate": [1e-3, 3e-4, 1e-4]},
        "arms": {"dasd": {"method.rho": [0.2, 0.5, 0.8]}},
        "seeds": [7],
    }
    given = study(tmp_path, search=search)
    for cell in all_cells(given):
        if cell.candidate is None:
            continue
        rate, rho = cell.candidate["training.learning_rate"], cell.candidate.get("method.rho")
        finish(cell, {1e-3: 0.3, 3e-4: 0.5, 1e-4: 0.4}[rate] if rho is None else 0.6 - rate - abs(rho - 0.5))
    for arm in SMALL["arms"]:
        settle(given, "countdown", arm, {})
    said = [text for text in results(given)["findings"] if "search" in text]
    assert said == [
        "Not of the method alone, on countdown: grpo runs with training.learning_rate 0.0003, and by the search's choice on "
        "validation problems dasd 0.0001 (ahead by 0.000).",
        "The search took the smallest training.learning_rate that it tried, 0.0001, on countdown for dasd.",
    ]


def judged(task: str, arm: str, verdict: str, low: float, seeds: int = 3) -> dict[str, object]:
    """A row whose Pass@k has `low` as the lower of its intervals' ends."""
    change = {"low": low + 0.01, "high": 0.1, "resampled": [low, 0.2], "seeds": seeds}
    return {"task": task, "arm": arm, "own": True, "is_reference": False, "avg": {"verdict": verdict},
            "pass": {"difference": change}}  # fmt: skip


def test_better_is_above_on_every_task_and_keeps_pass_at_k():
    rows = [
        judged("t", "both", "above", -0.01), judged("u", "both", "above", 0.0),
        judged("t", "once", "above", 0.0), judged("u", "once", "undecided", 0.0),
        judged("t", "narrow", "above", -0.021), judged("u", "narrow", "above", 0.0),
        judged("t", "single", "above", 0.0, seeds=1), judged("u", "single", "above", 0.0),
        {**judged("t", "none", "above", 0.0), "pass": None}, judged("u", "none", "above", 0.0),
    ]  # fmt: skip
    found = {of["arm"]: of for of in better([{"own": True, "is_reference": True}, {"own": False}, *rows])}
    assert [arm for arm, of in found.items() if of["better"]] == ["both"]
    assert (found["once"]["above"], found["once"]["not_lower"]) == (["t"], ["t", "u"])
    assert all(found[arm]["not_lower"] == ["u"] for arm in ("narrow", "single", "none"))


def test_two_arms_are_compared_with_each_other_where_the_study_asks(tmp_path):
    """Over the seeds that both have; the plan is not changed by it, a name that is no arm is refused."""
    arms = {**SMALL["arms"], "opsd": {}}
    before = study(tmp_path, arms=arms)
    record(before)
    given = study(tmp_path, arms=arms, pairs=[["dasd", "opsd"]])
    right = {"grpo": [1, 1, 1, 1], "dasd": [2, 2, 1, 1], "opsd": [1, 0, 1, 0]}
    for cell in all_cells(given):
        if (cell.arm, cell.seed) != ("opsd", 1):
            answered(cell, right[cell.arm])
    found = results(given)
    [pair] = found["pairs"]
    assert (pair["arm"], pair["other"], pair["difference"]["seeds"]) == ("dasd", "opsd", 1)
    assert pair["difference"]["mean"] == pytest.approx(0.5)
    assert any(text.startswith("Not tested, on countdown: dasd minus opsd +0.500 [") for text in found["findings"])
    assert found["deviations"] == []
    with pytest.raises(BadInput, match="pairs: 'dads' is none of the arms, did you mean 'dasd'"):
        study(tmp_path, arms=arms, pairs=[["dads", "opsd"]])


def test_passing_is_compared_and_suites_have_rows_and_a_family_of_their_own(tmp_path):
    """Two seeds in which an arm is right more often and on fewer problems: above in Avg@k, below in Pass@k."""
    given = study(tmp_path, suites={"countdown": ["countdown/more_numbers"]}, arms={**SMALL["arms"], "opsd": {}})
    right = {"grpo": [1] * 40, "dasd": [2] * 30 + [0] * 10, "opsd": [1, 1, 2, 0] * 10}
    for cell in all_cells(given):
        bump = [1, 1, 0, 0] if cell.seed else []  # some noise of seeds
        counts = [*right[cell.arm][: len(right[cell.arm]) - len(bump)], *bump]
        outcome(cell, {"test": counts, "countdown/more_numbers": [0, 1, 1, 2]})
    found = results(given)
    rows = {(row["set"], row["arm"]): row for row in found["results"]}
    assert list(rows) == [(place, arm) for place in ("test", "countdown/more_numbers") for arm in ("grpo", "dasd", "opsd")]
    dasd = rows["test", "dasd"]
    assert dasd["avg"]["difference"]["mean"] == pytest.approx(((60 - 40) + (62 - 38)) / 80 / 2)
    assert dasd["pass"]["difference"]["mean"] == pytest.approx(((30 - 40) + (32 - 38)) / 40 / 2)
    assert dasd["pass"]["runs"][0] == 0.75
    suite = rows["countdown/more_numbers", "dasd"]
    assert (suite["avg"]["difference"]["mean"], suite["pass"]["value"]["mean"], suite["own"]) == (0, 0.75, False)
    assert (rows["test", "grpo"]["figures"]["mean_length"]["mean"], suite["curves"]) == (9.0, {})
    primary = [rows["test", arm]["avg"]["difference"] for arm in ("dasd", "opsd")]
    assert [each["p_holm"] for each in primary] == pytest.approx(holm([each["p_value"] for each in primary]))
    others = [rows["test", arm]["pass"]["difference"] for arm in ("dasd", "opsd")]
    others += [rows["countdown/more_numbers", arm][kind]["difference"] for arm in ("dasd", "opsd") for kind in ("avg", "pass")]
    assert [each["p_holm"] for each in others] == pytest.approx(holm([each["p_value"] for each in others]))
    page = build_study_page(json.loads(json.dumps(found)), tmp_path / "page.html").read_text()
    assert page.count("countdown: more_numbers") >= 2
    assert "Pass@2, countdown" in page


def test_comparisons_that_are_still_to_come_count_in_the_correction(tmp_path):
    """One arm of three is done: its p-value is worth what it will be worth beside two others, not what it is alone."""
    given = study(tmp_path, arms={**SMALL["arms"], "opsd": {}, "rlsd": {}})
    right = {"grpo": [1] * 40, "dasd": [2] * 30 + [0] * 10}
    for cell in all_cells(given):
        if cell.arm in right:
            answered(cell, [*right[cell.arm][:36], *([1, 1, 0, 0] if cell.seed else [1, 0, 0, 0])])
    [dasd] = [row["avg"]["difference"] for row in results(given)["results"] if row["arm"] == "dasd"]
    assert 0 < dasd["p_value"] < 0.2
    assert dasd["p_holm"] == pytest.approx(3 * dasd["p_value"])


def test_one_seed_takes_no_place_in_the_correction(tmp_path):
    """A comparison of one seed has no noise of seeds in its p-value: it pushed the others back, and fell back itself later."""
    given = study(tmp_path, arms={**SMALL["arms"], "opsd": {}})
    right = {"grpo": [1] * 40, "dasd": [2] * 30 + [0] * 10, "opsd": [2] * 40}
    for cell in all_cells(given):
        if cell.arm in right and (cell.arm != "opsd" or cell.seed == 0):
            answered(cell, [*right[cell.arm][:36], *([1, 1, 0, 0] if cell.seed else [1, 0, 0, 0])])
    found = {row["arm"]: row["avg"] for row in results(given)["results"]}
    dasd, opsd = found["dasd"]["difference"], found["opsd"]["difference"]
    assert opsd["p_value"] <= dasd["p_value"] < 0.2
    assert (opsd["p_holm"], found["opsd"]["verdict"]) == (1.0, "one seed")
    assert dasd["p_holm"] == pytest.approx(2 * dasd["p_value"])


def test_a_band_is_over_the_steps_that_all_runs_have():
    assert band([{1: 0.0, 2: 4.0}, {1: 1.0}]) == {"step": [1], "mean": [0.5], "low": [0.0], "high": [1.0]}
    assert band([]) is None


def test_the_results_are_those_of_the_cells_paired(tmp_path):
    given = study(tmp_path)
    grpo_0, grpo_1, dasd_0, _ = all_cells(given)
    empty = results(given)
    assert (empty["progress"]["done"], empty["results"][1]["avg"]["verdict"]) == (0, "unknown")
    for file, title in (("direction/study.yaml", "direction"), ("lookahead/rate.yaml", "lookahead: rate")):
        page = build_study_page(empty | {"study": str(tmp_path / file)}, tmp_path / "empty.html").read_text()
        assert re.search("<h1[^>]*>(.*?)</h1>", page, re.DOTALL)[1].strip() == title
        assert "<td>unknown" not in re.sub(' class="[^"]*"', "", page)  # an arm of which no seed is done has no row
        assert "No seed is done yet." in page
    answered(grpo_0, [0, 1, 2, 1])
    answered(grpo_1, [1, 1, 1, 2])
    answered(dasd_0, [1, 1, 2, 2])
    found = results(given)
    reference, dasd = found["results"]
    assert reference["avg"]["runs"] == {0: 0.5, 1: 0.625}
    assert (reference["avg"]["value"]["mean"], reference["avg"]["difference"]) == (0.5625, None)
    assert (dasd["avg"]["difference"]["mean"], dasd["avg"]["difference"]["seeds"]) == (0.25, 1)  # seed 1 has no partner yet
    assert dasd["avg"]["verdict"] == "one seed"
    assert reference["pass_at_k"][2]["mean"] == reference["pass"]["value"]["mean"] == pytest.approx((0.75 + 1) / 2)
    reward = reference["curves"]["reward"]
    assert (reward["step"], reward["low"], reward["high"]) == ([1, 2], [0.1, 0.2], [1.1, 1.2])
    assert reward["mean"] == pytest.approx([0.6, 0.7])
    assert found["aggregate"][0]["interquartile_mean"]["mean"] == 0.5625
    assert found["minimum_effect"][0]["effect"] > 0
    page = build_study_page(json.loads(json.dumps(found)), tmp_path / "half.html").read_text()
    assert "one pair of seeds says nothing" in page
    assert "3 of 4 done" in page
    assert page.count("<small>seeds ") == 1  # said of the arm that lacks one


def test_a_reference_without_noise_finds_nothing(tmp_path, capsys):
    """Never right: what an arm's seeds would do is not known from it; it was called an effect of 0.000."""
    given = study(tmp_path)
    for cell in all_cells(given):
        answered(cell, [0, 0, 0] if cell.arm == "grpo" else [0, 1, 0])
    assert cli.run(["study", str(given.path), "--report"]) == 0
    said = capsys.readouterr().out
    assert "minimum detectable effect unknown, the seeds of grpo do not differ (2 seeds, 3 problems, 1 comparisons)" in said
    assert "four times in five" not in said
    assert "countdown unknown, the seeds of grpo do not differ." in (given.output / "study.html").read_text()


def test_cells_on_other_problems_are_not_compared(tmp_path):
    given = study(tmp_path)
    first, second, *_ = all_cells(given)
    answered(first, [0, 1])
    answered(second, [0, 1, 2])
    with pytest.raises(BadInput, match="cannot be paired"):
        results(given)


def test_what_rounds_to_nothing_has_no_minus():
    assert signed(-0.0004) == "+0.000"
    assert signed(-0.0006, -0.02, 0.0) == "-0.001 [-0.020, +0.000]"
