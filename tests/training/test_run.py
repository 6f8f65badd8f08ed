"""Does `train` leave what it promises, refuse what is wrong before writing anything, and survive being killed?"""

import json
import math
import re
import shutil
import subprocess

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from dasd.assets import BASE_MODEL
from dasd.cli import run as command
from dasd.config import BadInput, DataConfig, RunConfig, dump_config, validate
from dasd.data.problems import as_row, load_problems
from dasd.prompts import tokenize_prompt
from dasd.tasks.math import MathTask
from dasd.teacher.context import PrivilegedContext
from dasd.training import callbacks, checkpoints, rewards, run
from dasd.training.arguments import trainer_arguments


def small(output, **training):
    """Two optimisation steps' worth of settings on the bundled model."""
    settings = {
        "steps": 4, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 4, "learning_rate": 1e-4,
        "max_completion_length": 24, "save_steps": 2,
    }  # fmt: skip
    return validate(RunConfig, {"output": str(output), "data": {"limit": 20}, "training": settings | training})


def lines(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "whole"
    run.train(small(output))
    return output


def test_a_run_leaves_its_files(finished):
    assert [line["step"] for line in lines(finished)] == [1, 2, 3, 4]
    record = json.loads((finished / "run.json").read_text())
    assert {"versions", "seed", "command", "hardware", "git_revision", "chat_template_sha256"} <= set(record)
    assert (finished / "config.yaml").exists()
    assert all(math.isfinite(line["loss"]) for line in lines(finished))


def test_the_trained_model_loads_in_plain_transformers_and_has_moved(finished):
    folder = finished / "checkpoints" / "final"
    trained, base = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, BASE_MODEL))
    moved = [(a - b).abs().max().item() for a, b in zip(trained.parameters(), base.parameters(), strict=True)]
    assert 0 < max(moved) < 0.01
    assert AutoTokenizer.from_pretrained(folder).chat_template


@pytest.mark.parametrize("killed_at", [2, 3])
def test_a_killed_run_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch, killed_at):
    """Killed in the middle of a step: the resumed run's metrics are the uninterrupted run's."""

    class Killed(BaseException):
        pass

    original = callbacks.MetricsWriter.on_log

    def die(self, args, state, control, logs=None, **kwargs):
        original(self, args, state, control, logs, **kwargs)
        if state.global_step == killed_at:
            raise Killed

    output = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.MetricsWriter, "on_log", die)
        with pytest.raises(Killed):
            run.train(small(output))
    assert not (output / "checkpoints" / "final").exists()
    run.train(small(output))
    whole = lines(finished)
    resumed = lines(output)
    assert [line["step"] for line in resumed] == [1, 2, 3, 4]
    for first, second in zip(whole, resumed, strict=True):
        for name in ("loss", "reward", "gap/abs", "entropy", "credit/repelled", "grad_norm"):
            assert second[name] == pytest.approx(first[name], abs=1e-6), name


def test_a_finished_run_is_left_alone(finished):
    before = (finished / "metrics.jsonl").read_bytes()
    final = run.train(small(finished))
    assert final == finished / "checkpoints" / "final"
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_says_so_and_what_to_raise(finished, caplog):
    with caplog.at_level("INFO", logger="dasd"):
        run.train(small(finished))
    [said] = [record.getMessage() for record in caplog.records]
    assert f"{finished} is finished: all 4 steps are made. Raise training.steps" in said


@pytest.mark.parametrize("scheduler", ["constant_with_warmup", "cosine"])
def test_more_steps_go_on_from_where_the_run_ended(finished, tmp_path, caplog, scheduler):
    """Two steps and then four are four, where the learning rate does not follow the number of steps; else that is said."""
    output, trl = tmp_path / "run", {"trl": {"lr_scheduler_type": scheduler}}
    run.train(small(output, steps=2, **trl))
    two = json.loads((output / "result.json").read_text())
    first = (output / "checkpoints" / "final" / "model.safetensors").read_bytes()
    with caplog.at_level("INFO", logger="dasd"):
        run.train(small(output, steps=4, **trl))
    assert f"Goes on from step 2 of 4 ({output}/checkpoints/checkpoint-2)." in caplog.text
    assert ("training.steps was raised from 2" in caplog.text) == (scheduler == "cosine")
    assert (two["steps"], json.loads((output / "result.json").read_text())["steps"]) == (2, 4)
    assert "steps: 4\n" in (output / "config.yaml").read_text()
    assert (output / "checkpoints" / "final" / "model.safetensors").read_bytes() != first
    assert [line["step"] for line in lines(output)] == [1, 2, 3, 4]
    with pytest.raises(BadInput, match="can be raised alone, and never lowered"):
        run.train(small(output, steps=3, **trl))
    if scheduler != "cosine":
        for one, two in zip(lines(finished), lines(output), strict=True):
            assert all(two[name] == pytest.approx(one[name], abs=1e-6) for name in ("loss", "reward", "entropy", "grad_norm"))


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (1, r"stopped before the first checkpoint \(training.save_steps: 2\): the same command begins again"),
        (3, "stopped; the same command goes on from step 2, the last checkpoint"),
    ],
)
def test_a_run_that_is_stopped_says_where_it_stands(tmp_path, monkeypatch, capfd, at, said):
    output = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(dump_config(small(output)))
    original = callbacks.MetricsWriter.on_log

    def stop(self, args, state, control, logs=None, **kwargs):
        original(self, args, state, control, logs, **kwargs)
        if state.global_step == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.MetricsWriter, "on_log", stop)
    assert command(["train", str(tmp_path / "config.yaml")]) == 1
    assert re.search(said, capfd.readouterr().err)


