"""Does `dasd runs` tell what is in a folder: kinds, states, figures; as text, as JSON and as a page?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from dasd import cli
from dasd.config import BadInput, RunFailed
from dasd.folders import failure_on_file
from dasd.runs import list_runs
from evaluation.test_groups import quickstart, write
from report.chromium import CHROMIUM, Browser


def trained(folder: Path, method: str, seed: int, reward: float, finished: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "model:\n  path: org/base\ndata:\n  task: math\n  source: org/data\n  split: train\n"
        f"method:\n  name: {method}\n  beta: 0.5\n"
        f"training:\n  steps: 3\n  seed: {seed}\n"
    )
    (folder / "run.json").write_text(json.dumps({"started": "2026-11-25T10:00:00+00:00"}))
    steps = [{"step": step, "reward": reward * step / 3, "credit/teacher": 0.01} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    if finished:
        (folder / "result.json").write_text(json.dumps({"steps": 3, "weights_changed": True}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trained(tmp_path / "runs" / "a" / "grpo-1", "grpo", 1, 0.6)
    trained(tmp_path / "runs" / "a" / "dasd-10", "dasd", 10, 0.9)
    trained(tmp_path / "runs" / "dasd-2", "dasd", 2, 0.3, finished=False)
    broken = trained(tmp_path / "runs" / "broken", "dasd", 3, 0.3)
    (broken / "run.json").write_text("{")
    write(tmp_path / "runs" / "eval" / "x", [1, 2, 0])
    summary = {"num_samples": 2, "avg_at_2": 0.5, "truncated": 0.0, "ci95": {"avg_at_2": [0.2, 0.8], "truncated": [0.0, 0.7]}}
    (tmp_path / "runs" / "eval" / "x" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "runs"


def states(folder: Path) -> dict[str, str]:
    return {run["path"]: run["state"] for run in list_runs(folder)}


def test_every_run_is_found_once_with_its_state_and_last_figures(folder: Path) -> None:
    assert states(folder) == {
        "a/dasd-10": "finished", "a/grpo-1": "finished", "broken": "unreadable", "dasd-2": "stopped", "eval/x": "finished",
    }  # fmt: skip
    runs = {run["path"]: run for run in list_runs(folder)}
    run = runs["a/dasd-10"]
    assert (run["method"], run["settings"], run["model"], run["seed"]) == ("dasd", {"beta": 0.5}, "org/base", 10)
    assert (run["data"], run["steps"], run["planned"]) == ("org/data, train", 3, 3)
    assert run["figures"]["reward"]["mean"] == 0.9
    assert run["figures"]["teacher_share"]["mean"] == 0.01
    assert runs["eval/x"]["figures"]["avg_at_2"] == {"mean": 0.5, "low": 0.2, "high": 0.8}
    assert "run.json is not valid JSON" in runs["broken"]["why"]


def test_a_config_that_cannot_be_read_hides_no_run(folder: Path) -> None:
    (folder / "a" / "grpo-1" / "config.yaml").write_text("method:\n  name: grpo\ntraining: {steps: [")
    runs = {run["path"]: run for run in list_runs(folder)}
    assert runs["a/grpo-1"]["state"] == "finished"
    assert runs["a/grpo-1"]["method"] is None
    assert runs["a/dasd-10"]["method"] == "dasd"


def test_a_run_that_is_written_is_running_and_a_failed_one_says_why(folder: Path) -> None:
    with FileLock(folder / "dasd-2" / ".config.yaml.lock"):
        assert states(folder)["dasd-2"] == "running"
    assert states(folder)["dasd-2"] == "stopped"
    with pytest.raises(RunFailed), failure_on_file(folder / "dasd-2"):
        raise RunFailed("the gradient is not finite at step 2")
    runs = {run["path"]: run for run in list_runs(folder)}
    assert (runs["dasd-2"]["state"], runs["dasd-2"]["why"]) == ("failed", "the gradient is not finite at step 2")
    with failure_on_file(folder / "dasd-2"):
        pass  # the next try
    assert states(folder)["dasd-2"] == "stopped"


def test_a_quickstart_is_one_run_with_what_changed(tmp_path: Path) -> None:
    run = quickstart(tmp_path / "runs" / "q", "dasd", 1, [1, 2, 2, 2])
    side = {"avg_at_2": 0.5, "ci95": {"avg_at_2": [0.4, 0.6]}}
    difference = {"avg_at_2": {"mean": 0.2, "ci95": [0.1, 0.3], "p_value": 0.01}}
    (run / "summary.json").write_text(json.dumps({"before": side, "after": side | {"avg_at_2": 0.7}, "difference": difference}))
    (run / "result.json").write_text(json.dumps({"steps": 3}))
    (found,) = list_runs(tmp_path / "runs")  # its evaluations before and after are no runs of their own
    assert (found["path"], found["state"]) == ("q", "finished")
    assert found["change"] == {"figure": "avg_at_2", "mean": 0.2, "low": 0.1, "high": 0.3, "clear": True}
    assert "dasd" in found["method"]


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["runs", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [run["path"] for run in printed["runs"]] == [run["path"] for run in list_runs(folder)]
    assert printed["runs"][0]["page"] == "a/dasd-10/report.html"  # made, so that it can be clicked through to
    assert (folder / "a" / "dasd-10" / "report.html").is_file()
    assert cli.run(["runs", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "unreadable" in out
    assert "runs.html" in out.replace("\n", "")


def test_a_name_with_brackets_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path / "t[/x]", "dasd", 1, 0.5)
    assert cli.run(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "t[/x]" in out
    assert "\\[" not in out


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        list_runs(tmp_path / "absent")
    with pytest.raises(BadInput, match="holds no run"):
        list_runs(tmp_path)
    assert cli.run(["runs", str(tmp_path)]) == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is driven in a real browser")
def test_the_page_sorts_filters_and_links(folder: Path, tmp_path: Path) -> None:
    hostile = trained(folder / "<script>alert(1)</script>&#x", "dasd", 4, 0.1)
    assert hostile.is_dir()
    assert cli.run(["runs", str(folder)]) == 0
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(folder / "runs.html")
        rows = "[...document.querySelectorAll('#runs tbody tr')].filter(row => !row.hidden)"
        names = f"{rows}.map(row => row.cells[0].innerText.split('\\n')[0])"
        assert len(browser.run(names)) == 6
        browser.mouse("thead th:nth-child(6) button", click=True)  # seed
        seeds = "[...document.querySelectorAll('#runs tbody tr')].map(r => r.cells[5].innerText)"
        assert browser.run(seeds)[:4] == ["1", "2", "4", "10"]  # as numbers; what has none comes last
        browser.mouse("thead th:nth-child(6) button", click=True)
        assert browser.run(seeds)[0] == "10"
        assert browser.run("document.querySelector('[aria-sort]').innerText").startswith("Seed")
        browser.run("document.getElementById('words').value = 'grpo'")
        browser.run("document.getElementById('words').dispatchEvent(new Event('input'))")
        assert browser.run(names) == ["a/grpo-1"]
        browser.run("document.getElementById('words').value = ''")
        browser.mouse("[data-state=stopped]", click=True)
        assert browser.run(names) == ["dasd-2"]
        browser.mouse("[data-state=unreadable]", click=True)
        assert browser.run(names) == ["broken"]
        links = "[...document.querySelectorAll('#runs a')].map(a => a.getAttribute('href'))"
        for link in browser.run(links):
            assert browser.run(f"new URL({json.dumps(link)}, location.href).pathname").startswith(str(folder))
        assert browser.console == []
        browser.view(400, 900)
        assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    finally:
        browser.close()
