"""Is each sample judged once, by whom it says, and is what cannot be read counted apart? Real HTTP on localhost."""

import json
import re

import pytest

import dasd.evaluation.samplers.openai as sampler_module
from dasd.cli import run
from dasd.config import BadInput, EvalConfig, JudgeConfig, load_config
from dasd.evaluation.judge import PROMPT, Judge
from dasd.evaluation.summary import metric_sums, summarize
from dasd.evaluation.verdicts import read_verdict, split_steps
from dasd.files import read_lines
from dasd.report.data.metrics import describe
from openai_server import serve


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(sampler_module, "FIRST_PAUSE_S", 0.01)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n ", []),
        ("3 + 4 = 7", ["3 + 4 = 7"]),
        ("First this. Then that! Done?", ["First this.", "Then that!", "Done?"]),
        ("x = 3.5 and no more", ["x = 3.5 and no more"]),
        ("one\ntwo. three", ["one", "two. three"]),
        ("a\nb\n\nc\n \n\nd", ["a\nb", "c", "d"]),
    ],
)
def test_steps_are_paragraphs_or_lines_or_sentences(text, steps):
    assert split_steps(text) == steps


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Step 1 is fine.\nFirst wrong step: 2", (2, None)),
        ("**First wrong step:** none.", (None, None)),
        ("first wrong step: 1 ... no.\nFIRST WRONG STEP: 3", (3, None)),
        ("First wrong step: 4", (None, "step 4 of 3")),
        ("First wrong step: 0", (None, "step 0 of 3")),
        ("Step 2 is wrong", (None, "no verdict")),
        ("First wrong step: two", (None, "no verdict")),
        ("", (None, "no verdict")),
    ],
)
def test_verdicts_are_read_or_refused(said, verdict):
    assert read_verdict(said, 3) == verdict


def test_figures_by_hand():
    """Wrong at step 1 of 4, at step 3 of 4, nowhere in 2, not to be read; and one that nobody judged."""
    found = [(4, 1, None), (4, 3, None), (2, None, None), (5, None, "no verdict"), None]
    records = [
        {
            "problem_id": "p", "sample": i, "text": "", "token_ids": [], "finish_reason": "stop", "status": "correct",
            "extracted": "4", "steps_right": 0, "steps_checked": 0,
        } | ({} if each is None else {"verdict": dict(zip(("steps", "first_wrong", "error"), each, strict=True))})
        for i, each in enumerate(found)
    ]  # fmt: skip
    summary = summarize(metric_sums(["p"], records, 5), 5)
    assert summary["judged_correct_step_rate"] == pytest.approx((0 + 2 + 2) / 10)
    assert summary["judged_no_wrong_step"] == pytest.approx(1 / 3)
    assert summary["judged_first_wrong_step"] == 2.0
    assert summary["judge_failed"] == 1 / 4
    assert all(describe(name).role == "health" for name in summary["ci95"] if name.startswith("judge"))
    assert not any(name.startswith("judge") for name in metric_sums(["p"], records[4:], 1))


def chat(text, finish="stop"):
    return 200, {}, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}]}


WORDS = ["eval", "bundled", "--num_samples", "2", "--data.limit", "5", "--max_completion_length", "40"]


def test_an_evaluation_is_judged_once_and_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    """The judge's server dies after 3 answers: exit code 1, and the rest when it is back. One answer is nonsense."""
    monkeypatch.setenv("JUDGE_KEY", "secret")
    words = [*WORDS, "--output", str(tmp_path / "e")]

    def behave(count, body):
        if count in range(4, 8):
            return 500, {}, "overloaded"
        return chat("I cannot say" if count == 2 else "Fine.\nFirst wrong step: 1" if count == 3 else "First wrong step: none")

    with serve(behave) as server:
        judge = ["--judge.base_url", server.url, "--judge.model", "some/judge", "--judge.api_key_env", "JUDGE_KEY"]
        judge += ["--judge.concurrency", "1", "--judge.retries", "2"]
        assert run([*words, *judge]) == 1
        assert "overloaded" in capsys.readouterr().err
        assert len(read_lines(tmp_path / "e" / "judge.jsonl")) == 3
        assert len(server.seen) == 6
        assert run([*words, *judge]) == 0
        asked = len(server.seen)
        assert run([*words, *judge]) == 0
        assert len(server.seen) == asked == 6 + 1 + 2  # the fourth was refused once more, then the last two
        verdicts = read_lines(tmp_path / "e" / "judge.jsonl")
        assert len({(each["problem_id"], each["sample"]) for each in verdicts}) == 5
        assert {each["sample"] for each in verdicts} == {0}  # judge.samples is 1
        assert run([*words, *judge, "--judge.samples", "2"]) == 0
        assert len(read_lines(tmp_path / "e" / "judge.jsonl")) == 10
        body = server.seen[0]
        assert (body["model"], body["temperature"]) == ("some/judge", 0.0)
        assert not set(body) & {"top_k", "min_p"}  # only what OpenAI's own protocol has
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
        said = body["messages"][0]["content"]
        first = read_lines(tmp_path / "e" / "samples.jsonl")[0]
        assert re.search(r"Use [\d ]+ to make \d+\.", said)
        assert all(f"[{i}] {step}" in said for i, step in enumerate(split_steps(first["text"]), start=1))
        assert run([*words, *judge, "--judge.model", "another"]) == 0  # another judge starts anew
        assert len(read_lines(tmp_path / "e" / "judge.jsonl")) == 5
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["judged_no_wrong_step"] == 1.0
    assert "secret" not in (tmp_path / "e" / "judge.jsonl").read_text()


def test_what_a_text_says_is_never_filled_in(tmp_path):
    judge = Judge(JudgeConfig(base_url="http://localhost:1/v1", model="m"))
    [message] = judge._messages("What is {steps}?", ["{problem}", "two"])
    assert "What is {steps}?" in message["content"]
    assert "[1] {problem}\n\n[2] two" in message["content"]
    assert PROMPT.read_text().count("{steps}") == 1


def test_settings_that_cannot_be(tmp_path):
    def complaint(*words):
        with pytest.raises(BadInput) as caught:
            load_config(EvalConfig, None, words)
        return str(caught.value)

    assert "judge.model is not" in complaint("--judge.base_url", "http://a/v1")
    assert "judge.base_url is not" in complaint("--judge.model", "m")
    assert "got 'localhost'" in complaint("--judge.base_url", "localhost", "--judge.model", "m")
    (tmp_path / "p.txt").write_text("Is this right? {problem}")
    with pytest.raises(BadInput, match=r"must have \{steps\} in it"):
        Judge(JudgeConfig(base_url="http://a/v1", model="m", prompt=str(tmp_path / "p.txt")))
    with pytest.raises(BadInput, match="cannot be read"):
        Judge(JudgeConfig(base_url="http://a/v1", model="m", prompt=str(tmp_path / "none.txt")))
