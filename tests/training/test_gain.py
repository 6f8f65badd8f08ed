"""`dasd gain`: the trainer's own updates at weights that stand still, on shared rollouts."""

import json
import shutil

import numpy as np
import pytest
import yaml

from dasd.assets import BASE_MODELS
from dasd.cli import run
from dasd.config import BadInput, ModelConfig, RunConfig, RunFailed, load_config
from dasd.models import weights_digest
from dasd.training import rewards
from dasd.training.gain import ROLLOUTS, SUMMARY, UPDATES, gains

BATCHES = 4
BASE = {
    "data": {"limit": 64},
    "training": {
        "rollouts_per_step": 32, "group_size": 8, "micro_batch_size": 16, "max_completion_length": 16, "lora_rank": 4,
        "lora_embeddings": True,
        "learning_rate": 1.0e-3, "eval_steps": 2, "trl": {"max_grad_norm": 0.01},
    },
}  # fmt: skip


def configs(tmp_path, **methods):
    found = {}
    for name, method in methods.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(BASE | {"method": method}))
        found[name] = file
    return found


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasd.analysis.first_order.DRAWS", 40)
        yield


def begins_low(completion_ids, **_):
    """Something that a few rollouts suffice to learn: which of three words a rollout begins with."""
    return [float(ids[0] < 300) for ids in completion_ids]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gain")
    files = configs(
        folder, grpo={"name": "grpo"}, nothing={"name": "dasd", "beta": 0}, conformity={"name": "conformity"},
        novelty={"name": "novelty"}, sdpo={"name": "sdpo"},
    )  # fmt: skip
    loaded = {name: load_config(RunConfig, file) for name, file in files.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "make_reward", lambda task, ends=(): begins_low)
        summary = gains(loaded, "grpo", folder / "out", BATCHES)
    return summary, {name: np.load(folder / "out" / name / UPDATES) for name in files}, folder


def test_updates_are_one_a_batch_of_all_that_is_trained(done):
    summary, updates, _ = done
    assert {of.shape for of in updates.values()} == {(BATCHES, summary["weights"])}
    assert summary["rollouts"] == BATCHES * 32
    assert all(np.linalg.norm(of, axis=1).min() > 0.02 for of in updates.values()), "clipped at 0.01, or nothing"


def test_without_weight_the_teacher_changes_nothing(done):
    summary, updates, _ = done
    np.testing.assert_allclose(updates["nothing"], updates["grpo"], atol=1e-6)
    assert summary["gains"]["nothing"]["mean"] == pytest.approx(0.0, abs=1e-3)


def test_two_teachers_of_opposite_sign_are_as_far_from_the_verifier(done):
    """So all updates come from the same weights and the same rollouts."""
    _, updates, _ = done
    there, back = (updates[name] - updates["grpo"] for name in ("conformity", "novelty"))
    assert np.abs(there).max() > 1e-3
    np.testing.assert_allclose(back, -there, atol=1e-4)


def test_a_method_that_compares_distributions_has_updates_too(done):
    summary, updates, _ = done
    assert np.abs(updates["sdpo"] - updates["grpo"]).max() > 1e-3
    assert np.isfinite(summary["gains"]["sdpo"]["mean"])


def test_what_is_on_file_is_not_made_again(done, monkeypatch):
    summary, _, folder = done
    monkeypatch.setattr("dasd.training.gain.build_trainer", lambda *args: pytest.fail("it trains again"))
    files = {name: load_config(RunConfig, folder / f"{name}.yaml") for name in ("grpo", "conformity")}
    again = gains(files, "grpo", folder / "out", BATCHES)
    assert again["gains"]["conformity"] == summary["gains"]["conformity"]
    on_file = json.loads((folder / "out" / SUMMARY).read_text())
    assert on_file["gains"] == summary["gains"], "those that were not asked again"
    assert on_file["settings"] == summary["settings"]
    assert len(json.loads((folder / "out" / ROLLOUTS).read_text())["batches"]) == BATCHES


def test_a_folder_of_other_settings_is_refused(done):
    _, _, folder = done
    files = {name: load_config(RunConfig, folder / f"{name}.yaml") for name in ("grpo", "conformity")}
    with pytest.raises(BadInput, match=r"other settings \(training.steps\)"):
        gains(files, "grpo", folder / "out", BATCHES + 1)
    assert not list((folder / "out").glob("*/tmp*")), "work that is left behind"


def test_rollouts_of_another_model_or_seed_are_refused(done, tmp_path):
    """Other names, so no config is claimed; the prompts would be the same."""
    _, _, folder = done
    files = {name: load_config(RunConfig, folder / "grpo.yaml", ["--training.seed", "7"]) for name in ("new", "newer")}
    with pytest.raises(BadInput, match=r"holds rollouts of another training.seed"):
        gains(files, "new", folder / "out", BATCHES)
    assert not (folder / "out" / "new").exists()


