"""What does a newcomer see? Every command as typed, with typing errors: one message, the right exit code, no traceback."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from dasd.cli import build_parser, run
from dasd.config import EvalConfig, load_config


def test_help_is_fast_and_names_the_commands():
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dasd.cli", "--help"], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    assert all(name in done.stdout for name in ("quickstart", "train", "eval", "report", "doctor"))
    assert seconds < 5, "no heavy import may hide behind --help"  # a second on an idle machine


def test_help_of_a_command_lists_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit):
        run(["train", "--help"])
    text = capsys.readouterr().out
    assert "--training.learning_rate" in text
    assert "[1e-06]" in text
    assert "--data.columns.solution" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train"], "config"),
        (["train", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["train", "{config}", "--training.stepps", "3"], "did you mean 'steps'"),
        (["train", "{config}", "--trainin.steps", "3"], "did you mean 'training'"),
        (["train", "{config}", "--training.steps", "many"], "got 'many'"),
        (["train", "{config}", "--training.steps"], "needs a value"),
        (["train", "{config}", "--method.beta", "-1"], "beta must be at least 0"),
        (["train", "{config}", "--training.group_size", "7"], "multiple of group_size (7)"),
        (["train", "{config}", "--data.source", "rows.jsonl"], "rows.jsonl does not exist"),
        (["train", "{config}", "--data.source", "{rows}"], "no column 'problem', did you mean 'problems'?"),
        (["train", "{config}", "--data.source", "{rows}", "--data.columns.problem", "problems"], "no problem has a reference"),
        (["eval", "./no-model"], "./no-model does not exist"),
        (["eval", "bundled", "--num-sample", "3"], "did you mean 'num_samples'"),
        (["eval", "bundled", "--max_completion_length", "510"], "--max_completion_length to"),
        (["report", "nowhere"], "nowhere"),
        (["doctor", "{config}", "--method.name", "dsad"], None),
        (["train", "--training.stepps", "3", "{config}"], "did you mean 'steps'"),
        (["train", "--training.steps", "-1", "{config}"], "steps"),
        (["train", "--model.path", "bundled"], "required: config"),
        (["eval", "--num_samples", "none", "bundled"], "num_samples"),
        (["compare", "--most", "3"], "required: RUN"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("method:\n  name: dasd\noutput: run\n")
    row = {"problems": "Use 3 7 8 to make 29.", "answer": "29", "solution": ""}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    words = [word.format(config="config.yaml", rows="mine.jsonl") for word in arguments]
    try:
        code = run(words)
    except SystemExit as stopped:
        code = stopped.code
    captured = capfd.readouterr()
    assert code == 2
    assert "Traceback" not in captured.err
    if message is not None:
        assert captured.err.startswith("dasd: ")
        assert message in captured.err
    assert not (tmp_path / "run").exists()


def test_settings_may_stand_before_what_they_are_settings_of():
    words = ["train", "--training.steps", "3", "--method.beta", "0.2", "c.yaml", "--dry-run", "--processes", "2"]
    known, overrides = build_parser().parse_known_args(words)
    assert (str(known.config), known.dry_run, known.processes) == ("c.yaml", True, 2)
    assert overrides == ["--training.steps", "3", "--method.beta", "0.2"]
    known, overrides = build_parser().parse_known_args(
        ["eval", "--data.columns", "{problem: a=b}", "x", "y", "--out", "z", "--seed", "-1"]
    )
    assert (known.model, str(known.output), overrides) == (
        ["x", "y"],
        "z",
        ["--data.columns", "{problem: a=b}", "--seed", "-1"],
    )
    assert load_config(EvalConfig, None, ["--data.columns={problem: a=b}"]).data.columns.problem == "a=b"


def test_doctor_shows_both_prompts(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"output: {tmp_path / 'run'}\ndata:\n  limit: 20\ntraining:\n  max_completion_length: 96\n")
    assert run(["doctor", str(config)]) == 0
    text = capsys.readouterr().out
    assert "what the student sees" in text
    assert "Reference solution: " in text
    assert text.rstrip().endswith("Ready.")


def test_eval_writes_samples_once_and_goes_on_after_a_kill(tmp_path):
    """A file cut off in the middle of a line ends as the uninterrupted one, each sample once."""
    words = [
        "eval",
        "bundled",
        "--num_samples",
        "4",
        "--data.limit",
        "6",
        "--max_completion_length",
        "32",
        "--sampler.batch_size",
        "8",
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run([*words, "--output", str(whole)]) == 0
    cut.mkdir()
    (cut / "eval.json").write_text((whole / "eval.json").read_text())
    text = (whole / "samples.jsonl").read_text()
    (cut / "samples.jsonl").write_text(text[: int(len(text) * 0.55)])
    assert run([*words, "--output", str(cut)]) == 0
    first, second = ([json.loads(line) for line in (p / "samples.jsonl").read_text().splitlines()] for p in (whole, cut))
    key = lambda r: (r["problem_id"], r["sample"])  # noqa: E731
    assert len({key(record) for record in first}) == 24
    assert sorted(first, key=key) == sorted(second, key=key)
    assert json.loads((whole / "summary.json").read_text()) == json.loads((cut / "summary.json").read_text())
    assert run([*words, "--output", str(cut), "--seed", "1"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tokens", "x", "--checkpoint", "fina"], ["--checkpoint", "'fina'", "did you mean 'final'?"]),
        (["train", "x.yaml", "--dry-run", "--sharding", "fsdp"], ["--sharding", "'fsdp'", "did you mean 'fsdp2'?"]),
        (["trian"], ["unknown command 'trian'", "did you mean 'train'?", "Commands: quickstart"]),
    ],
)
def test_a_wrong_choice_names_its_option_and_the_nearest_value(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(arguments)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert all(word in message for word in words)
    assert ("command" in message) == (arguments == ["trian"])


def test_version_is_said(capsys):
    with pytest.raises(SystemExit) as stop:
        run(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(r"dasd \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_help_of_the_quickstart_shows_the_quickstarts_own_settings(capsys):
    with pytest.raises(SystemExit):
        run(["quickstart", "--help"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("--")}
    assert lines["--output"].endswith("[runs/quickstart]")
    assert lines["--training.steps"].endswith("[12]")
    assert lines["--training.learning_rate"].endswith("[0.001]")


INTERRUPTED = """\
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # not so where the tests run in the background of a script
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("module", ["pydantic", "torch"])
def test_ctrl_c_while_it_is_being_loaded_is_no_traceback(tmp_path, module):
    """The first import of a package is interrupted: of one at the top of the command line, and of one that a command needs."""
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text(INTERRUPTED)
    (tmp_path / "config.yaml").write_text(f"output: {tmp_path / 'run'}\n")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "dasd", "train", str(tmp_path / "config.yaml")], env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("dasd: stopped")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge.base_url", "http://127.0.0.1:9", "--judge.model", "m"], "--regrade asks no judge"),
        (["--shard", "1/2"], "--regrade grades all samples on file"),
    ],
)
def test_regrade_refuses_what_it_would_pass_over(tmp_path, capfd, options, message):
    """Neither did anything, and the command ended with 0."""
    assert run(["eval", "bundled", "--output", str(tmp_path), "--regrade", *options]) == 2
    assert message in capfd.readouterr().err


def test_watching_a_run_that_failed_ends(tmp_path, capfd):
    (tmp_path / "config.yaml").write_text("training: {steps: 5}\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    (tmp_path / "failure.json").write_text('{"error": "disk full"}')
    assert run(["report", str(tmp_path), "--watch"]) == 0
    assert "report.html" in capfd.readouterr().out