def test_a_step_shows_what_it_is_at(tmp_path):
    """A run of one step of two batches: its rollouts token by token, the teacher's pass, the training pass."""
    config, notes = small(tmp_path / "run", steps=1, max_completion_length=5), []
    model, tokenizer, problems, task = run.prepare(config)
    trainer = run.build_trainer(config, model, tokenizer, problems, task)
    trainer.add_callback(callbacks.SignsOfLife(trainer, lambda count, note: notes.append((count, note))))
    trainer.train()
    assert {count for count, _ in notes} == {0}
    told = [note.removeprefix("step 1 ") for _, note in notes]
    assert told[:5] == [
        "begins",
        *(f"writes 8 rollouts, token {token}" for token in (1, 2, 3, 4)),
    ]  # the prompt gives the first
    assert told[5] == "scores rollouts"
    assert told[-2:] == ["learns", "learns"]


@pytest.mark.parametrize(
    ("variable", "value", "trl", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", {}, "the launcher asks for FSDP, and on CPUs accelerate leaves it out"),
        ("ACCELERATE_USE_DEEPSPEED", "true", {"use_cpu": True}, "the launcher asks for DeepSpeed, and on CPUs"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", {}, "mixed precision is bf16, and the run's none: set training.trl.bf16: true"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", {"bf16": True}, "fp16, and the run's bf16: .* --mixed_precision bf16"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", {"bf16": True}, None),
        ("ACCELERATE_MIXED_PRECISION", "no", {"bf16": True}, None),
        ("ACCELERATE_USE_FSDP", "false", {}, None),
    ],
)
def test_what_the_launcher_asks_for_is_not_passed_over(tmp_path, monkeypatch, variable, value, trl, message):
    monkeypatch.setenv(variable, value)
    config = small(tmp_path / "run", trl=trl)
    if message is None:
        assert trainer_arguments(config).bf16 == bool(trl.get("bf16"))
        return
    with pytest.raises(BadInput, match=message):
        trainer_arguments(config)


def test_an_optimiser_that_is_not_installed_is_bad_input(tmp_path):
    config = small(tmp_path / "run", trl={"optim": "stable_adamw"})
    with pytest.raises(BadInput, match="torch-optimi"):
        run.train(config)
    assert not (tmp_path / "run").exists()


def test_the_revision_is_dasds_own_and_not_that_of_the_project_it_is_installed_in(tmp_path, monkeypatch):
    from dasd.training import provenance

    module = tmp_path / ".venv/lib/python3.11/site-packages/dasd/training/provenance.py"
    module.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    told = ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "theirs"]
    subprocess.run(["git", "-C", tmp_path, *told], check=True)
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.software()["git_revision"] is None


def test_versions_are_of_what_was_used(tmp_path):
    from importlib.metadata import version

    from dasd.training.provenance import provenance, software

    class Tokenizer:
        chat_template = ""

    plain = provenance(small(tmp_path), Tokenizer)["versions"]
    assert "peft" not in plain
    assert provenance(small(tmp_path, lora_rank=4), Tokenizer)["versions"] == plain | {"peft": version("peft")}
    assert software(["no_such_module_here"])["versions"] == plain
    assert software(["yaml"])["versions"]["yaml"] == version("PyYAML")  # the module's name and its distribution's differ


def test_a_folder_of_another_run_is_refused(finished):
    with pytest.raises(BadInput, match=r"other settings \(training.learning_rate\)"):
        run.train(small(finished, learning_rate=2e-4))


