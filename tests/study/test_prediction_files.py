"""Are the files of predictions that a study names its own: of its arms, its tasks, and whole?"""

from __future__ import annotations

import json

import pytest

from dasd.analysis.first_order import told_apart_by
from dasd.config import BadInput
from dasd.study.cells import all_cells
from dasd.study.results import results
from study.test_study import answered, study

END = {"mean": 0.1, "low": 0.0, "high": 0.2}


def with_gains(folder, file, **changes):
    """Results of a study that is done, `file` being the gain.json that it names."""
    for each in all_cells(study(folder, **changes)):
        answered(each, [1, 0])
    (folder / "gain.json").write_text(json.dumps(file))
    return results(study(folder, **changes, predictions={"gains": {"countdown": ["gain.json"]}, "beta": 0.1}))


def settings_of(folder, **changes):
    return {each.arm: told_apart_by(each.run_config({})) for each in all_cells(study(folder, **changes))}


@pytest.mark.parametrize("broken", [None, {**END, "low": None}, {**END, "mean": "0.1"}, [0.1, 0.0, 0.2]])
def test_a_gain_that_is_no_number_is_said_with_its_file(tmp_path, broken):
    """dasd gain writes null where an end of the interval is not finite: the study ended in a TypeError."""
    with pytest.raises(BadInput, match=r"gain.json has no gain of dasd that is a number for each of mean, low, high"):
        with_gains(tmp_path, {"gains": {"grpo": END, "dasd": broken}, "reference": "grpo"})


def test_null_in_place_of_all_gains_or_settings(tmp_path):
    for file in (None, {"gains": None}):
        with pytest.raises(BadInput, match=r"gain.json holds no gains"):
            with_gains(tmp_path, file)
    kept = with_gains(tmp_path, {"gains": {"dasd": END}, "reference": "grpo", "settings": None})
    assert len(kept["gain_prediction"]["cells"]) == 1


def test_gains_over_another_reference_of_that_name_are_refused(tmp_path):
    """Every gain of the file is over it; only arms with a difference were looked at, and the reference has none."""
    settings = settings_of(tmp_path)
    file = {"gains": {"grpo": END, "dasd": END}, "reference": "grpo", "settings": settings}
    assert len(with_gains(tmp_path, file)["gain_prediction"]["cells"]) == 1
    settings["grpo"] = {**settings["grpo"], "method": {"name": "dapo"}}
    with pytest.raises(BadInput, match=r"a gain of another grpo: method.name is dapo there and grpo in"):
        with_gains(tmp_path, file)
