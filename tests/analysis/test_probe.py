"""Does the probe continue what it forced, from the same prefix, and can it be killed?"""

import json

import pytest

from dasd.analysis.probe import RECORDS, Prober, run_probe
from dasd.cli import run
from dasd.config import DataConfig, ModelConfig, ProbeConfig
from dasd.data.problems import load_problems
from dasd.models import load_model
from dasd.tasks import make_task

DATA = DataConfig(split="validation", limit=4)
CONFIG = ProbeConfig(data=DATA, positions=4, continuations=3, max_completion_length=64, contexts=["solution", "other_problem"])


@pytest.fixture(scope="module")
def prober():
    model, tokenizer = load_model(ModelConfig())
    return Prober(model, tokenizer, make_task("countdown"), load_problems(DATA), CONFIG)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return run_probe(CONFIG, tmp_path_factory.mktemp("probe"))


def test_every_rollout_is_probed_in_every_context(records):
    names = [(record["problem_id"], record["context"]) for record in records]
    assert len(set(names)) == len(names) == 8
    for record in records:
        assert len(record["positions"]) == 4
        for position in record["positions"]:
            assert set(position["outcomes"]) == {"conform", "deviate", "resample"}
            assert all(len(values) == 3 for outcome in position["outcomes"].values() for values in outcome.values())
            assert all(position["index"] < length <= 64 for length in position["outcomes"]["resample"]["length"])
            assert position["forced"]["conform"] != position["forced"]["deviate"]


def test_the_control_is_the_same_whatever_the_teacher_sees(records):
    by_context = {context: [r for r in records if r["context"] == context] for context in CONFIG.contexts}
    for one, other in zip(*by_context.values(), strict=True):
        assert one["token_ids"] == other["token_ids"]
        for here, there in zip(one["positions"], other["positions"], strict=True):
            assert here["index"] == there["index"]
            assert here["outcomes"]["resample"] == there["outcomes"]["resample"]
    forced = [[p["forced"] for r in rs for p in r["positions"]] for rs in by_context.values()]
    assert forced[0] != forced[1]


def test_continuations_begin_with_the_rollout_and_the_forced_token(prober, monkeypatch):
    problem = load_problems(DATA)[0]
    [rollout] = prober.rollouts([problem])
    graded = []
    grade = Prober._grade
    monkeypatch.setattr(Prober, "_grade", lambda self, problem, ids: graded.append(list(ids)) or grade(self, problem, ids))
    [record] = prober.probe("solution", [problem], [rollout])
    assert graded[0] == rollout
    texts = iter(graded[1:])
    for position in record["positions"]:
        for token in position["forced"].values():
            prefix = rollout[: position["index"]] + ([] if token is None else [token])
            for _ in range(CONFIG.continuations):
                assert next(texts)[: len(prefix)] == prefix
    assert next(texts, None) is None


def test_a_forced_end_token_ends_the_completion(prober):
    problem = load_problems(DATA)[0]
    end = prober.tokenizer.eos_token_id
    from dasd.analysis.probe import Branch

    ended = Branch(problem, [5, end], [1, 2])
    full = Branch(problem, [5] * 64, [1, 2])
    going = Branch(problem, [5], [1, 2])
    prober._continue([ended, full, going])
    assert ended.tails == full.tails == [[], []]
    assert all(0 < len(tail) <= 63 for tail in going.tails)


def test_a_killed_probe_ends_as_the_uninterrupted_one(records, tmp_path):
    lines = [json.dumps(record) + "\n" for record in records]
    output = tmp_path / "cut"
    run_probe(CONFIG.model_copy(update={"data": DATA}), output)  # makes the folder's config
    whole = (output / RECORDS).read_text()
    assert [json.loads(line) for line in whole.splitlines()] == [json.loads(line) for line in lines]
    (output / RECORDS).write_text(whole[: int(len(whole) * 0.6)])
    again = run_probe(CONFIG, output)
    key = lambda record: (record["problem_id"], record["context"])  # noqa: E731
    assert sorted(again, key=key) == sorted(records, key=key)


def test_the_command_writes_a_summary_and_refuses_nonsense(tmp_path, capsys):
    words = ["probe", "bundled", "--output", str(tmp_path / "p"), "--data.limit", "2", "--max_completion_length", "48"]
    assert run([*words, "--positions", "2", "--continuations", "2"]) == 0
    summary = json.loads((tmp_path / "p" / "summary.json").read_text())
    assert len(summary["solution"]["verdict"]) == 5
    said = capsys.readouterr().out
    assert all(line[:40] in said for line in summary["solution"]["verdict"])
    page = (tmp_path / "p" / "probe.html").read_text()
    assert all(line in page for line in summary["solution"]["verdict"])
    assert page.count("<svg") == 6  # five measures, and correctness by decile
    assert "<script" not in page
    assert run([*words, "--positions", "4"]) == 2  # the folder holds another probe
    assert "positions" in capsys.readouterr().err
    assert run([*words[:3], str(tmp_path / "q"), "--contexts", "[solutoin]"]) == 2
    assert "solution" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()
