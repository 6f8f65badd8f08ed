"""What does a notebook show of a run and of an evaluation: the files' figures, and nothing that a file can break?"""

import json
import subprocess
import sys

import pytest

from dasd import Evaluation, Run

SUMMARY = {
    "num_problems": 10,
    "num_samples": 4,
    "before": {"avg_at_4": 0.25, "ci95": {"avg_at_4": [0.2, 0.3]}},
    "after": {"avg_at_4": 0.5, "ci95": {"avg_at_4": [0.4, 0.6]}},
    "difference": {"avg_at_4": {"mean": 0.25, "ci95": [0.15, 0.35]}},
}
STEPS = '{"step": 1, "reward": 0.25}\n{"step": 2, "reward": 0.5, "entropy": 0.3}\n{"step": 3, "rew'  # killed while it wrote


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("method: {name: dasd}\ntraining: {steps: 2}\n")
    (tmp_path / "metrics.jsonl").write_text(STEPS)
    return tmp_path


def test_a_run_is_its_files(folder):
    run = Run(folder)
    assert run.series("reward") == [0.25, 0.5]
    assert run.series("entropy") == [None, 0.3]
    assert repr(run) == f"Run({str(folder)!r}: dasd, step 2 of 2, reward 0.50)"
    with pytest.raises(KeyError, match="logged: entropy, reward, step"):
        run.series("rewards")
    (folder / "result.json").write_text(json.dumps({"steps": 2}))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    assert "finished" in repr(run)
    html = run._repr_html_()
    assert "<td>25.0 %</td><td>50.0 %</td><td><b>+25.0 points <small>[+15.0, +35.0]</small></b></td>" in html


def test_text_of_files_is_shown_as_text(folder):
    (folder / "config.yaml").write_text("method: {name: '<script>alert(1)</script>'}\n")
    assert "<script>" not in Run(folder)._repr_html_()


def test_an_evaluation_is_its_files(tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"problem_id": "1", "sample": 0, "text": "4"}\n')
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        Evaluation(tmp_path)
    summary = {"model": "mine", "benchmark": "math500", "avg_at_4": 0.5, "ci95": {"avg_at_4": [0.4, 0.6]}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    evaluation = Evaluation(tmp_path)
    assert [sample["text"] for sample in evaluation.samples] == ["4"]
    assert "Avg@4 50.0 %" in repr(evaluation)
    assert "<h4>mine on math500</h4>" in evaluation._repr_html_()
    assert "<td>50.0 % <small>[40.0, 60.0]</small></td>" in evaluation._repr_html_()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no run folder"):
        Run(tmp_path)


def test_neither_loads_torch():
    code = "import sys, dasd; dasd.Run; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
