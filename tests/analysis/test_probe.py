"""Does the probe continue what it forced, from the same text and with the same luck, and can it be killed?"""

import json

import pytest

from dasd.analysis import branches as module
from dasd.analysis.branches import Branch, places, write_branches
from dasd.analysis.probe import read_rollouts, run_probe, sample_rollouts
from dasd.analysis.probe_file import RECORDS, STUDENT, assemble, branch_key
from dasd.analysis.workbench import Workbench
from dasd.cli import run
from dasd.config import BadInput, DataConfig, ProbeConfig
from dasd.data.problems import load_problems
from dasd.files import read_lines
from dasd.folders import sole_writer
from dasd.tasks import make_task

DATA = DataConfig(split="validation", limit=4)
CONTEXTS = ("solution", "other_problem")
CONFIG = ProbeConfig(data=DATA, positions=2, continuations=3, max_completion_length=64, contexts=CONTEXTS, batch_size=32)


@pytest.fixture(scope="module")
def bench(bundled):
    return Workbench(*bundled, make_task("countdown"), load_problems(DATA), CONFIG)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return run_probe(CONFIG, tmp_path_factory.mktemp("probe"))


def of_kind(lines, kind):
    return [line for line in lines if line["kind"] == kind]


def test_every_rollout_is_read_and_continued(lines):
    assert len(of_kind(lines, "rollout")) == 4
    assert len(of_kind(lines, "reading")) == 8
    keys = [branch_key(line) for line in of_kind(lines, "branch")]
    assert len(keys) == len(set(keys))
    for record in assemble(lines, CONTEXTS):
        assert len(record["positions"]) == len({position["index"] for position in record["positions"]})
        for position in record["positions"]:
            assert set(position["contexts"]) == set(CONTEXTS)
            assert all(position["index"] < length <= 64 for length in position["control"]["length"])
            for of_context in position["contexts"].values():
                assert of_context["forced"]["conform"] != of_context["forced"]["deviate"]
                assert all(len(values) == 3 for outcome in of_context["outcomes"].values() for values in outcome.values())
    for reading in of_kind(lines, "reading"):
        assert all(0 <= value <= 1 for value in reading["tv"])
        assert set(reading["terms"]) == {"conformity", "dasd", "dasd_paper", "novelty"}


def test_what_contexts_share_is_sampled_once(lines):
    for record in assemble(lines, CONTEXTS):
        for position in record["positions"]:
            one, other = (position["contexts"][context] for context in CONTEXTS)
            for action in ("conform", "deviate"):
                if one["forced"][action] == other["forced"][action]:
                    assert one["outcomes"][action] is other["outcomes"][action]


def test_shared_continuations_are_those_that_would_have_been_sampled(bench, lines, monkeypatch):
    """With sharing switched off every outcome is the same, and more tokens are sampled."""
    again = [line for line in lines if line["kind"] != "branch"]
    monkeypatch.setattr(Branch, "share", lambda self, control: None)
    write_branches(bench, list(again), again.append)
    ours, theirs = ({branch_key(line): line for line in of_kind(each, "branch")} for each in (lines, again))
    assert {key: line["outcomes"] for key, line in ours.items()} == {key: line["outcomes"] for key, line in theirs.items()}
    sampled = [sum(line["tokens"] for line in each.values()) for each in (ours, theirs)]
    assert sampled[0] < 0.9 * sampled[1]
    assert any(line["tokens"] == 0 for line in ours.values())


def test_continuations_begin_with_the_rollout_and_the_forced_token(bench, lines, monkeypatch):
    graded = {}
    grade = Workbench.grade

    def listen(self, name, completions):
        graded.setdefault(name, []).append([list(ids) for ids in completions])
        return grade(self, name, completions)

    monkeypatch.setattr(Workbench, "grade", listen)
    again = [line for line in lines if line["kind"] != "branch"]
    write_branches(bench, list(again), again.append)
    rollouts = {line["problem_id"]: line["token_ids"] for line in of_kind(lines, "rollout")}
    for name, batches in graded.items():
        kept = [line for line in of_kind(again, "branch") if line["problem_id"] == name]
        for line, completions in zip(kept, batches, strict=True):
            prefix = rollouts[name][: line["index"]] + ([] if line["token"] is None else [line["token"]])
            assert len(completions) == 3
            assert all(ids[: len(prefix)] == prefix for ids in completions)


