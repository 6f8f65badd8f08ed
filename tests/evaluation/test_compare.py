"""Are two runs compared on the same problems, with the numbers that their files hold, or refused with the reason?"""

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from dasd.cli import run
from dasd.config import BadInput
from dasd.evaluation.benchmarks import load_suite
from dasd.evaluation.compare import as_csv
from dasd.evaluation.estimators import pass_at_k, swap_p_value
from dasd.evaluation.examples import examples
from dasd.evaluation.readers import read_run
from evaluation.alone import comparison, difference_of_ratios

SUITES = ("countdown/in_distribution", "countdown/larger_targets")


def evaluate(output, *words):
    common = ["--limit", "8", "--num_samples", "3", "--max_completion_length", "96", "--output", str(output)]
    assert run(["eval", "bundled", "--benchmarks", ",".join(SUITES), *common, *words]) == 0
    return output / "bundled"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return evaluate(folder / "a"), evaluate(folder / "b", "--seed", "1")


@pytest.fixture
def copies(runs, tmp_path):
    return [shutil.copytree(path, tmp_path / name) for path, name in zip(runs, "ab", strict=True)]


def correct(folder):
    """Right samples of each problem, counted from the file."""
    records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    ids = json.loads((folder / "eval.json").read_text())["problems"]
    return np.array([sum(r["status"] == "correct" for r in records if r["problem_id"] == name) for name in ids])


def test_every_difference_is_that_of_the_files(runs):
    result = comparison(*runs)
    assert [entry["name"] for entry in result["benchmarks"]] == list(SUITES)
    assert [run["name"] for run in result["runs"]] == ["a", "b"]
    assert result["missing"] == {}
    means = []
    for entry in result["benchmarks"]:
        a, b = (correct(path / entry["name"]) for path in runs)
        assert [problem["correct"] for problem in entry["problems"]] == [list(pair) for pair in zip(a, b, strict=True)]
        assert (entry["num_problems"], entry["num_samples"]) == (8, [3, 3])
        assert entry["settings_differ"] == {"seed": [0, 1]}
        assert list(entry["curves"]["pass_at_k"]) == ["1", "2", "3"]
        for k in (1, 2, 3):
            pairs = [(pass_at_k(3, counts, k), np.ones(8)) for counts in (a, b)]
            expected, entry_k = difference_of_ratios(*pairs), entry["curves"]["pass_at_k"][str(k)]
            difference, p_value = entry_k["differences"][0], swap_p_value([pairs[0]], [pairs[1]])
            assert [difference[end] for end in ("mean", "low", "high")] == [expected.mean, expected.low, expected.high]
            assert (difference["p_value"], difference["p_holm"]) == (p_value, p_value)
        figure = entry["figures"]["avg_at_3"]
        assert figure["values"][0]["mean"] == a.sum() / 24
        assert figure["differences"][0]["mean"] == pytest.approx((b.sum() - a.sum()) / 24)
        means.append(figure)
    macro = result["macro"]["avg_at_3"]
    for kind, place in (("values", 0), ("values", 1), ("differences", 0)):
        assert macro[kind][place]["mean"] == pytest.approx(np.mean([figure[kind][place]["mean"] for figure in means]))
    difference = macro["differences"][0]
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert 0 < difference["p_value"] <= 1


def test_a_run_does_not_differ_from_itself_and_sides_can_be_changed(runs):
    same = comparison(runs[0], runs[0])
    for entry in same["benchmarks"]:
        for values in entry["figures"].values():
            (difference,) = values["differences"]
            mean, low, high = (difference[end] for end in ("mean", "low", "high"))
            assert mean in (0, None)
            assert low is None or low == pytest.approx(-high)  # on so few problems another set might set them apart
            assert low is None or 0 < high < 1
            assert difference["p_value"] in (1.0, None)
    assert [run["name"] for run in same["runs"]] == ["a/bundled", "a/bundled (2)"]
    there, back = comparison(*runs), comparison(*reversed(runs))
    for name, values in there["macro"].items():
        (one,), (other,) = values["differences"], back["macro"][name]["differences"]
        if one["mean"] is not None:
            assert other["mean"] == pytest.approx(-one["mean"])
            assert other["p_value"] == pytest.approx(one["p_value"])


def test_the_comparison_is_plain_json_and_a_table(runs):
    result = comparison(*runs)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    rows = list(csv.DictReader(as_csv(result).splitlines()))
    assert {row["benchmark"] for row in rows} == {*SUITES, "macro"}
    first, row = (r for r in rows if (r["benchmark"], r["figure"]) == (SUITES[1], "pass_at_2"))
    values = result["benchmarks"][1]["figures"]["pass_at_2"]
    assert (first["run"], first["difference"], row["run"]) == ("a", "", "b")
    assert float(row["difference"]) == values["differences"][0]["mean"]
    assert float(row["low"]) == values["values"][1]["low"]


def test_only_what_both_have_is_compared(copies):
    a, b = copies
    shutil.rmtree(b / SUITES[0])
    result = comparison(a, b)
    assert [entry["name"] for entry in result["benchmarks"]] == [SUITES[1]]
    assert result["missing"] == {"b": [SUITES[0]]}
    assert comparison(a / SUITES[1], b)["benchmarks"] == result["benchmarks"]  # a benchmark's own folder is a run too
    with pytest.raises(BadInput, match=f"no benchmark in common: .* has {SUITES[0]}; b has {SUITES[1]}"):
        comparison(a / SUITES[0], b)


