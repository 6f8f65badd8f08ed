"""Does the reader say of each token what scoring and credit say?"""

import pytest
import torch

from dasd.analysis.token_credit import TokenReader, choose_rollouts, group_advantages
from dasd.credit import METHODS, DirectionAdaptive, TokenSignals, make_method
from dasd.credit.lookahead import Lookahead
from dasd.credit.routing import SIGNALS
from dasd.data.problems import as_row
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import PrivilegedContext


def reader(bundled, method="dasd", context="solution", **settings):
    model, tokenizer = bundled
    return TokenReader(model, tokenizer, make_method(method, settings), PrivilegedContext(context))


@pytest.fixture(scope="module")
def sample(bundled):
    _, tokenizer = bundled
    return {"token_ids": tokenizer("perhaps 11 + 9 = 20, wait, 20 - 11 = 9.")["input_ids"], "status": "incorrect"}


def log_probs(bundled, prompt, ids):
    """(T, V) by one plain forward pass."""
    model, tokenizer = bundled
    start = tokenize_prompt(tokenizer, prompt)
    with torch.no_grad():
        logits = model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1]
    return logits.float().log_softmax(-1)


def test_every_column_is_what_a_plain_forward_pass_gives(bundled, problems, sample):
    problem, ids = problems[0], sample["token_ids"]
    read = reader(bundled, beta=0.5, gap_scale="mean_abs")
    found = read.read(sample, problem, -0.7)
    texts = read.document("note")["texts"]
    row = as_row(problem)
    student = log_probs(bundled, row["prompt"], ids)
    teacher = log_probs(bundled, PrivilegedContext("solution").prompt(row), ids)
    place = torch.arange(len(ids))
    gap = teacher[place, ids] - student[place, ids]
    assert found["gap"] == pytest.approx(gap.tolist(), abs=1e-3)
    assert found["entropy"] == pytest.approx((-(student.exp() * student).sum(-1)).tolist(), abs=1e-3)
    for side, expected in (("student", student), ("teacher", teacher)):
        best = expected.exp().topk(5)
        assert found[side]["probabilities"] == pytest.approx(best.values.flatten().tolist(), abs=1e-3)
        first = [texts[token] for token in found[side]["tokens"][::5]]
        assert first == [bundled[1].decode([token]) for token in best.indices[:, 0].tolist()]
    assert "".join(texts[token] for token in found["tokens"]) == bundled[1].decode(ids)
    assert found["reference"] == problem.solution
    unit = gap / gap.abs().mean()
    expected = [-0.7 + 0.5 * omega * bar for omega, bar in zip(found["omega"], unit.clamp(-5, 5).tolist(), strict=True)]
    assert found["credit"] == pytest.approx(expected, abs=2e-3)


def test_where_nothing_is_privileged_there_is_no_gap(bundled, problems, sample):
    for context in ("none", "peer"):  # no peer is given
        found = reader(bundled, context=context).read(sample, problems[0], 1.0)
        assert set(found["gap"]) == {0.0}
        assert found["reference"] is None
        assert found["student"] == found["teacher"]
    found = reader(bundled, context="peer").read(sample, problems[0], 1.0, ["20 + 11 = 31"])
    assert found["reference"] == "20 + 11 = 31"
    assert any(found["gap"])


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_method_can_be_read(bundled, problems, sample, method):
    found = reader(bundled, method).read(sample, problems[0], 1.0, failed=["3 + 7 = 11"])
    assert len(found["credit"]) == len(sample["token_ids"])
    assert (found["omega"] is None) == (not isinstance(METHODS[method], DirectionAdaptive | Lookahead))


def test_contrastive_hints_are_failed_rollouts(bundled, problems, sample):
    read = reader(bundled, "rlcsd")
    assert len(set(read.read(sample, problems[0], 1.0, failed=["3 + 7 = 11"])["credit"])) > 1
    assert set(read.read(sample, problems[0], 1.0)["credit"]) == {1.0}  # no failed rollout, no wrong hint, no teacher


@pytest.mark.parametrize("settings", [{}, {"control": "permuted_gap"}])
def test_antisd_is_read_as_after_its_warm_up(bundled, problems, sample, settings):
    assert len(set(reader(bundled, "antisd", **settings).read(sample, problems[0], 1.0)["credit"])) > 1