def test_a_forced_end_token_ends_the_completion(bench):
    end, name, kept = bench.tokenizer.eos_token_id, next(iter(bench.problems)), []
    ended = Branch(name, 1, STUDENT, end, [5], [1, 2])
    full = Branch(name, 63, STUDENT, None, [5] * 63, [1, 2])
    module._continue(bench, [ended, full], kept.append, lambda count: None, lambda count=1: None)
    assert ended.tails == {0: [end], 1: [end]}
    assert [len(tail) for tail in full.tails.values()] == [1, 1]
    assert [line["outcomes"]["length"] for line in kept] == [[2, 2], [64, 64]]


def test_the_teacher_writes_on_from_its_own_prompt(bench):
    """At a revision the teacher goes on after the marker; where it knows the answer it reads more than the student."""
    rollout = {"positions": [], "revisions": [{"index": 3, "suppressed": 9}], "token_ids": [1, 2, 3, 4, 5]}
    readings = [{"context": "solution", "forced": {}}]
    assert places(rollout, readings) == [(3, STUDENT, 4), (3, STUDENT, 9), (3, "solution", 4)]
    name = next(iter(bench.problems))
    assert len(bench.prompt(name, "solution")) > len(bench.prompt(name, STUDENT))
    assert bench.prompt(name, "peer") is None


def test_revisions_are_kept_suppressed_and_taught(bundled):
    """A rollout that says wait: its marker is forced, or something else is."""
    bench = Workbench(*bundled, make_task("countdown"), load_problems(DATA), CONFIG)
    lines = []
    sample_rollouts(bench, lines, lines.append)
    read_rollouts(bench, list(lines), lines.append)
    write_branches(bench, list(lines), lines.append)
    found = [(record, revision) for record in assemble(lines, CONTEXTS) for revision in record["revisions"]]
    assert found
    for record, revision in found:
        own = bench.tokenizer.decode([record["token_ids"][revision["index"]]])
        assert any(own.strip(" ,").startswith(word) for word in ("wait", "hmm", "alternatively"))
        assert revision["suppressed"] != record["token_ids"][revision["index"]]
        assert set(revision["teacher"]) == set(CONTEXTS)


def test_a_killed_probe_ends_as_the_uninterrupted_one(lines, tmp_path):
    output = tmp_path / "cut"
    output.mkdir()
    whole = [json.dumps(line) + "\n" for line in lines]
    content = "".join(whole)
    for share in (0.15, 0.6, 0.93):
        (output / RECORDS).write_text(content[: int(len(content) * share)])
        kept = content[: int(len(content) * share)].count("\n")
        again = run_probe(CONFIG, output)
        assert again[:kept] == lines[:kept]
        known = lambda line: json.dumps({**line, "tokens": 0})  # noqa: E731 - how much was shared depends on when it was killed
        assert sorted(map(known, again)) == sorted(map(known, lines))
        assert sorted(map(known, read_lines(output / RECORDS))) == sorted(map(known, lines))


def test_two_probes_never_write_one_folder(tmp_path):
    with sole_writer(tmp_path / RECORDS, "wait"), pytest.raises(BadInput, match="another process is writing"):
        run_probe(CONFIG, tmp_path)


def test_the_command_writes_a_summary_and_refuses_nonsense(tmp_path, capsys):
    words = ["probe", "bundled", "--output", str(tmp_path / "p"), "--data.limit", "2", "--max_completion_length", "48"]
    assert run([*words, "--positions", "1", "--continuations", "2"]) == 0
    summary = json.loads((tmp_path / "p" / "summary.json").read_text())
    assert (summary["task"], summary["model"]) == ("countdown", "bundled")
    predicted = summary["contexts"]["solution"]["predictions"]
    assert {each["word"] for name, each in predicted.items() if name != "grpo"} == {"undecided"}  # two problems
    said = " ".join(capsys.readouterr().out.split())
    assert "At most" in said
    page = (tmp_path / "p" / "probe.html").read_text()
    for name, each in predicted.items():
        assert f"{name}: {each['sentence']}" in said
        assert each["sentence"] in page
    assert "not validated" in said
    assert "not validated" in page
    assert page.count("<svg") >= 9  # five measures; correctness, total variation, shift and gap by decile
    assert "<script" not in page
    assert run([*words, "--positions", "4"]) == 2  # the folder holds another probe
    assert "positions" in capsys.readouterr().err
    assert run([*words[:3], str(tmp_path / "q"), "--contexts", "[solutoin]"]) == 2
    assert "solution" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()
