"""Is a prediction looked up by what an arm does, and is it compared with the effects by the rule of the plan?"""

from __future__ import annotations

import json
import math

import pytest

from dasd.analysis.first_order import told_apart_by
from dasd.config import BadInput
from dasd.report import build_study_page
from dasd.study.cells import Cell, all_cells
from dasd.study.config import load_study
from dasd.study.predicted import LEAST_CELLS, judged, predicted, rule_of
from dasd.study.results import results
from study.test_study import answered, study, write

ARMS = {
    "grpo": ({"name": "grpo"}, None),
    "dasd": ({"name": "dasd", "beta": 0.1}, ("conform", "deviate", 0.8)),
    "printed": ({"name": "dasd", "beta": 0.1, "rho": 0.2}, ("conform", "deviate", 0.2)),
    "hard": ({"name": "dasd", "beta": 0.1, "map": "hard", "gate": "none"}, ("conform", "deviate", 0.8)),
    "conformity": ({"name": "conformity"}, ("conform", "conform", None)),
    "novelty": ({"name": "novelty"}, ("deviate", "deviate", None)),
    "scaffold_only": ({"name": "scaffold_only"}, ("conform", None, 0.8)),
    "fork_only": ({"name": "fork_only", "rho": 0.5}, (None, "deviate", 0.5)),
    "between": ({"name": "dasd", "beta": 0.1, "rho": 0.85}, None),
    "between_alike": ({"name": "dasd", "beta": 0.1, "rho": 0.85, "flip": "low"}, ("deviate", "deviate", None)),
    "flip_low": ({"name": "dasd", "beta": 0.1, "flip": "low"}, ("deviate", "deviate", None)),
    "flip_high": ({"name": "dasd", "beta": 0.1, "flip": "high"}, ("conform", "conform", None)),
    "other_dose": ({"name": "dasd", "beta": 0.02}, None),
    "control": ({"name": "dasd", "beta": 0.1, "control": "permuted_entropy"}, None),
    "signal": ({"name": "dasd", "beta": 0.1, "signal": "position"}, None),
    "rlsd": ({"name": "rlsd"}, None),
}


def entry(below: str | None, above: str | None, rho: float | None, mean: float, enough: bool = True) -> dict[str, object]:
    return {"below": below, "above": above, "rho": rho, "mean": mean, "low": mean - 0.01, "high": mean + 0.01, "enough": enough}


def probe(*entries: dict[str, object], context: str = "solution") -> dict[str, object]:
    return {"contexts": {context: {"rules": list(entries)}}}


def cell(guess: float, effect: float, task: str = "t", width: float = 0.01) -> dict[str, object]:
    sides = {"predicted": guess, "measured": effect}
    return {"task": task} | {k: {"mean": v, "low": v - width, "high": v + width} for k, v in sides.items()}


def test_an_arms_rule_is_what_it_does_on_either_side_of_its_quantile(tmp_path):
    given = study(tmp_path, arms={name: {"method": method} for name, (method, _) in ARMS.items()})
    for name, (_, expected) in ARMS.items():
        assert rule_of(Cell(given, "countdown", name, 0).run_config({}), beta=0.1) == expected, name


def test_a_prediction_is_the_mean_over_the_probes_that_saw_the_context():
    rule = ("conform", "deviate", 0.8)
    probes = [probe(entry(*rule, -0.02)), probe(entry(*rule, -0.04)), probe(entry(*rule, 0.5), context="answer")]
    assert predicted(probes, "solution", rule) == pytest.approx({"mean": -0.03, "low": -0.04, "high": -0.02, "probes": 2})
    assert predicted(probes, "none", rule) is None
    assert predicted([probe(entry(*rule, 0.5, enough=False))], "solution", rule) is None  # the probe itself would not say it
    assert predicted(probes, "solution", ("conform", "conform", None)) is None


def test_the_verdict_follows_the_rank_correlation_of_enough_cells():
    order = [cell(0.1 * place, (0.1 * place) ** 3) for place in range(-4, 5)]
    same = judged(order, "the probe")
    assert (same["verdict"], same["spearman"]["mean"], same["spearman"]["low"]) == ("predicts", 1.0, 1.0)
    assert "alone says nothing of other tasks" in same["sentence"]
    assert same["signs"] == {"agree": 4, "of": 4}  # up to 0.2 cubed nothing is clear
    reverse = judged([cell(0.1 * place, -0.1 * place, task=f"t{place % 2}") for place in range(-4, 5)], "the probe")
    assert (reverse["verdict"], reverse["signs"]) == ("misleads", {"agree": 0, "of": 8})
    assert "other tasks" not in reverse["sentence"]
    unclear = judged([cell(place, effect) for place, effect in enumerate((3, 9, 1, 7, 0, 8, 2, 6, 4))], "the probe")
    assert unclear["verdict"] == "undecided"
    ranks = [abs(place - rank) for place, rank in enumerate((3, 8, 1, 6, 0, 7, 2, 5, 4))]
    assert unclear["spearman"]["mean"] == pytest.approx(1 - 6 * sum(d * d for d in ranks) / (9 * 80))
    few = judged(order[: LEAST_CELLS - 1], "the probe")
    assert (few["verdict"], few["spearman"]["mean"]) == ("too few", 1.0)
    assert f"no verdict from {LEAST_CELLS - 1} cells" in few["sentence"]


