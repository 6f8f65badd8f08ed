"""Does Maj@k count equal answers as equal, whatever their texts, and at what cost?"""

import json

import pytest

from dasd.config import EvalConfig
from dasd.evaluation.answers import MOST_COMPARED, answer_classes
from dasd.evaluation.benchmarks import Suite
from dasd.evaluation.folder import Evaluation, read_samples
from dasd.evaluation.runner import regrade_samples
from dasd.evaluation.summary import votes
from dasd.tasks.base import GradeStatus, Problem
from dasd.tasks.countdown import CountdownTask
from dasd.tasks.math import MathTask

TASK = MathTask(seconds=20.0)


def records(*answers, problem="p"):
    return [{"problem_id": problem, "extracted": text, "status": status} for text, status in answers]


def folder_of(path, gold, texts):
    """An evaluation of one problem whose samples are on file, not yet graded."""
    fields = {"problem_id": "0", "token_ids": [1], "finish_reason": "stop", "status": "", "extracted": None}
    lines = [json.dumps(fields | {"sample": i, "text": text}) for i, text in enumerate(texts)]
    (path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    suite = Suite("mine", "math", [Problem("0", "A half?", gold)])
    evaluation = Evaluation(suite, EvalConfig(num_samples=len(texts)), path)
    (path / "eval.json").write_text(json.dumps({"identity": evaluation.identity}))
    return evaluation


def test_equal_answers_vote_together(tmp_path):
    texts = [f"\\boxed{{{answer}}}" for answer in (r"\frac{1}{2}", "0.5", "1/2", "2", "2")]
    finished = regrade_samples(folder_of(tmp_path, "1/2", texts))
    assert finished is not None
    assert finished.summary["maj_at_5"] == 1.0
    assert finished.summary["avg_at_5"] == 0.6
    ballots, silent = votes(read_samples(tmp_path).values())
    assert (sorted(ballots), silent) == ([(2, 0), (3, 3)], 0)
    assert {record["answer"] for record in read_samples(tmp_path).values()} == {r"\frac{1}{2}", "2"}


def test_wrong_answers_that_are_equal_vote_together_too(tmp_path):
    texts = [f"\\boxed{{{answer}}}" for answer in ("5", r"\frac{1}{2}", "0.5", "1/2", "5")]
    finished = regrade_samples(folder_of(tmp_path, "5", texts))
    assert finished is not None
    assert finished.summary["maj_at_5"] == 0.0  # three halves outvote two fives


def test_undecided_answers_are_counted_apart(tmp_path):
    texts = [r"\boxed{7 \text{ pears}}", r"\boxed{7 \text{ apples}}", "hm"]
    finished = regrade_samples(folder_of(tmp_path, r"7 \text{ apples}", texts))
    assert finished is not None
    assert finished.summary["statuses"] == {"undecided": 1, "correct": 1, "no_answer": 1}
    assert finished.summary["undecided"] == pytest.approx(1 / 3)
    assert finished.summary["avg_at_3"] == pytest.approx(1 / 3)
    assert finished.summary["claims_true"] == 1.0


def test_a_sample_that_was_cut_off_is_no_answer_even_when_graded_again(tmp_path):
    evaluation = folder_of(tmp_path, "49", ["225 - 176 = 49", "225 - 176 = 49"])
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    lines[0]["finish_reason"] = "length"
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    regrade_samples(evaluation)
    assert [record["status"] for record in read_samples(tmp_path).values()] == ["no_answer", "correct"]


def test_comparisons_are_bounded():
    class Counting(MathTask):
        def same_answers(self, pairs):
            asked.extend(pairs)
            return [False] * len(pairs)

    asked: list = []
    wrong = [(str(n), GradeStatus.INCORRECT) for n in range(200)]
    assert answer_classes(records(*wrong), Counting()) == {}
    assert len(asked) == MOST_COMPARED * (MOST_COMPARED - 1) // 2


def test_an_answer_that_cannot_be_compared_stands_alone_and_is_not_tried_again():
    class Failing(MathTask):
        def same_answers(self, pairs):
            asked.extend(pairs)
            return [None if "bad" in pair else pair[0] == pair[1].strip() for pair in pairs]

    asked: list = []
    wrong = [(text, GradeStatus.INCORRECT) for text in ("1", "1", "2", "2", "bad", "1 ", "2 ")]
    assert answer_classes(records(*wrong), Failing()) == {"p": {"1 ": "1", "2 ": "2"}}
    assert sum("bad" in pair for pair in asked) == 1


def test_problems_are_kept_apart_and_tasks_without_meaning_have_no_classes():
    both = [*records(("0.5", "incorrect"), problem="p"), *records(("1/2", "incorrect"), problem="q")]
    assert answer_classes(both, TASK) == {}
    assert answer_classes(both, CountdownTask()) == {}
