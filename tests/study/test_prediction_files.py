"""Are the files of predictions that a study names its own: of its arms, its tasks, and whole?"""

from __future__ import annotations

import json

import pytest

from dasd.analysis.first_order import told_apart_by
from dasd.config import BadInput, RunConfig
from dasd.config.core import make_config
from dasd.study.cells import all_cells
from dasd.study.predicted import _is_of_that_arm
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


def test_a_gain_of_another_loss_is_of_another_arm(tmp_path):
    """All of `training` was left out, though loss and rewards make the update."""
    said = {"training": {"loss_type": "cispo", "trl": {"beta": 0.04, "optim": "sgd"}}}
    arms = {"grpo": {"method": {"name": "grpo"}}, "dasd": {"method": {"name": "dasd"}, **said}}
    plain = {name: {"method": arm["method"]} for name, arm in arms.items()}
    own, other = settings_of(tmp_path / "own", arms=arms), settings_of(tmp_path / "other", arms=plain)
    file = {"gains": {"grpo": END, "dasd": END}, "reference": "grpo"}
    found = with_gains(tmp_path / "kept", {**file, "settings": json.loads(json.dumps(own))}, arms=arms)
    assert len(found["gain_prediction"]["cells"]) == 1
    with pytest.raises(BadInput, match=r"a gain of another dasd: training.loss_type is dapo there and cispo in"):
        with_gains(tmp_path / "loss", {**file, "settings": other}, arms=arms)
    other["dasd"]["training"]["loss_type"] = "cispo"
    with pytest.raises(BadInput, match=r"a gain of another dasd: training.trl.beta is None there and 0.04 in"):
        with_gains(tmp_path / "trl", {**file, "settings": other}, arms=arms)
    for settings in other.values():
        del settings["training"]  # an older file
    assert len(with_gains(tmp_path / "old", {**file, "settings": other}, arms=arms)["gain_prediction"]["cells"]) == 1


def test_what_does_not_change_the_first_update_is_no_other_arm(tmp_path):
    idle = {
        "steps": 7, "seed": 3, "learning_rate": 0.5, "warmup_steps": 2, "save_steps": 3, "eval_steps": 4, "report_steps": 5,
        "rollouts_per_step": 64, "micro_batch_size": 4, "lora_alpha": 5.0,
        "trl": {"optim": "sgd", "lr_scheduler_type": "cosine"},
    }  # fmt: skip
    plain = {"method": {"name": "dasd"}}
    assert told_apart_by(make_config(RunConfig, plain)) == told_apart_by(make_config(RunConfig, {**plain, "training": idle}))
    for key, value in {
        "rewards": ["mine.py:f"], "overlong_buffer": 0.5, "temperature": 0.7, "dynamic_sampling": 2, "lora_rank": 4,
        "trl": {"scale_rewards": "none"},
    }.items():  # fmt: skip
        other = make_config(RunConfig, {**plain, "training": {key: value}})
        assert told_apart_by(other) != told_apart_by(make_config(RunConfig, plain)), key


def test_a_search_of_the_loss_that_is_open_says_nothing_of_it_yet(tmp_path):
    search = {"grid": {"training.loss_type": ["cispo", "dapo"]}, "seeds": [9], "evaluation": {"split": "validation"}}
    file = {"gains": {"grpo": END, "dasd": END}, "reference": "grpo", "settings": settings_of(tmp_path)}
    for each in all_cells(given := study(tmp_path, search=search)):
        if each.candidate is None:
            answered(each, [1, 0])
    row = {"task": "countdown", "arm": "dasd"}
    _is_of_that_arm(tmp_path / "gain.json", file, given, row)


def test_a_probe_is_of_the_task_and_model_that_it_is_given_for(tmp_path):
    """Countdown's were taken for Products'."""
    for each in all_cells(given := study(tmp_path)):
        answered(each, [1, 0])
    model = all_cells(given)[0].run_config({}).model.path
    rules = {"contexts": {"solution": {"rules": []}}}

    def probed(**said):
        (tmp_path / "probe.json").write_text(json.dumps({**said, **rules}))
        return results(study(tmp_path, predictions={"probes": {"countdown": ["probe.json"]}, "beta": 0.1}))

    for said in ({}, {"task": "countdown", "model": f"{model}/"}):  # an older file; a folder as the shell completes it
        assert "prediction" in probed(**said)
    with pytest.raises(BadInput, match=r"probe.json is a probe of data.task products, and countdown in .* has countdown"):
        probed(task="products", model=model)
    with pytest.raises(BadInput, match=rf"probe.json is a probe of model.path mine, and countdown in .* has {model}"):
        probed(task="countdown", model="mine")