def test_contrastive_hints_are_as_many_as_training_takes(bundled, problems, sample):
    """The map took the first wrong hint, training the mean over up to four of them."""
    hints = ["11 + 9 = 20, 20 + 20 = 40", "9 + 9 = 18", "11 - 9 = 2, 2 * 20 = 40"]
    several, single = reader(bundled, "rlcsd"), reader(bundled, "rlcsd", wrong_hints=1)
    together = several.read(sample, problems[0], 1.0, failed=hints)["credit"]
    assert together != single.read(sample, problems[0], 1.0, failed=hints)["credit"]
    ids, row = sample["token_ids"], as_row(problems[0])
    place = torch.arange(len(ids))
    wrong_context = PrivilegedContext("solution").wrong("failed_rollouts")
    prompts = [PrivilegedContext("solution").prompt(row), *(wrong_context.prompt(row, [hint]) for hint in hints)]
    told, *wrong = (log_probs(bundled, prompt, ids)[place, ids] for prompt in prompts)
    student = log_probs(bundled, row["prompt"], ids)
    signals = TokenSignals(
        student[place, ids][None], told[None], torch.special.entr(student.exp()).sum(-1)[None], torch.ones(1, len(ids)),
        torch.tensor([1.0]), contrast_logps=torch.stack(wrong)[:, None],
    )  # fmt: skip
    assert together == pytest.approx(make_method("rlcsd")(signals).advantages[0].tolist(), abs=2e-3)


def test_contrastive_hints_may_be_those_of_other_problems(bundled, problems, sample):
    read = reader(bundled, "rlcsd")
    read.method = make_method("rlcsd", {"hints_from": "other_problems"})
    read.others = problems
    assert len(set(read.read(sample, problems[0], 1.0)["credit"])) > 1
    read.others = problems[:1]  # no other problem, no wrong hint, no teacher
    assert set(read.read(sample, problems[0], 1.0)["credit"]) == {1.0}


def test_group_advantages_by_hand():
    assert group_advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.4997, -0.4999, -0.4999, -0.4999], abs=1e-4)
    assert group_advantages([1.0, 0.0], scale=False) == [0.5, -0.5]
    assert group_advantages([0.0, 0.0]) == [0.0, 0.0]


def test_chosen_rollouts_are_long_and_right_and_wrong_in_turn():
    def record(problem, status, length):
        return {"problem_id": problem, "status": status, "token_ids": [0] * length}

    records = [record("a", "correct", 3), record("a", "correct", 5), record("a", "incorrect", 9), record("a", "no_answer", 2)]
    records += [record("b", "correct", 4), record("b", "incorrect", 6), record("b", "incorrect", 7)]
    records += [record("c", "correct", 99)]  # always solved
    chosen = choose_rollouts(records)
    told = [(r["problem_id"], r["status"], len(r["token_ids"])) for r, _ in chosen]
    assert told == [("a", "correct", 5), ("b", "incorrect", 7)]
    assert chosen[0][1] == pytest.approx(0.5 / (1 / 3) ** 0.5, abs=1e-3)


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_signal_can_be_read(bundled, problems, sample, signal):
    """The tokens above the signal's own quantile are the repelled ones; attention is refused unless it gives its weights."""
    model = bundled[0]
    read = reader(bundled, rho=0.5, signal=signal, map="hard", gate="none")
    if signal == "attention_entropy":
        with pytest.raises(ValueError, match="needs the attention's weights"):
            read.read(sample, problems[0], 0.0)
        model.set_attn_implementation("eager")
    try:
        omega = read.read(sample, problems[0], 0.0, batch=[sample["token_ids"], sample["token_ids"][:10]])["omega"]
    finally:
        model.set_attn_implementation("sdpa")
    assert {1.0, -1.0} <= set(omega)
    if signal == "position":
        assert omega == sorted(omega)
    if signal == "token_frequency":
        ids = sample["token_ids"]
        seen = [*ids, *ids[:10]]
        rarest, commonest = min(ids, key=seen.count), max(ids, key=seen.count)
        assert omega[ids.index(rarest)] < omega[ids.index(commonest)]
