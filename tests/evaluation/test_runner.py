"""Is every sample made once, whatever kills the run, and is nothing sampled that could not be graded?

All samples are written by the bundled model. Faults (a kill, a sampler that gives up) are put in, samples never are.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dasd.assets import BASE_MODEL
from dasd.config import BadInput, DataConfig, EvalConfig, SamplerConfig
from dasd.evaluation import runner
from dasd.evaluation.benchmarks import Suite, load_suite
from dasd.evaluation.folder import Evaluation, Shard, model_slug, read_samples
from dasd.evaluation.runner import completion_seed, run, run_evaluation, run_models, sound
from dasd.evaluation.samplers import SamplingFailed, Watch, make_sampler
from dasd.evaluation.summary import metric_sums, summarize
from dasd.folders import sole_writer
from dasd.tasks.base import Problem

CONFIG = EvalConfig(
    benchmarks=("countdown/in_distribution",), limit=6, num_samples=4, max_completion_length=40,
    sampler=SamplerConfig(batch_size=5),
)  # fmt: skip
NAME = "countdown/in_distribution"


@pytest.fixture(scope="module", autouse=True)
def whole_batches_on_file():
    """So that a file's order does not depend on how fast this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "WRITTEN_EVERY_S", 1e9)
        yield


@pytest.fixture(scope="module")
def sampler():
    return make_sampler(CONFIG.sampler, CONFIG.model)


@pytest.fixture
def counted(sampler, monkeypatch):
    """The keys of all completions that are asked for, and how often a sampler was made."""
    asked, made = [], []
    sample = sampler.sample

    def listen(requests, params, watch):
        asked.extend(request.key for request in requests)
        return sample(requests, params, watch)

    monkeypatch.setattr(sampler, "sample", listen)
    monkeypatch.setattr(sampler, "close", lambda: None)
    monkeypatch.setattr(runner, "make_sampler", lambda config, model: made.append(model.path) or sampler)
    return asked, made


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(folder)
    return folder / NAME


def evaluate(folder, config=CONFIG, **options):
    return run_models(config, ["bundled"], lambda model: folder, **options)["bundled"]


