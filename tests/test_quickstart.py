"""Does the main job leave everything it promises, and does the README's snippet run?"""

import json
import re
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from dasd import quickstart
from dasd.assets import QUICKSTART
from dasd.config import BadInput, RunConfig, load_config
from dasd.data.problems import load_problems
from dasd.files import read_lines

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    overrides = [
        "--output", str(folder), "--training.steps", "2", "--training.rollouts_per_step", "32",
        "--training.micro_batch_size", "32", "--data.limit", "50",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "TEST_PROBLEMS", 12)
        quickstart.quickstart(load_config(RunConfig, QUICKSTART, overrides))
    return folder


def test_summary_has_the_promised_figures(output):
    summary = json.loads((output / "summary.json").read_text())
    names = {"avg_at_16", "pass_at_16", "step_accuracy", "epistemic_per_response", "mean_length"}
    for side in ("before", "after"):
        assert names <= set(summary[side])
        assert 0 <= summary[side]["avg_at_16"] <= summary[side]["pass_at_16"] <= 1
    for name in names:
        difference = summary["difference"][name]
        low, high = difference["ci95"]
        assert low <= difference["mean"] <= high
        assert difference["mean"] == pytest.approx(summary["after"][name] - summary["before"][name], abs=1e-9)
    assert summary["wall_s"] > 0


def test_a_file_has_no_test_split_to_be_evaluated_on(tmp_path):
    """The first 200 problems that were trained on were shown as test problems."""
    problems = tmp_path / "mine.jsonl"
    problems.write_text('{"problem": "1 + 1", "answer": "2", "solution": "1 + 1 = 2"}\n' * 40)
    given = ["--output", str(tmp_path / "run"), "--data.source", str(problems), "--data.task", "math"]
    with pytest.raises(BadInput, match=r"set data.source to another file \(this one has no splits\), or train"):
        quickstart.quickstart(load_config(RunConfig, QUICKSTART, given))
    assert not (tmp_path / "run").exists()


def test_count_is_how_many_problems_are_made():
    """The quickstart's own limit held against it."""
    [data] = load_config(RunConfig, QUICKSTART, ["--data.count", "30"]).data.parts
    assert len(load_problems(data)) == 30


def test_every_file_is_there_and_the_checkpoint_loads(output):
    for name in ("config.yaml", "run.json", "metrics.jsonl", "report.html", "before/samples.jsonl", "after/samples.jsonl"):
        assert (output / name).stat().st_size > 0, name
    model = AutoModelForCausalLM.from_pretrained(output / "checkpoints" / "final")
    assert sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name) == 155_648


def test_rollouts_are_the_samples_token_by_token(output):
    document = json.loads((output / "rollouts.json").read_text())
    texts = {json.loads(line)["text"] for line in (output / "before" / "samples.jsonl").read_text().splitlines()}
    assert document["rollouts"]
    for rollout in document["rollouts"]:
        assert "".join(document["texts"][place] for place in rollout["tokens"]).replace("<|im_end|>", "") in texts
        assert {omega > 0 for omega in rollout["omega"]} == {True, False}


def test_a_second_call_changes_nothing(output, monkeypatch):
    before = (output / "samples.jsonl", (output / "summary.json").read_text(), (output / "metrics.jsonl").read_text())
    monkeypatch.setattr(quickstart, "TEST_PROBLEMS", 12)
    config = load_config(RunConfig, output / "config.yaml", [])
    quickstart.quickstart(config)
    assert (output / "metrics.jsonl").read_text() == before[2]
    assert json.loads((output / "summary.json").read_text())["difference"] == json.loads(before[1])["difference"]


def test_the_snippet_of_the_readme_runs(tmp_path, monkeypatch, capfd):
    """The code is taken from README.md as it stands."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert code is not None
    assert len(code[1].splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code[1], "README.md", "exec"), names)
    assert names["trainer"].state.global_step > 0
    said = capfd.readouterr()
    assert "FutureWarning" not in said.err
    assert "grad_norm" not in said.out + said.err  # no mapping of all metrics for each step
    assert "Training with dasd: 2/2" in said.out
    assert "Warning" not in said.err


def test_readme_names_only_files_that_exist():
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "docs/method.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists() or (ROOT / "docs" / link).exists(), link


def test_the_rival_is_grpo_on_the_same_problems_and_both_are_in_the_table(output, capsys):
    summary = json.loads((output / "summary.json").read_text())
    rival = summary["rival"]
    assert rival["method"] == "grpo"
    config = json.loads(json.dumps(yaml.safe_load((output / "grpo" / "config.yaml").read_text())))
    ours = yaml.safe_load((output / "config.yaml").read_text())
    assert config["method"] == {"name": "grpo"}
    assert (config["training"], config["data"]) == (ours["training"], ours["data"])
    difference = summary["after"]["avg_at_16"] - rival["after"]["avg_at_16"]
    assert rival["difference"]["avg_at_16"]["mean"] == pytest.approx(difference, abs=1e-9)
    losses = [[line["loss"] for line in read_lines(folder / "metrics.jsonl")] for folder in (output, output / "grpo")]
    assert losses[0] != losses[1]
    shares = [line["credit/teacher"] for line in read_lines(output / "metrics.jsonl")]
    assert 0 < summary["teacher_share"] == pytest.approx(sum(shares) / len(shares))
    quickstart.show(summary)
    table = capsys.readouterr().out
    assert all(words in table for words in ("grpo", "Truncated", "Teacher's share"))
    page = (output / "report.html").read_text()
    assert "Against GRPO" in page


def test_without_a_rival_there_is_one_arm(tmp_path):
    config = load_config(RunConfig, QUICKSTART, ["--output", str(tmp_path), "--method.name", "grpo"])
    assert quickstart._rival(config) is None