def test_of_no_cells_nothing_is_said():
    assert "no verdict from 1 cell, 8" in judged([cell(0.1, 0.1)], "the probe")["sentence"]
    none = judged([], "the probe")
    assert (none["verdict"], none["signs"]) == ("too few", {"agree": 0, "of": 0})
    assert math.isnan(none["spearman"]["mean"])
    assert none["sentence"].endswith("no verdict from 0 cells, 8 are the least.")


def test_a_study_compares_its_own_arms_and_those_of_others(tmp_path):
    """Two studies with the same arms: eight cells whose effects have the order that was predicted."""
    guesses = {"dasd": -0.01, "printed": -0.1, "conformity": 0.02, "novelty": -0.3}
    rules = [entry(*ARMS[arm][1], guess) for arm, guess in guesses.items()]
    arms = {name: {"method": ARMS[name][0]} for name in ("grpo", "other_dose", *guesses)}
    right = {"grpo": 10, "other_dose": 0, "dasd": 9, "printed": 6, "conformity": 14, "novelty": 2}
    for name in ("one", "two"):
        path = write(tmp_path / name, arms=arms)
        for each in all_cells(load_study(path, {})):
            answered(each, [1] * right[each.arm] + [0] * (20 - right[each.arm]))
    (tmp_path / "one/probe.json").write_text(json.dumps(probe(*rules)))
    asked = {"probes": {"countdown": ["probe.json"]}, "beta": 0.1, "also": ["../two/study.yaml"]}
    given = load_study(write(tmp_path / "one", arms=arms, predictions=asked), {})
    found = results(given)
    of = found["prediction"]
    assert [(c["arm"], c["predicted"]["mean"]) for c in of["cells"]] == list(guesses.items()) * 2
    assert of["cells"][0]["measured"]["mean"] == pytest.approx(-1 / 40)
    assert (of["verdict"], of["spearman"]["mean"]) == ("predicts", 1.0)
    assert of["sentence"] in found["findings"]
    page = build_study_page(json.loads(json.dumps(found)), tmp_path / "page.html").read_text()
    assert "Measured against predicted" in page
    assert of["sentence"] in page.replace("&#39;", "'")


def test_the_first_update_predicts_every_arm_that_it_was_measured_for(tmp_path):
    """The mean over the files; the order is the reverse of the effects'. Controls and other doses count, too."""
    right = {"grpo": 10, "dasd": 9, "conformity": 14, "other_dose": 2}
    gains = {"dasd": 0.0, "conformity": -0.5, "other_dose": 0.25}
    arms = {name: {"method": ARMS[name][0]} if name in ARMS else {"method": {"name": "dasd", "beta": 0.02}} for name in right}
    for name in ("one", "two"):
        path = write(tmp_path / name, arms=arms)
        for each in all_cells(load_study(path, {})):
            answered(each, [1] * right[each.arm] + [0] * (20 - right[each.arm]))
    for place in (0, 1):
        found = {arm: {"mean": gain + place, "low": gain - 1, "high": gain + 2} for arm, gain in gains.items()}
        (tmp_path / f"one/gain-{place}.json").write_text(json.dumps({"gains": found}))
    asked = {"gains": {"countdown": ["gain-0.json", "gain-1.json"]}, "beta": 0.1, "also": ["../two/study.yaml"]}
    found = results(load_study(write(tmp_path / "one", arms=arms, predictions=asked), {}))
    of = found["gain_prediction"]
    assert "prediction" not in found
    assert {(cell["arm"], cell["predicted"]["mean"]) for cell in of["cells"]} == {
        (arm, gain + 0.5) for arm, gain in gains.items()
    }
    assert len(of["cells"]) == 6
    assert of["verdict"] == "too few"
    assert of["spearman"]["mean"] == -1.0
    assert of["sentence"].startswith("Prediction of the first update against effect: no verdict from 6 cells")
    assert of["sentence"] in found["findings"]
    page = build_study_page(json.loads(json.dumps(found)), tmp_path / "page.html").read_text()
    assert "By the first update" in page
    assert "By forced tokens" not in page