def key(record):
    return record["problem_id"], record["sample"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------- what is written


def test_every_problem_is_sampled_and_graded(whole):
    records = lines(whole / "samples.jsonl")
    problems = load_suite(NAME).problems[:6]
    assert [key(record) for record in records] == [(problem.id, sample) for problem in problems for sample in range(4)]
    assert len({record["text"] for record in records}) > 12  # each sample has its own seed
    for record in records:
        assert record["status"] in ("correct", "incorrect", "no_answer")
        assert len(record["token_ids"]) <= 40
        assert record["steps_right"] <= record["steps_checked"]
    summary = json.loads((whole / "summary.json").read_text())
    expected = summarize(metric_sums([problem.id for problem in problems], records, 4), 4)
    statuses = dict(Counter(record["status"] for record in records))
    head = {"model": "bundled", "benchmark": NAME, "trained_on": None}
    assert summary == json.loads(json.dumps({**head, **expected, "statuses": statuses}))
    assert [(row["id"], row["problem"], row["answer"]) for row in lines(whole / "problems.jsonl")] == [
        (problem.id, problem.problem, problem.answer) for problem in problems
    ]
    keys = [{record["solution_key"] for record in records if record["problem_id"] == p.id} - {None} for p in problems]
    assert summary["distinct_at_4"] == sum(map(len, keys)) / 6
    assert all((record["solution_key"] is None) == (record["status"] != "correct") for record in records)
    assert summary["avg_at_4"] == sum(record["status"] == "correct" for record in records) / 24
    assert list(summary["pass_at_k"]) == ["1", "2", "3", "4"]
    assert summary["pass_at_k"]["1"] == pytest.approx(summary["avg_at_4"])
    assert summary["maj_at_k"]["1"] == pytest.approx(summary["avg_at_4"])
    values = list(summary["pass_at_k"].values())
    assert values == sorted(values)


def test_the_record_says_what_was_asked_of_whom(whole):
    facts = json.loads((whole / "eval.json").read_text())
    assert facts["identity"]["settings"]["max_completion_length"] == 40
    assert facts["task"] == "countdown"
    assert len(facts["problems"]) == 6
    assert facts["samplers"][0]["backend"] == "transformers"


def test_several_models_and_benchmarks_in_one_call(tmp_path):
    config = CONFIG.model_copy(update={"benchmarks": ("countdown/l*",), "limit": 3, "num_samples": 2})
    results = run_models(config, ["bundled", str(BASE_MODEL)], lambda model: tmp_path / model_slug(model))
    names = ["countdown/larger_numbers", "countdown/larger_targets"]
    for model, result in results.items():
        assert list(result["benchmarks"]) == names
        folder = tmp_path / model_slug(model)
        assert json.loads((folder / "summary.json").read_text())["model"] == model
        mean = sum(result["benchmarks"][name]["avg_at_2"] for name in names) / 2
        assert result["macro"]["avg_at_2"] == pytest.approx(mean)
        low, high = result["macro"]["ci95"]["avg_at_2"]
        assert low <= mean <= high
    texts = [[r["text"] for name in names for r in lines(tmp_path / model_slug(m) / name / "samples.jsonl")] for m in results]
    assert texts[0] == texts[1]  # it is the same model


def test_one_dataset_writes_straight_into_its_folder(tmp_path):
    config = EvalConfig(data=DataConfig(split="validation", limit=2), num_samples=2, max_completion_length=24)
    problems, records = run_evaluation(config, tmp_path / "here", "Sampling")
    assert [key(record) for record in records] == [(problem.id, sample) for problem in problems for sample in (0, 1)]
    assert json.loads((tmp_path / "here" / "summary.json").read_text())["benchmark"] == "countdown:validation"


# ---------------------------------------------------------------- killed, continued, shared

# One process imports and loads once, then forks a run for each kill: 20 kills in seconds. A fork is a process like any other.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from dasd.evaluation import runner
from test_runner import CONFIG, NAME, evaluate
import torch
torch.set_num_threads(1)
runner.WRITTEN_EVERY_S = 1e9
folder, kills, rng = Path(sys.argv[1]), 0, random.Random(int(sys.argv[2]))
loaded = runner.make_sampler(CONFIG.sampler, CONFIG.model)
loaded.close = lambda: None
runner.make_sampler = lambda config, model: loaded
loaded.batch_size = 1  # many moments to be killed in
path = folder / NAME / "samples.jsonl"
count = lambda: path.read_bytes().count(b"\\n") if path.exists() else 0
sizes = [0]
while True:
    child = os.fork()
    if child == 0:
        evaluate(folder)
        os._exit(0)
    grown = rng.randrange(4) if kills < 20 else 99  # lines after which it is killed, and a little later
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and count() < sizes[-1] + grown:
        time.sleep(0.001)
    if done[0] == 0:
        time.sleep(rng.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)
    sizes.append(count())
    if os.waitstatus_to_exitcode(done[1]) == 0:
        break
    assert os.waitstatus_to_exitcode(done[1]) == -signal.SIGKILL
    kills += 1
print(kills, *sizes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")
def test_runs_killed_at_any_moment_end_as_the_uninterrupted_one(tmp_path, whole):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, str(tmp_path), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    kills, *sizes = map(int, done.stdout.splitlines()[-1].split())
    assert kills > 3
    assert len({size for size in sizes if 0 < size < 24}) > 2  # several died half way
    assert sizes == sorted(sizes)  # nothing was lost
    ours = tmp_path / NAME
    assert (ours / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert (ours / "summary.json").read_text() == (whole / "summary.json").read_text()
    assert not list(ours.glob("*.tmp"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.55, 0.999])
def test_a_file_cut_off_anywhere_is_completed(tmp_path, whole, counted, share):
    asked, _ = counted
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    (folder / "eval.json").write_bytes((whole / "eval.json").read_bytes())
    content = (whole / "samples.jsonl").read_bytes()
    (folder / "samples.jsonl").write_bytes(content[: int(len(content) * share)])
    kept = content[: int(len(content) * share)].count(b"\n")
    evaluate(tmp_path)
    assert (folder / "samples.jsonl").read_bytes() == content
    assert len(asked) == len(set(asked)) == 24 - kept


def test_a_finished_run_loads_no_model(tmp_path, whole, counted):
    asked, made = counted
    (tmp_path / "countdown").mkdir()
    os.symlink(whole, tmp_path / NAME)
    before = (whole / "samples.jsonl").read_bytes()
    assert evaluate(tmp_path)["benchmarks"][NAME] == json.loads((whole / "summary.json").read_text())
    assert (asked, made) == ([], [])
    assert (whole / "samples.jsonl").read_bytes() == before


def test_more_samples_are_added_to_what_is_there(tmp_path, whole, counted):
    asked, _ = counted
    evaluate(tmp_path, CONFIG.model_copy(update={"num_samples": 1}))
    evaluate(tmp_path)
    assert len(asked) == len(set(asked)) == 24
    assert sorted(map(str, lines(tmp_path / NAME / "samples.jsonl"))) == sorted(map(str, lines(whole / "samples.jsonl")))
    assert (tmp_path / NAME / "summary.json").read_text() == (whole / "summary.json").read_text()


def test_shards_make_the_whole_and_the_last_one_summarises(tmp_path, whole, counted):
    asked, _ = counted
    for index in (2, 1, 3):
        assert not (tmp_path / NAME / "summary.json").exists()
        result = evaluate(tmp_path, shard=Shard.parse(f"{index}/3"))
        assert (result is None) == (index != 3)
    assert len(asked) == len(set(asked)) == 24
    files = [tmp_path / NAME / f"samples-{index}-of-3.jsonl" for index in (1, 2, 3)]
    assert [len(lines(path)) for path in files] == [8, 8, 8]
    assert read_samples(tmp_path / NAME) == read_samples(whole)
    assert (tmp_path / NAME / "summary.json").read_text() == (whole / "summary.json").read_text()
    evaluate(tmp_path)  # the unsharded command finds nothing to do
    assert len(asked) == 24


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_shards_that_are_none(text):
    with pytest.raises(BadInput, match="must be I/N"):
        Shard.parse(text)


def test_two_processes_never_write_one_file(tmp_path, whole, counted):
    asked, _ = counted
    with (
        sole_writer(tmp_path / NAME / "samples.jsonl", "wait"),
        pytest.raises(BadInput, match=r"another process is writing .* --shard"),
    ):
        evaluate(tmp_path)
    assert asked == []
    assert not (tmp_path / NAME / "eval.json").exists()
    evaluate(tmp_path)
    assert (tmp_path / NAME / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_a_sampler_that_gives_up_loses_nothing(tmp_path, whole, counted, sampler, monkeypatch):
    asked, _ = counted
    sample = sampler.sample

    def give_up(requests, params, watch):
        if len(asked) >= 10:
            sample(requests[:2], params, watch)
            raise SamplingFailed("the server is gone")
        return sample(requests, params, watch)

    with monkeypatch.context() as patch:
        patch.setattr(sampler, "sample", give_up)
        with pytest.raises(SamplingFailed, match="the server is gone"):
            evaluate(tmp_path)
    assert len(lines(tmp_path / NAME / "samples.jsonl")) == 12
    evaluate(tmp_path)
    assert len(asked) == len(set(asked)) == 24
    assert (tmp_path / NAME / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_what_has_ended_is_on_file_before_its_batch_has(tmp_path, counted, sampler, monkeypatch):
    """A batch of all 24; the machine goes down, without a word, when 7 completions have ended."""
    monkeypatch.setattr(runner, "WRITTEN_EVERY_S", 0.0)
    monkeypatch.setattr(sampler, "batch_size", 24)
    ended, sample, path = [], sampler.sample, tmp_path / NAME / "samples.jsonl"

    class PowerCut(BaseException):
        pass

    def cut(requests, params, watch):
        def finished(request, sampled):
            if len(ended) == 7:
                raise PowerCut(len(lines(path)))
            watch.finished(request, sampled)
            ended.append(request.key)

        return sample(requests, params, Watch(finished, watch.tokens))

    monkeypatch.setattr(sampler, "sample", cut)
    with pytest.raises(PowerCut, match="7"):
        evaluate(tmp_path)
    assert [f"{name}/{sample}" for name, sample in map(key, lines(path))] == ended


def test_completions_have_seeds_of_their_own_for_ever():
    assert completion_seed(0, NAME, "2-4-11=30", 0) == 1474495889
    parts = [(seed, suite, problem, sample) for seed in (0, 1) for suite in "ab" for problem in ("x", "y") for sample in (0, 1)]
    seeds = {completion_seed(*part) for part in parts}
    assert len(seeds) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)


# ---------------------------------------------------------------- graded again


def test_grading_again_needs_no_model_and_mends_the_grades(tmp_path, whole, monkeypatch):
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    for name in ("eval.json", "samples.jsonl"):
        (folder / name).write_bytes((whole / name).read_bytes())
    spoilt = [{**r, "status": "correct", "extracted": "?", "steps_right": 0} for r in lines(folder / "samples.jsonl")]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in spoilt))
    monkeypatch.setattr(runner, "make_sampler", lambda *_: pytest.fail("no model may be loaded"))
    result = evaluate(tmp_path, regrade=True)
    assert (folder / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert result["benchmarks"][NAME] == json.loads((whole / "summary.json").read_text())


def test_grading_again_without_samples(tmp_path):
    with pytest.raises(BadInput, match="holds no samples; leave out --regrade"):
        evaluate(tmp_path, regrade=True)


# ---------------------------------------------------------------- refused before anything is sampled


@pytest.mark.parametrize(
    ("change", "named"), [({"seed": 1}, "seed"), ({"temperature": 0.5}, "temperature"), ({"limit": 5}, "problems")]
)
def test_a_folder_of_other_settings_is_refused(tmp_path, whole, counted, change, named):
    _, made = counted
    (tmp_path / "countdown").mkdir()
    os.symlink(whole, tmp_path / NAME)
    with pytest.raises(BadInput, match=rf"other settings \({named}\)"):
        evaluate(tmp_path, CONFIG.model_copy(update=change))
    assert made == []


def test_samples_of_unknown_origin_are_refused(tmp_path, whole):
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "samples.jsonl").write_bytes((whole / "samples.jsonl").read_bytes())
    with pytest.raises(BadInput, match="unknown origin"):
        evaluate(tmp_path)


def problems(*answers):
    return [Problem(str(i), "Use 3 7 8 to make 29.", answer, "3 * 7 = 21, 21 + 8 = 29") for i, answer in enumerate(answers)]


def test_a_gold_answer_that_is_wrong_stops_everything(tmp_path, counted):
    _, made = counted
    rows = "".join(json.dumps({"problem": p.problem, "answer": p.answer}) + "\n" for p in problems("29", "30", "29"))
    (tmp_path / "mine.jsonl").write_text(rows)
    data = DataConfig(source=str(tmp_path / "mine.jsonl"), split="test", columns={"solution": None})
    with pytest.raises(
        BadInput, match=r"mine\.jsonl:test: 1 of 3 gold answers do not grade as right, first problem 1: .*--skip_"
    ):
        run_models(EvalConfig(data=data), ["bundled"], lambda model: tmp_path / "out")
    assert made == []
    assert not (tmp_path / "out").exists()


def test_unsound_problems_are_left_out_where_the_user_says_so():
    suite = sound(Suite("x", "countdown", problems("29", "30", "29")), skip_unsound=True)
    assert [problem.id for problem in suite.problems] == ["0", "2"]
    assert suite.source["skipped"] == ["1"]
    with pytest.raises(BadInput, match="2 of 2 gold answers"):
        sound(Suite("x", "countdown", problems("1", "2")), skip_unsound=True)


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_written(tmp_path, sampler):
    suite = Suite("x", "countdown", load_suite(NAME).problems[:2])
    config = CONFIG.model_copy(update={"max_completion_length": 510})
    with pytest.raises(BadInput, match=r"set --max_completion_length to 49\d or less"):
        run(Evaluation(suite, config, tmp_path / "x"), lambda: sampler, "x")
    assert not (tmp_path / "x").exists()


def test_the_teachers_prompt_needs_a_reference(tmp_path, sampler):
    config = CONFIG.model_copy(update={"with_context": True})
    without = [Problem("0", "Use 3 7 8 to make 29.", "29")]
    with pytest.raises(BadInput, match="problem 0 has no reference"):
        run(Evaluation(Suite("x", "countdown", without), config, tmp_path), lambda: sampler, "x")