def test_runs_with_different_numbers_of_samples_share_the_smaller_k(runs, tmp_path):
    more = evaluate(tmp_path / "more", "--num_samples", "4")
    entry = comparison(runs[1], more)["benchmarks"][0]
    assert entry["num_samples"] == [3, 4]
    assert list(entry["curves"]["pass_at_k"]) == ["1", "2", "3"]
    assert "avg_at_3" not in entry["figures"]
    assert {"pass_at_1", "pass_at_2", "pass_at_3", "step_accuracy"} <= set(entry["figures"])


def spoil(folder, change):
    path = folder / SUITES[0] / "eval.json"
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def test_runs_that_cannot_be_compared(copies, tmp_path):
    a, b = copies
    with pytest.raises(BadInput, match="does not exist"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no evaluation"):
        read_run(tmp_path / "empty")
    with pytest.raises(BadInput, match=rf"holds {SUITES[0]} twice, in .*: give the folder of one model"):
        read_run(tmp_path)
    spoil(b, lambda facts: facts["identity"].update(fingerprint="other"))
    with pytest.raises(BadInput, match="asked different problems"):
        comparison(a, b)
    spoil(b, lambda facts: facts.pop("identity"))
    with pytest.raises(BadInput, match="was not written by this version"):
        comparison(a, b)


def test_unfinished_runs_are_named(copies):
    a, b = copies
    path = b / SUITES[0] / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(BadInput, match="has lost samples"):
        comparison(a, b)
    (b / SUITES[0] / "summary.json").unlink()
    with pytest.raises(BadInput, match=r"is not finished \(20 of 24 samples\)"):
        comparison(a, b)


def test_the_command_writes_table_summary_and_csv(runs, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(["compare", *map(str, runs), "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "countdown/larger_targets: 8 problems" in text
    assert "mean of 2 benchmarks" in text
    assert "seed differs: 0, 1" in text
    assert json.loads((output / "summary.json").read_text()) == comparison(*runs)
    assert (output / "comparison.csv").read_text() == as_csv(comparison(*runs))
    page = (output / "comparison.html").read_text()
    difference = comparison(*runs)["macro"]["avg_at_3"]["differences"][0]["mean"]
    assert f"{100 * difference:+.1f} points".replace("-", "\N{MINUS SIGN}") in page
    assert page.count('<details class="sample ') == 48  # few enough to show all
    assert "<script" not in page


def test_an_evaluation_has_a_page_of_its_own(runs):
    page, summary = (runs[0] / "eval.html").read_text(), json.loads((runs[0] / "summary.json").read_text())
    low, high = summary["macro"]["ci95"]["avg_at_3"]
    assert f"{100 * summary['macro']['avg_at_3']:.1f} %" in page
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in page
    assert all(name in page for name in SUITES)
    assert "points" not in page  # nothing it could differ from


def test_examples_pair_the_same_sample_and_hold_every_outcome(runs):
    a, b = map(read_run, runs)
    found = examples(a, b)
    texts = [{(r["problem_id"], r["sample"]): r for r in run.benchmarks[SUITES[0]].records} for run in (a, b)]
    asked = {problem.id: problem for problem in load_suite(SUITES[0]).problems}
    outcomes = {(True, True): "all", (False, False): "none", (False, True): "gained", (True, False): "lost"}
    shown = [each for each in found["shown"] if each["benchmark"] == SUITES[0]]
    for each in shown:
        records = [side[each["problem_id"], each["sample"]] for side in texts]
        assert [side["text"] for side in each["sides"]] == [record["text"] for record in records]
        assert each["outcome"] == outcomes[tuple(record["status"] == "correct" for record in records)]
        assert each["problem"] == asked[each["problem_id"]].problem
        assert each["sides"][0]["correct"] == sum(
            record["status"] == "correct" for key, record in texts[0].items() if key[0] == each["problem_id"]
        )
    assert Counter(each["outcome"] for each in shown) == found["counts"][SUITES[0]]
    few = examples(a, b, most=6)
    assert {name: set(counts) for name, counts in few["counts"].items()} == {
        name: {each["outcome"] for each in few["shown"] if each["benchmark"] == name} for name in SUITES
    }
    assert len(few["shown"]) < 10
    alone = examples(a)
    assert {each["outcome"] for each in alone["shown"]} <= {"correct", "incorrect", "no_answer"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "nowhere", "nowhere"], "nowhere does not exist"),
        (["compare", "nowhere", "nowhere", "--x", "1"], "unexpected argument '--x'"),
        (["eval", "bundled", "--benchmarks", "countdown/larger_target"], "did you mean 'countdown/larger_targets'?"),
        (["eval", "bundled", "--benchmarks", "amc23", "--data_dir", "nowhere"], "amc23 is not in --data_dir nowhere"),
        (["eval", "bundled", "--shard", "3/2"], "--shard '3/2' must be I/N"),
        (["eval", "bundled", "--benchmark", "amc23"], "did you mean 'benchmarks'?"),
        (["eval", "bundled", "--benchmarks", "countdown/distractor", "--regrade", "--output", "out"], "holds no samples"),
        (["eval", "bundled", "--config", "nowhere.yaml"], "config nowhere.yaml does not exist"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("dasd: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