def test_each_task_alone_and_the_same_arms_are_compared_too(tmp_path):
    """The first update has the order of one task and the reverse of the other's; one arm has no prediction of forced tokens."""
    right = {"grpo": 10, "dasd": 9, "conformity": 14, "rlsd": 2}
    arms = {name: {"method": ARMS[name][0]} for name in right}
    tasks = {"countdown": {}, "again": {}}
    for each in all_cells(load_study(write(tmp_path, arms=arms, tasks=tasks), {})):
        count = right[each.arm] if each.task == "countdown" else 20 - right[each.arm]
        answered(each, [1] * count + [0] * (20 - count))
    gains = {arm: {"mean": count / 10, "low": 0, "high": 3} for arm, count in right.items()}
    (tmp_path / "gain.json").write_text(json.dumps({"gains": gains}))
    rules = [entry(*ARMS[arm][1], guess) for arm, guess in {"dasd": -0.01, "conformity": 0.02}.items()]
    (tmp_path / "probe.json").write_text(json.dumps(probe(*rules)))
    asked = {kind: {task: [f"{kind[:-1]}.json"] for task in tasks} for kind in ("gains", "probes")}
    found = results(load_study(write(tmp_path, arms=arms, tasks=tasks, predictions={**asked, "beta": 0.1}), {}))
    of = found["gain_prediction"]
    assert len(of["cells"]) == 6
    assert {task: each["spearman"]["mean"] for task, each in of["by_task"].items()} == {"countdown": 1.0, "again": -1.0}
    assert "Prediction of the first update, again alone, against effect: no verdict from 3 cells" in of["sentences"][2]
    assert "of the arms that the probe has a prediction of, against effect: no verdict from 4 cells" in of["sentences"][3]
    assert of["on_the_same"]["spearman"]["mean"] == pytest.approx(0.0)
    assert len(found["prediction"]["sentences"]) == 3
    page = build_study_page(json.loads(json.dumps(found)), tmp_path / "page.html").read_text()
    assert all(sentence in page for sentence in of["sentences"])


def test_probes_that_cannot_be_read_are_refused(tmp_path):
    asked = {"probes": {"countdown": ["probe.json"]}, "beta": 0.1}
    with pytest.raises(BadInput, match=r"probe.json does not exist"):
        study(tmp_path, predictions=asked)
    (tmp_path / "probe.json").write_text('{"contexts": {"solution": {}}}')
    with pytest.raises(BadInput, match="holds no predictions of a probe"):
        results(study(tmp_path, predictions=asked))
    with pytest.raises(BadInput, match="did you mean 'countdown'"):
        study(tmp_path, predictions={**asked, "probes": {"countdwn": ["probe.json"]}})
    with pytest.raises(BadInput, match=r"predictions.gains: .*gain.json does not exist; dasd gain writes a gain.json"):
        study(tmp_path, predictions={"gains": {"countdown": ["gain.json"]}, "beta": 0.1})
    with pytest.raises(BadInput, match=r"probe.json holds no gains"):
        results(study(tmp_path, predictions={"gains": {"countdown": ["probe.json"]}, "beta": 0.1}))
    (tmp_path / "gain.json").write_text('{"gains": {"dasd"')
    with pytest.raises(BadInput, match=r"gain.json is cut off or no JSON .*: delete it and give the command"):
        results(study(tmp_path, predictions={"gains": {"countdown": ["gain.json"]}, "beta": 0.1}))


def test_studies_of_one_file_name_are_two_and_none_is_counted_twice(tmp_path):
    """One was begun before the gains, one after: by the file's name alone the second's times were taken for both."""
    right = {"grpo": 10, "dasd": 9, "novelty": 1}
    arms = {name: {"method": ARMS[name][0]} for name in right}
    for name, started in (("one", "2026-01-01T00:00:00+00:00"), ("two", "2026-01-03T00:00:00+00:00")):
        for each in all_cells(load_study(write(tmp_path / name, arms=arms), {})):
            answered(each, [1] * right[each.arm] + [0] * (20 - right[each.arm]))
            kept = json.loads((each.folder / "outcome.json").read_text())
            (each.folder / "outcome.json").write_text(json.dumps({**kept, "made": {"started": started}}))
    gains = {arm: {"mean": -count, "low": -count, "high": -count} for arm, count in right.items() if arm != "grpo"}
    (tmp_path / "one/gain.json").write_text(json.dumps({"gains": gains, "reference": "grpo"}))
    asked = {"gains": {"countdown": ["gain.json"]}, "beta": 0.1, "since": "2026-01-02T00:00:00Z"}

    def asking(**more):
        return load_study(write(tmp_path / "one", arms=arms, predictions={**asked, **more}), {})

    of = results(asking(also=["../two/study.yaml"]))["gain_prediction"]
    found = [(cell["study"], cell["arm"], cell["beforehand"]) for cell in of["cells"]]
    assert found == [(f"{name}/study", arm, name == "two") for name in ("one", "two") for arm in ("dasd", "novelty")]
    under_way = tmp_path / "two/out/countdown/dasd/seed-1"
    (under_way / "outcome.json").unlink()
    (under_way / "run.json").write_text(json.dumps({"started": "2026-01-01T12:00:00+00:00"}))
    later = results(asking(also=["../two/study.yaml"]))["gain_prediction"]
    assert [cell["beforehand"] for cell in later["cells"]] == [False, False, False, True]
    for twice in (["study.yaml"], ["../two/study.yaml", "../one/../two/study.yaml"]):
        with pytest.raises(BadInput, match=r"study.yaml would be counted twice"):
            asking(also=twice)
    write(tmp_path / "two", arms=arms, reference="dasd")
    with pytest.raises(BadInput, match=r"two/study.yaml compares with dasd, and this study with grpo"):
        asking(also=["../two/study.yaml"])


