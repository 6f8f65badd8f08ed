"""Are samples of lm-eval and inspect_ai read as their makers count them, and compared with the same paired intervals?

`foreign/` holds files that the tools wrote: lm-eval 0.4.13 (a task of free text scored as IFEval is, and a multiple choice) and
inspect_ai 0.3.285 (two scorers, two epochs; once as .eval, once as .json without events). Two models each.
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dasd.cli import run
from dasd.config import BadInput
from dasd.evaluation.estimators import swap_p_value
from dasd.evaluation.examples import examples
from dasd.evaluation.readers import inspect_ai, read_run
from evaluation.alone import comparison, ratio_of_sums

FOREIGN = Path(__file__).parent / "foreign"
LM_EVAL, INSPECT = ([FOREIGN / tool / side for side in ("one", "two")] for tool in ("lm_eval", "inspect_ai"))


def lines(folder: Path, task: str) -> list[dict[str, Any]]:
    (path,) = folder.glob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lm_evals_accuracies_are_its_own() -> None:
    """What its table said: of instructions 0.2 and 0.4 were followed, of prompts 0 and 2 of 12."""
    for folder, instructions, prompts in zip(LM_EVAL, (0.2, 0.4), (0, 2), strict=True):
        found = read_run(folder).benchmarks
        assert set(found) == {"follow", "letters"}
        letters, follow = (found[name].sums for name in ("letters", "follow"))
        assert letters["avg_at_1"][0].tolist() == [line["acc"] for line in lines(folder, "letters")]
        assert letters["score/acc_norm"][0].sum() / 12 == np.mean([line["acc_norm"] for line in lines(folder, "letters")])
        assert (follow["avg_at_1"][0].sum(), follow["pass_at_1"][0].sum()) == (prompts, prompts)
        top, bottom = follow["score/inst_level_strict_acc"]
        assert top.sum() / bottom.sum() == pytest.approx(instructions)  # each instruction weighs the same
        assert set(bottom) == {2, 3}
        assert "mean_length" not in follow  # token ids are not on file
        assert not {"step_accuracy", "truncated", "leakage", "no_answer"} & set(follow)
        assert not any(name.startswith(("epistemic", "loops")) for name in letters)  # nothing was written
        assert "epistemic_per_response" in follow


def test_lm_evals_settings_and_texts() -> None:
    follow = read_run(LM_EVAL[0]).benchmarks["follow"]
    assert follow.model == "countdown-1m"
    assert follow.identity["settings"]["num_fewshot"] == 0
    assert follow.identity["settings"]["generation"]["temperature"] == 1.0
    assert follow.records[0]["text"] == lines(LM_EVAL[0], "follow")[0]["resps"][0][0]
    assert follow.asked["0"]["problem"] == "Use 2 5 1 to make 9."


def test_inspects_scores_are_its_own() -> None:
    """Its own accuracy of both scorers was 0.8333: ten of twelve."""
    (log,) = read_run(INSPECT[0]).benchmarks.values()
    assert (log.name, log.model, log.num_samples, log.ids) == ("sums", "mockllm/model", 2, [f"s{i}" for i in range(6)])
    assert log.sums["avg_at_2"][0].sum() == log.sums["score/includes"][0].sum() == 10
    assert log.sums["pass_at_2"][0].tolist() == [1, 1, 1, 1, 1, 1]
    assert log.sums["mean_length"][0].tolist() == [8] * 6  # four tokens each
    assert log.sums["truncated"][0].tolist() == [0] * 6
    assert log.records[0]["text"] == "ANSWER: 0"


def test_the_comparison_is_that_of_the_files() -> None:
    result = comparison(*LM_EVAL)
    assert [entry["name"] for entry in result["benchmarks"]] == ["follow", "letters"]
    assert [run["name"] for run in result["runs"]] == ["one", "two"]
    figure = result["benchmarks"][1]["figures"]["avg_at_1"]
    before, after = ([float(line["acc"]) for line in lines(folder, "letters")] for folder in LM_EVAL)
    assert figure["values"][0]["mean"] == np.mean(before)
    assert figure["differences"][0]["mean"] == pytest.approx(np.mean(after) - np.mean(before))
    assert figure["differences"][0]["p_value"] == swap_p_value([(before, np.ones(12))], [(after, np.ones(12))])
    exact = result["benchmarks"][0]["figures"]["avg_at_1"]["values"][0]
    assert exact["high"] == pytest.approx(1 - 0.025 ** (1 / 12))  # none of twelve
    both = comparison(*INSPECT)["benchmarks"][0]["figures"]["score/includes"]
    assert both["differences"][0]["mean"] < 0


def test_the_command_takes_files_and_folders_and_mixes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    sides = [f"base={LM_EVAL[0]}", f"trained={next(LM_EVAL[1].glob('samples_letters*'))}"]
    assert run(["compare", *sides, "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "A: base: countdown-1m" in text
    assert "letters: 12 problems" in text
    page = (output / "comparison.html").read_text()
    assert "trained has no follow: not compared." in page
    assert run(["compare", str(LM_EVAL[0]), str(INSPECT[0]), "--output", str(output)]) == 2
    assert "no benchmark in common" in capsys.readouterr().err


def test_samples_of_others_are_shown() -> None:
    shown = examples(*map(read_run, INSPECT))["shown"]
    assert {each["outcome"] for each in shown} == {"all", "none", "lost", "gained"} & {each["outcome"] for each in shown}
    assert shown[0]["problem"] == "0+0="
    assert shown[0]["sides"][0]["tokens"] == 4


def test_a_plain_zip_and_a_missing_decompressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier versions of inspect_ai deflate; later ones use zstandard, which may not be installed."""
    (original,) = INSPECT[0].glob("*.eval")
    log = read_run(INSPECT[0]).benchmarks["sums"]
    path = tmp_path / "old" / "x_sums.eval"
    path.parent.mkdir()
    with zipfile.ZipFile(original) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as deflated:
        for info in archive.infolist():
            deflated.writestr(info.filename, inspect_ai._member(archive, info, original))
    again = read_run(path).benchmarks["sums"]
    assert again.identity == log.identity
    assert {name: [list(part) for part in pair] for name, pair in again.sums.items()} == {
        name: [list(part) for part in pair] for name, pair in log.sums.items()
    }
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert read_run(path)
    with pytest.raises(BadInput, match="pip install zstandard, or convert"):
        read_run(INSPECT[0])


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (log,) = INSPECT[1].glob("*.json")
    whole = json.loads(log.read_text())

    def written(change: Any) -> Path:
        value = json.loads(json.dumps(whole))
        change(value)
        (tmp_path / "log.json").write_text(json.dumps(value))
        return tmp_path / "log.json"

    with pytest.raises(BadInput, match="not finished \\(status error\\)"):
        read_run(written(lambda value: value.update(status="error")))
    with pytest.raises(BadInput, match="a sample of problem s3 has no score match: finish"):
        read_run(written(lambda value: value["samples"][3].update(scores={"includes": {"value": "C"}})))
    with pytest.raises(BadInput, match="1 samples of some problems and 2 of others"):
        read_run(written(lambda value: value["samples"].pop()))
    with pytest.raises(BadInput, match="has no scores"):
        read_run(written(lambda value: [sample.update(scores={}) for sample in value["samples"]]))
    (tmp_path / "broken.eval").write_bytes(b"PK")
    with pytest.raises(BadInput, match="no log of inspect_ai that can be read"):
        read_run(tmp_path / "broken.eval")
    samples = tmp_path / "samples_x_2026-01-01T00-00-00.0.jsonl"
    samples.write_text('{"doc_id": 1}\n')
    with pytest.raises(BadInput, match="is not what lm-eval writes with --log_samples: KeyError"):
        read_run(samples)
    samples.write_text("")
    with pytest.raises(BadInput, match="holds no sample"):
        read_run(samples)


