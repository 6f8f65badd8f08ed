"""What does a person see while a run goes on: a line a step, a page that reloads itself, curves elsewhere by one word?"""

import json
import re
import threading

import pytest

from dasd.cli import run as command
from dasd.commands import report as report_command
from dasd.config import BadInput, RunConfig, make_config
from dasd.report import build_report
from dasd.training import arguments
from dasd.training.callbacks import headline


def test_the_line_of_a_step_says_what_was_logged_and_no_more():
    metrics = {
        "reward": 0.4161, "entropy": 0.2, "completions/mean_length": 51.5, "tokens_per_second": 1234.6, "credit/teacher": 0.014,
    }  # fmt: skip
    assert headline(metrics) == "reward 0.42, entropy 0.20, 52 tokens each, 1,235 tokens/s, teacher 1.4% of credit"
    assert headline({"reward": 0.0, "entropy": float("nan")}) == "reward 0.00"


def test_a_run_without_a_terminal_writes_a_line_a_step_and_a_page_that_reloads_itself(tmp_path, capsys, monkeypatch):
    pages = []
    monkeypatch.setattr(
        "dasd.training.callbacks.build_report", lambda run, live: pages.append(build_report(run, live).read_text())
    )
    settings = {
        "output": tmp_path / "run", "data.limit": 16, "training.steps": 3, "training.rollouts_per_step": 8,
        "training.group_size": 4, "training.micro_batch_size": 8, "training.max_completion_length": 16,
        "training.report_steps": 1,
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text("method: {name: grpo}\n")
    assert command(["train", str(path), *(f"--{key}={value}" for key, value in settings.items())]) == 0
    lines = re.findall(r"Training with grpo: (\d)/3,.* reward \d\.\d\d, entropy", capsys.readouterr().out)
    assert lines == ["1", "2", "3"]
    assert len(pages) == 2
    assert all('http-equiv="refresh"' in page for page in pages)
    assert 'http-equiv="refresh"' not in (tmp_path / "run" / "report.html").read_text()
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step.get("tokens_per_second", 1) > 0 for step in steps] == [True] * 3


def test_watch_writes_the_page_again_when_the_run_moves_on_and_ends_with_it(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    metrics = run / "metrics.jsonl"
    metrics.write_text('{"step": 1, "reward": 0.25}\n')
    monkeypatch.setattr(report_command, "SECONDS_BETWEEN_LOOKS", 0.05)
    watching = threading.Thread(target=command, args=(["report", str(run), "--watch"],), daemon=True)
    watching.start()

    def wait_for(*words):
        for _ in range(200):
            page = (run / "report.html").read_text() if (run / "report.html").exists() else ""
            if all(word in page for word in words):
                return True
            threading.Event().wait(0.05)
        return False

    assert wait_for("1 step.", 'http-equiv="refresh"')
    with metrics.open("a") as file:
        file.write('{"step": 2, "reward": 0.5}\n')
    assert wait_for("2 steps.", 'http-equiv="refresh"')
    (run / "result.json").write_text('{"steps": 2}')
    watching.join(20)
    assert not watching.is_alive()
    assert 'http-equiv="refresh"' not in (run / "report.html").read_text()


@pytest.mark.parametrize("name", ["trackio", "wandb", "tensorboard"])
def test_a_reporter_that_is_not_installed_is_said_before_anything_is_loaded(name, monkeypatch, tmp_path):
    monkeypatch.setattr(arguments, "find_spec", lambda package: None)
    config = make_config(RunConfig, {"output": str(tmp_path / "run")}, ["--training.report_to", name])
    with pytest.raises(BadInput, match=rf"report_to {name} needs the package {name}.*pip install {name}"):
        arguments.trainer_arguments(config)


def test_project_and_run_are_named_after_the_output_folder(monkeypatch):
    monkeypatch.setattr(arguments, "find_spec", lambda package: object())
    config = make_config(RunConfig, {"output": "experiments/first"}, ["--training.report_to", "trackio,wandb"])
    told = arguments.trainer_arguments(config)
    assert (told.project, told.run_name, told.report_to) == ("experiments", "first", ["trackio", "wandb"])