def test_a_checkpoint_that_was_cut_off_is_passed_over(finished, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(finished / "checkpoints" / "checkpoint-2", folder / "checkpoint-2")
    shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-10")
    state = folder / "checkpoint-10" / "trainer_state.json"
    assert checkpoints.last_checkpoint(folder).name == "checkpoint-10"
    state.write_text(state.read_text()[:50])
    assert checkpoints.last_checkpoint(folder).name == "checkpoint-2"
    state.unlink()
    assert checkpoints.last_checkpoint(folder).name == "checkpoint-2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": {"name": "dsad"}}, "did you mean 'dasd'"),
        ({"method": {"betta": 1}}, "did you mean 'beta'"),
        ({"method": {"rho": 3}}, "rho must lie between 0 and 1"),
        ({"method": {"beta": "much"}}, "beta"),
        ({"teacher": {"template": "no placeholders"}}, "{problem} and {context}"),
        ({"model": {"path": "./nowhere"}}, "does not exist"),
        ({"data": {"source": "nowhere.jsonl"}}, "does not exist"),
        ({"training": {"trl": {"learning_rate": 1}}}, "set by dasd itself"),
        ({"training": {"trl": {"epsilonn": 1}}}, "did you mean 'epsilon'"),
        ({"training": {"num_iterations": 3}}, "try training.save_steps: 3"),
        ({"training": {"max_completion_length": 500}}, "training.max_completion_length to"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, change, message):
    output = tmp_path / "run"
    values = small(output).model_dump() | {"method": {"name": "dasd"}}
    for section, settings in change.items():
        values[section] = values[section] | settings
    with pytest.raises(BadInput) as caught:
        run.train(validate(RunConfig, values))
    assert message in str(caught.value)
    assert not output.exists()


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_model_folder_that_lacks_a_file_is_refused(tmp_path, missing):
    folder = tmp_path / "model"
    shutil.copytree(BASE_MODEL, folder)
    (folder / missing).unlink()
    values = small(tmp_path / "run").model_dump() | {"model": {"path": str(folder)}}
    with pytest.raises(BadInput, match="no weights" if missing == "model.safetensors" else r"no config\.json"):
        run.train(validate(RunConfig, values))


def test_a_torn_weights_file_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(BASE_MODEL, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    values = small(tmp_path / "run").model_dump() | {"model": {"path": str(folder)}}
    with pytest.raises(BadInput, match="cannot be loaded"):
        run.train(validate(RunConfig, values))


def test_a_failed_grader_gives_no_reward_instead_of_zero():
    from dasd.tasks.base import Grade, GradeStatus

    class Broken:
        def grade_all(self, pairs):
            return [Grade(GradeStatus.GRADER_ERROR if text == "x" else GradeStatus.CORRECT) for _, text in pairs]

    reward = rewards.make_reward(Broken())
    columns = {name: ["a", "b"] for name in ("id", "problem", "answer", "solution")}
    completions = [[{"content": "x"}], [{"content": "y"}]]
    assert reward(completions=completions, **columns) == [None, 1.0]  # a dataset without hints
    logged = {}
    reward(completions=completions, **columns, log_metric=logged.__setitem__)
    assert logged == {"grades/no_answer": 0.0, "grades/undecided": 0.0, "grades/grader_error": 0.5}
    assert reward(completions=completions, **columns, hint=[None, "h"]) == [None, 1.0]


def test_what_was_cut_off_or_cannot_be_decided_earns_nothing():
    reward = rewards.make_reward(MathTask(), ends={9})
    columns = {name: [text] * 4 for name, text in (("id", "a"), ("problem", "How many?"), ("answer", r"7 \text{ apples}"))}
    texts = ["so 7", "so 7", r"\boxed{7 \text{ pears}}", r"\boxed{7}"]
    completions, logged = [[{"content": text}] for text in texts], {}
    ids = [[1, 9], [1, 2], [1, 9], [1, 2]]
    assert reward(completions=completions, completion_ids=ids, log_metric=logged.__setitem__, **columns) == [
        1.0,
        0.0,
        None,
        1.0,
    ]
    assert logged == {"grades/no_answer": 0.25, "grades/undecided": 0.25, "grades/grader_error": 0.0}
    assert reward(completions=completions, **columns) == [1.0, 1.0, None, 1.0]  # token ids are not known


def test_room_for_a_peer_is_kept_only_where_a_peer_is_told():
    """Under `rlcsd` each of several hints is looked at; of one peer the second is the row's own solution, and no peer."""
    context, tokenizer = PrivilegedContext("peer_else_solution"), AutoTokenizer.from_pretrained(BASE_MODEL)
    rows = [as_row(problem) for problem in load_problems(DataConfig(limit=4))]
    told, own = (max(len(tokenize_prompt(tokenizer, context.prompt(row, peers))) for row in rows) for peers in (["a peer"], ()))
    longest = (512 - told) // 2  # the peer, and the completion after it
    assert own > told + 1
    values = {"method": {"name": "rlcsd"}, "teacher": {"context": "peer_else_solution"}, "data": {"limit": 4}}
    sizes = {"rollouts_per_step": 16, "group_size": 4, "micro_batch_size": 16}
    run.prepare(validate(RunConfig, values | {"training": sizes | {"max_completion_length": longest}}))
    with pytest.raises(BadInput, match="prompts are too long"):
        run.prepare(validate(RunConfig, values | {"training": sizes | {"max_completion_length": longest + 1}}))