def test_a_gain_is_of_the_arm_that_has_its_name(tmp_path):
    given = study(tmp_path)
    for each in all_cells(given):
        answered(each, [1, 0])
    settings = {each.arm: told_apart_by(each.run_config({})) for each in all_cells(given)}
    end = {"mean": 0.1, "low": 0.0, "high": 0.2}

    def measured(**more):
        (tmp_path / "gain.json").write_text(json.dumps({"gains": {"dasd": end}, "reference": "grpo", **more}))
        return results(study(tmp_path, predictions={"gains": {"countdown": ["gain.json"]}, "beta": 0.1}))

    assert len(measured(settings=json.loads(json.dumps(settings)))["gain_prediction"]["cells"]) == 1
    assert len(measured()["gain_prediction"]["cells"]) == 1  # an older file
    settings["dasd"]["method"]["beta"] = 0.3
    with pytest.raises(BadInput, match=r"a gain of another dasd: method.beta is 0.3 there and 0.02 in"):
        measured(settings=settings)
    with pytest.raises(BadInput, match="holds gains over opsd's, and the study compares with grpo"):
        measured(reference="opsd")


def test_arms_that_were_begun_after_the_prediction_are_judged_alone(tmp_path):
    """An arm counts from its first run on, whose clock may stand elsewhere; one that does not say when came before."""
    begun = {
        "grpo": "2026-01-01T00:00:00+00:00", "dasd": "2026-01-01T11:00:00+00:00", "rlsd": None,
        "conformity": "2026-01-01T13:30:00+02:00", "novelty": "2026-01-01T12:30:00+00:00",
    }  # fmt: skip
    right = {"grpo": 10, "dasd": 9, "conformity": 14, "rlsd": 2, "novelty": 1}
    arms = {name: {"method": ARMS[name][0]} for name in right}
    cells = all_cells(load_study(write(tmp_path, arms=arms), {}))

    def write_starts():
        for each in cells:
            kept = json.loads((each.folder / "outcome.json").read_text())
            first = each.seed == 0 or each.arm != "novelty"
            started = begun[each.arm] if first else "2026-01-01T13:00:00+00:00"
            (each.folder / "outcome.json").write_text(json.dumps({**kept, "made": {"started": started}}))

    for each in cells:
        answered(each, [1] * right[each.arm] + [0] * (20 - right[each.arm]))
    write_starts()
    gains = {arm: {"mean": -count, "low": -count, "high": -count} for arm, count in right.items() if arm != "grpo"}
    (tmp_path / "gain.json").write_text(json.dumps({"gains": gains}))
    asked = {"gains": {"countdown": ["gain.json"]}, "beta": 0.1, "since": "2026-01-01T11:15:00Z"}

    def cells_beforehand(since):
        of = results(load_study(write(tmp_path, arms=arms, predictions={**asked, "since": since}), {}))["gain_prediction"]
        return of.get("beforehand", {}).get("sentence", "") or of["sentences"][-1]

    assert "of the arms of which no run had begun when it was on file, against effect: no verdict from 2 cells" in (
        cells_beforehand("2026-01-01T11:15:00Z")
    )
    assert "no verdict from 1 cell," in cells_beforehand("2026-01-01T11:30:00Z")
    assert cells_beforehand("2026-01-01T12:30:00Z") == "All of these 4 arms were begun before it was on file."
    assert "begun" not in cells_beforehand(None)
    begun["rlsd"] = "2026-01-01T11:00:00+00:00"
    write_starts()
    assert cells_beforehand("2026-01-01T10:59:59Z") == "All of these 4 arms were begun after it was on file."
