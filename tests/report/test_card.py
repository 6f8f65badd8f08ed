"""Does a model card say what was done, from the run's files?"""

import yaml

from dasd.credit import METHODS
from dasd.report import write_card
from dasd.report.data.facts import data_line
from dasd.report.data.inputs import RunFiles
from dasd.report.data.methods import formula_of, settings_of
from dasd.training.cards import license_of

CONFIG = {
    "output": "runs/mine",
    "model": {"path": "Qwen/Qwen3-1.7B"},
    "data": {"source": "problems.jsonl", "split": "train", "task": "math"},
    "teacher": {"weights": "live", "context": "solution"},
    "method": {"name": "dasd", "beta": 0.05},
    "training": {"steps": 200, "rollouts_per_step": 128, "group_size": 8, "learning_rate": 1e-6, "lora_rank": 0},
}
SUMMARY = {
    "num_problems": 200,
    "num_samples": 16,
    "before": {"avg_at_16": 0.35, "ci95": {"avg_at_16": [0.32, 0.38]}},
    "after": {"avg_at_16": 0.45, "ci95": {"avg_at_16": [0.42, 0.48]}},
    "difference": {"avg_at_16": {"mean": 0.1, "ci95": [0.08, 0.12]}},
}
RUN = {
    "model": "Qwen/Qwen3-1.7B",
    "seed": 3,
    "command": "dasd train mine.yaml",
    "python": "3.11",
    "versions": {"trl": "1.16.0"},
}


def card(tmp_path, folder="final", **files):
    (tmp_path / folder).mkdir()
    record = RunFiles(config=yaml.safe_dump(CONFIG), run=files.pop("run", RUN), **files)
    text = write_card(tmp_path / folder, record, formula="A_t = A", settings={"beta": 0.05, "rho": 0.8}, license="apache-2.0")
    front, body = text.read_text().removeprefix("---\n").split("---\n", 1)
    return yaml.safe_load(front), body


def test_it_says_base_data_method_figures_versions_and_command(tmp_path):
    front, body = card(tmp_path, summary=SUMMARY)
    assert front["base_model"] == "Qwen/Qwen3-1.7B"
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "transformers"
    for words in (
        "# mine", "fine-tuned version of [Qwen/Qwen3-1.7B](https://huggingface.co/Qwen/Qwen3-1.7B)", "    A_t = A",
        "| Data | problems.jsonl, split train, task math |", "dasd (beta 0.05, rho 0.8)", "all weights", "| Seed | 3 |",
        "On 200 test problems, 16 samples each", "| Avg@16 | 35.0 % | 45.0 % | +10.0 points [+8.0, +12.0] |", "trl 1.16.0",
        "    dasd train mine.yaml", "arXiv 2605.22263",
    ):  # fmt: skip
        assert words in body, words
    assert "GRPO" not in body
    assert "None" not in body


def test_a_mixture_is_named_by_its_sources(tmp_path, monkeypatch):
    """`data.source` stays "bundled" beside `data.sources`, and pages and cards said so."""
    data = {"source": "bundled", "sources": [{"source": "a.jsonl"}, {"source": "b.jsonl"}], "split": "train", "task": "math"}
    monkeypatch.setitem(CONFIG, "data", data)
    _, body = card(tmp_path)
    assert "| Data | a.jsonl, b.jsonl, split train, task math |" in body
    assert data_line(data) == "a.jsonl, b.jsonl, train"
    assert data_line({"source": "bundled", "sources": [], "split": "train", "task": "math"}) == "math (bundled), train"


def test_a_checkpoint_says_its_step_and_takes_no_figures_of_the_final_model(tmp_path):
    _, body = card(tmp_path, "checkpoint-50", summary=SUMMARY)
    assert "A checkpoint: step 50 of 200." in body
    assert "35.0 %" not in body
    assert "Not evaluated." in body


def test_weights_that_did_not_move_are_said(tmp_path):
    _, body = card(tmp_path, result={"weights_changed": False})
    assert "weights equal those of its base" in body


def test_every_formula_that_a_docstring_has_is_found():
    assert formula_of(METHODS["dasd"]).startswith("A_t = A_G + beta * omega_t * gap_bar_t")
    assert formula_of(METHODS["rlsd"]).startswith("A_t = A * ((1 - lam) + lam * clip(")
    assert formula_of(METHODS["grpo"]) == "A_t = A"
    assert formula_of(lambda signals: signals) == ""
    assert settings_of(METHODS["dasd"])["rho"] == 0.8


def test_the_licence_is_that_of_the_bases_own_card(tmp_path):
    assert license_of(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    assert license_of(str(tmp_path)) == "mit"