def test_a_wrong_model_leaves_nothing_that_is_in_the_way(tmp_path):
    files = configs(tmp_path, a={"name": "grpo"}, b={"name": "dasd"})
    wrong = {name: load_config(RunConfig, file, ["--model.path", "./no/such"]) for name, file in files.items()}
    with pytest.raises(BadInput, match=r"model\.path \./no/such does not exist"):
        gains(wrong, "a", tmp_path / "out", BATCHES)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    files = configs(tmp_path, grpo={"name": "grpo"}, dasd={"name": "dasd"}, ahead={"name": "lookahead"}, bad={"name": "dads"})
    one, two = str(files["grpo"]), str(files["dasd"])
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(BASE | {"training": {"group_size": 4}}))
    for words, said in (
        ([one, two, "--batches", "2"], "--batches must be at least 4"),
        ([one], "at least two configs"),
        ([one, str(files["ahead"])], "ahead: method lookahead finds its direction while it trains"),
        ([one, str(files["bad"])], "unknown method 'dads', did you mean 'dasd'"),
        ([one, one], "two configs are called grpo"),
        ([one, str(other)], "other and grpo have different training.rollouts_per_step"),
    ):
        assert run(["gain", *words, "--output", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def variants(tmp_path, **trainings):
    files = configs(tmp_path, reference={"name": "grpo"}, **{name: {"name": "dasd"} for name in trainings})
    for name, training in trainings.items():
        files[name].write_text(yaml.safe_dump(BASE | {"training": BASE["training"] | training}))
    return {name: load_config(RunConfig, file) for name, file in files.items()}


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"num_iterations": 2}, r"serves 2 steps.* set training.num_iterations: 1"),
        ({"trl": {"steps_per_generation": 6}}, r"serves 3 steps.* leave out training.trl.steps_per_generation"),
        ({"trl": {"generation_batch_size": 64}}, r"serves 2 steps.* leave out training.trl.generation_batch_size"),
        ({"trl": {"steps_per_generation": 2}, "rollouts_per_step": 48}, r"serves 2 steps"),  # three passes a step
    ],
)
def test_a_batch_of_rollouts_that_serves_several_steps_is_refused(tmp_path, training, said):
    """Its updates would share rollouts over the two sides that are to be independent."""
    with pytest.raises(BadInput, match=f"^torn: a batch of rollouts {said}"):
        gains(variants(tmp_path, torn=training), "torn", tmp_path / "out", BATCHES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("shuffle_dataset", False), ("steps_per_generation", 1), ("top_p", 0.9), ("generation_kwargs", {"x": 1})],
)
def test_other_rollouts_are_refused_with_what_differs(tmp_path, name, value):
    found = variants(tmp_path, other={"trl": {name: value}})
    key = "generation_batch_size" if name == "steps_per_generation" else name
    with pytest.raises(BadInput, match=rf"other and reference have different training\.trl\.{key} .* give both the same"):
        gains(found, "reference", tmp_path / "out", BATCHES)


def test_defaults_that_are_written_out_are_no_difference(tmp_path, monkeypatch):
    monkeypatch.setattr("dasd.training.gain._make_updates", lambda *args: pytest.fail("so far, so good"))
    found = variants(tmp_path, same={"trl": {"shuffle_dataset": True, "top_p": 1.0, "steps_per_generation": 2}})
    with pytest.raises(pytest.fail.Exception, match="so far"):
        gains(found, "reference", tmp_path / "out", BATCHES)


def test_a_folder_of_an_earlier_version_goes_on(done, tmp_path, monkeypatch):
    """It was refused once `data.columns` had one more entry: a learning rate of 0 is none that a run's config may have."""
    _, _, folder = done
    shutil.copytree(folder / "out", tmp_path / "out")
    on_file = json.loads((tmp_path / "out" / ROLLOUTS).read_text())
    del on_file["settings"]["data"]["columns"]["further"], on_file["settings"]["model"]["chat_template"]
    (tmp_path / "out" / ROLLOUTS).write_text(json.dumps(on_file))
    for path in (tmp_path / "out").glob("*/config.yaml"):
        said = yaml.safe_load(path.read_text())
        del said["data"]["columns"]["further"]
        path.write_text(yaml.safe_dump(said))
    shutil.rmtree(tmp_path / "out" / "novelty")
    files = {name: load_config(RunConfig, folder / f"{name}.yaml") for name in ("grpo", "conformity", "novelty")}
    monkeypatch.setattr("dasd.training.gain._share_rollouts", lambda trainer, known, place: pytest.fail(f"asks {place.name}"))
    with pytest.raises(pytest.fail.Exception, match="asks novelty"):
        gains(files, "grpo", tmp_path / "out", BATCHES)