def test_scores_of_every_shape_become_points() -> None:
    points = inspect_ai._points
    assert points("m", "C") == {"m": (1, 1)}
    assert points("m", "P") == {"m": (0.5, 1)}
    assert points("m", True) == {"m": (1, 1)}
    assert points("m", [1, 0, 1]) == {"m": (2, 3)}
    assert points("m", {"a": 0.25, "b": "I"}) == {"m/a": (0.25, 1), "m/b": (0, 1)}
    assert points("m", "some words") == points("m", float("nan")) == {}
    followed = {"prompt_level_strict": False, "inst_level_strict": 2, "num_instructions": 3}  # IFEval's
    assert points("m", followed) == {"m/prompt_level_strict": (0, 1), "m/inst_level_strict": (2, 3)}


def test_the_newest_samples_of_a_task_are_taken(tmp_path: Path) -> None:
    shutil.copytree(LM_EVAL[0], tmp_path / "runs")
    (old,) = (tmp_path / "runs").glob("samples_letters*")
    new = old.with_name("samples_letters_2027-01-01T00-00-00.000000.jsonl")
    new.write_text(old.read_text().replace('"acc": 1.0', '"acc": 0.0'))
    top, bottom = read_run(tmp_path / "runs").benchmarks["letters"].sums["avg_at_1"]
    assert ratio_of_sums(top, bottom).mean == 0