def test_prompts_that_are_no_longer_those_on_file_say_so(done, tmp_path):
    """The data behind a name have changed: nothing that a config says, and deleting one method's folder would not help."""
    _, _, folder = done
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "novelty")
    on_file = json.loads((tmp_path / "out" / ROLLOUTS).read_text())
    on_file["batches"][0][0][0] = [1, 2, 3]
    (tmp_path / "out" / ROLLOUTS).write_text(json.dumps(on_file))
    files = {name: load_config(RunConfig, folder / f"{name}.yaml") for name in ("grpo", "novelty")}
    with pytest.raises(RunFailed, match=r"asks other problems than .*rollouts\.json holds.*give another --output"):
        gains(files, "grpo", tmp_path / "out", BATCHES)


def test_the_command_prints_a_table_and_figures(done, capsys):
    _, _, folder = done
    files = [str(folder / f"{name}.yaml") for name in ("grpo", "conformity", "nothing")]
    assert run(["gain", *files, "--batches", str(BATCHES), "--output", str(folder / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["gains"]["nothing"]["verdict"] == "undecided"
    assert "reference" in shown.err
    assert "128 rollouts of a model that does not move" in shown.err


def test_another_reference_holds_for_the_gains_of_before_too(done, tmp_path):
    _, _, folder = done
    shutil.copytree(folder / "out", tmp_path / "out")
    files = {name: load_config(RunConfig, folder / f"{name}.yaml") for name in ("nothing", "grpo")}
    found = gains(files, "nothing", tmp_path / "out", BATCHES)
    assert list(found["gains"]) == ["nothing", "grpo", "conformity", "novelty", "sdpo"]
    assert found["gains"]["nothing"]["verdict"] == "reference"
    assert found["gains"]["grpo"]["verdict"] != "reference"


def test_gains_whose_updates_are_gone_are_not_dropped_in_silence(done, tmp_path):
    _, _, folder = done
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out" / "novelty" / UPDATES).unlink()
    before = (tmp_path / "out" / SUMMARY).read_text()
    files = {name: load_config(RunConfig, folder / f"{name}.yaml") for name in ("grpo", "nothing")}
    with pytest.raises(BadInput, match=r"holds a gain of novelty, whose updates are gone: give novelty\.yaml too, .*delete"):
        gains(files, "grpo", tmp_path / "out", BATCHES)
    assert (tmp_path / "out" / SUMMARY).read_text() == before


def test_the_command_says_which_gains_are_of_before(done, capsys):
    _, _, folder = done
    files = [str(folder / f"{name}.yaml") for name in ("grpo", "conformity")]
    assert run(["gain", *files, "--batches", str(BATCHES), "--output", str(folder / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)["gains"]) == {"grpo", "conformity", "nothing", "novelty", "sdpo"}
    assert "On file from before: nothing, novelty, sdpo." in " ".join(shown.err.split())


def test_weights_that_changed_behind_their_path_are_refused(done, tmp_path, monkeypatch):
    """Old updates of one config would be compared with new ones of another, or old gains be given for the new model."""
    model = tmp_path / "m"
    shutil.copytree(BASE_MODELS["countdown"], model)
    files = configs(tmp_path, grpo={"name": "grpo"}, dasd={"name": "dasd"})
    loaded = {name: load_config(RunConfig, file, ["--model.path", str(model)]) for name, file in files.items()}
    shutil.copytree(done[2] / "out", out := tmp_path / "out")
    kept = json.loads((out / ROLLOUTS).read_text())
    assert kept["weights"] == weights_digest(loaded["grpo"].model), "the same weights at another path"
    kept["settings"]["model"]["path"] = str(model)
    shutil.rmtree(out / "grpo")  # another model's path
    (out / SUMMARY).unlink()
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    def asked():
        (out / ROLLOUTS).write_text(json.dumps(kept))
        return gains(loaded, "grpo", out, BATCHES)

    with pytest.raises(BadInput, match=r"out holds updates of other weights than .*/m has now: give another --output"):
        asked()
    del kept["weights"]  # a folder of an earlier version
    monkeypatch.setattr("dasd.training.gain._make_updates", lambda *args: pytest.fail("so far, so good"))
    with pytest.raises(pytest.fail.Exception, match="so far"):
        asked()


def test_an_adapters_weights_are_its_own_and_its_bases(tmp_path):
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    for folder, file in ((base, "model.safetensors"), (tuned, "adapter_model.safetensors")):
        folder.mkdir()
        (folder / file).write_bytes(b"one")
    (base / "config.json").write_text("{}")
    (tuned / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    found = {weights_digest(ModelConfig(path=str(tuned)))}
    for folder, file in ((base, "model.safetensors"), (tuned, "adapter_model.safetensors")):
        (folder / file).write_bytes(b"two")
        found.add(weights_digest(ModelConfig(path=str(tuned))))
    assert len(found) == 3
    (base / "README.md").write_text("no weights")
    assert weights_digest(ModelConfig(path=str(tuned))) in found
