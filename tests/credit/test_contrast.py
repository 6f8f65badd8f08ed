"""Do the methods that contrast hints compute what their formulas say? By hand, as identities, by twin, by the authors' loss."""

import math

import numpy as np
import pytest
import torch

from dasd.credit import METHODS, TokenSignals, make_method
from dasd.credit.contrast import ContrastiveHints, ContrastiveTeacher, evidence
from reference import method_twin
from reference.batches import TOTALS, credit_of, full_batch


def told(right, wrong, advantage=1.0, **more):
    """Signals of one rollout from its tokens' log-probs under the right hint and, a list each, under wrong ones."""
    right, wrong = torch.tensor([right]), torch.tensor(wrong)[:, None]
    student = torch.full_like(right, -2.0)
    return TokenSignals(
        student, right, torch.ones_like(right), torch.ones_like(right), torch.tensor([advantage]), contrast_logps=wrong, **more
    )


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=5e-6)


# ---------------------------------------------------------------- evidence


def test_evidence_is_against_the_mean_probability_and_not_the_mean_log_prob():
    # probabilities 0.5 and 0.1 under two wrong hints: mean 0.3; 0.6 under the right one: log 2
    signals = told([math.log(0.6)], [[math.log(0.5)], [math.log(0.1)]])
    close(evidence(signals), [[math.log(2.0)]])
    # -0.1 and -8: the mean probability is 0.4526, above e^-1: evidence against the token. The mean log-prob, -4.05, is below
    signals = told([-1.0], [[-0.1], [-8.0]])
    close(evidence(signals), [[-1.0 - math.log((math.exp(-0.1) + math.exp(-8.0)) / 2)]])
    assert METHODS["rlcsd"](signals).advantages.item() == 0.5


def test_evidence_counts_the_hints_that_a_rollout_has():
    wrong = [[math.log(0.5)], [math.log(0.1)]]
    for has, mean in (([True, True], 0.3), ([True, False], 0.5), ([False, True], 0.1)):
        signals = told([math.log(0.6)], wrong, has_contrast=torch.tensor(has)[:, None])
        close(evidence(signals), [[math.log(0.6 / mean)]])
    assert evidence(told([-1.0], wrong, has_contrast=torch.zeros(2, 1, dtype=torch.bool))).tolist() == [[0.0]]
    assert evidence(told([-1.0], wrong, has_teacher=torch.tensor([False]))).tolist() == [[0.0]]


def test_very_unlikely_tokens_have_finite_evidence():
    found = evidence(told([-1000.0, -1e4, 0.0], [[-1001.0, 0.0, -1e4], [-2000.0, -1e4, -1e4]]))
    torch.testing.assert_close(found, torch.tensor([[1 + math.log(2), -1e4 + math.log(2), 1e4]]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ["rlcsd", "sipo"])
def test_the_student_is_not_read(name):
    batch = full_batch(0)
    other = batch | {"student_logps": batch["student_logps"] - 3.0}
    assert torch.equal(credit_of(METHODS[name], other).advantages, credit_of(METHODS[name], batch).advantages)


# ---------------------------------------------------------------- RLCSD


def test_rlcsd_adds_what_only_the_right_hint_says():
    # e = 0.01, -0.01, 0 and 0.0008: r = 0.5 tanh(e / 0.02) = 0.231059, -0.231059, 0 and 0.01999, which is too small
    signals = told([-1.0] * 4, [[-1.01, -0.99, -1.0, -1.0008]])
    step = 0.5 * math.tanh(0.5)
    close(METHODS["rlcsd"](signals).advantages, [[1 + step, 1 - step, 1.0, 1.0]])
    close(make_method("rlcsd", {"threshold": 0.0})(signals).advantages[:, 3:], [[1 + 0.5 * math.tanh(0.04)]])


def test_rlcsd_never_turns_a_sign():
    # A = 0.3 and a term of -0.5 (tanh saturated): not -0.2 but 0; a term of +0.5: 0.8. Mirrored for A = -0.3; A = 0 stays 0
    student, right = torch.full((3, 2), -2.0), torch.full((3, 2), -1.0)
    wrong = right + torch.tensor([1.0, -1.0])
    advantages = torch.tensor([0.3, -0.3, 0.0])
    signals = TokenSignals(student, right, student.abs(), torch.ones(3, 2), advantages, contrast_logps=wrong[None])
    close(METHODS["rlcsd"](signals).advantages, [[0.0, 0.8], [-0.8, 0.0], [0.0, 0.0]])
    cut = 0
    for seed in range(6):
        batch = full_batch(seed)
        found = credit_of(ContrastiveHints(scale=3.0, width=1.0), batch).advantages
        assert (found * batch["advantages"][:, None] >= 0).all()
        cut += int(((found == 0) & (batch["advantages"][:, None] * batch["completion_mask"] != 0)).sum())
    assert cut > 0


def test_rlcsd_averages_tokens_with_and_without_a_term_apart():
    # four tokens, one with a term: it counts 4 / 1, the others 4 / 3 each, so that the mean over four adds up both means
    signals = told([-1.0] * 4, [[-2.0, -1.0, -1.0, -1.0]])
    credit = METHODS["rlcsd"](signals)
    close(credit.loss_weights, [[4.0, 4 / 3, 4 / 3, 4 / 3]])
    A = credit.advantages[0]
    assert credit.loss_advantages[0].mean() == pytest.approx(float(A[0] + A[1:].mean()))
    plain = make_method("rlcsd", {"separate_means": False})(signals)
    assert plain.loss_weights is None
    assert torch.equal(plain.loss_advantages, plain.advantages)
    # of a batch of 64 tokens, 16 of which have a term
    whole = told([-1.0] * 4, [[-2.0, -1.0, -1.0, -1.0]], batch_totals=TOTALS)
    close(METHODS["rlcsd"](whole).loss_weights, [[4.0, 4 / 3, 4 / 3, 4 / 3]])
    for nothing in (told([-1.0] * 2, [[-1.0] * 2]), told([-1.0] * 2, [[-2.0] * 2])):
        close(METHODS["rlcsd"](nothing).loss_weights, [[1.0, 1.0]])


def test_rlcsds_totals_of_parts_add_up():
    batch = full_batch(1) | {"batch_totals": None, "has_teacher": None}
    batch["contrast_logps"][..., ::3] = batch["teacher_logps"][..., ::3]  # no evidence there
    whole = METHODS["rlcsd"].batch_totals(TokenSignals(**batch))
    cut = {name: (value[..., :5] if name not in ("advantages", "correct", "has_teacher", "has_contrast") else value)
           for name, value in batch.items() if isinstance(value, torch.Tensor)}  # fmt: skip
    rest = {name: (value[..., 5:] if name not in ("advantages", "correct", "has_teacher", "has_contrast") else value)
            for name, value in batch.items() if isinstance(value, torch.Tensor)}  # fmt: skip
    parts = [METHODS["rlcsd"].batch_totals(TokenSignals(**part)) for part in (cut, rest)]
    assert {name: int(value) for name, value in whole.items()} == {
        name: int(sum(part[name] for part in parts)) for name in whole
    }
    assert 0 < whole["with_term"] < whole["tokens"]


def two_path_loss(ratio, advantages, right, wrong, known, mask, lam=0.5, tau=0.02, delta=0.02, epsilon=0.2, eta=1.0):
    """The loss that the authors publish, re-derived: two clipped means, of the tokens with a term and of the others."""
    total = {True: [0.0, 0], False: [0.0, 0]}
    for b, t in mask.nonzero().tolist():
        probabilities = [wrong[k, b, t].double().exp() for k in range(len(wrong)) if known[k, b]]
        r = torch.tensor(0.0)
        if probabilities:
            r = lam * torch.tanh((right[b, t].double() - (sum(probabilities) / len(probabilities)).log()) / tau)
        chosen, A = bool(r.abs() > delta), advantages[b].double()
        if chosen:
            A = (A + r).clamp(min=0.0) if A > 0 else (A + r).clamp(max=0.0) if A < 0 else 0.0 * A
        loss = -torch.minimum(ratio[b, t] * A, ratio[b, t].clamp(1 - epsilon, 1 + epsilon) * A)
        total[chosen] = [total[chosen][0] + loss, total[chosen][1] + 1]
    plain, moved = (found / max(count, 1) for found, count in (total[False], total[True]))
    return plain + eta * moved


def test_rlcsds_gradient_is_that_of_the_two_means():
    for seed in range(9):
        batch = full_batch(seed) | {"batch_totals": None, "has_teacher": None}
        logps = batch["student_logps"].double().requires_grad_()
        old = (batch["student_logps"] + 0.25 * torch.randn(4, 14, generator=torch.Generator().manual_seed(seed))).double()
        credit = credit_of(METHODS["rlcsd"], batch)
        ratio, A = (logps - old).exp(), (credit.advantages * credit.loss_weights).double()
        ours = -(torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A) * batch["completion_mask"]).sum()
        (ours / batch["completion_mask"].sum().clamp(min=1)).backward()
        other = batch["student_logps"].double().requires_grad_()
        theirs = two_path_loss(
            (other - old).exp(), batch["advantages"], batch["teacher_logps"], batch["contrast_logps"], batch["has_contrast"],
            batch["completion_mask"],
        )  # fmt: skip
        if isinstance(theirs, torch.Tensor):
            theirs.backward()
            torch.testing.assert_close(logps.grad, other.grad, rtol=1e-5, atol=1e-7)
        else:
            assert not batch["completion_mask"].any()


# ---------------------------------------------------------------- SIPO


def test_sipo_adds_a_tenth_of_the_evidence_up_to_a_fifth_of_a_nat():
    # e = 0.1, -0.1, 5, -5, each times 0.1 after the cut at 0.2
    signals = told([-1.0] * 4, [[-1.1, -0.9, -6.0, 4.0]], advantage=0.5)
    close(METHODS["sipo"](signals).advantages, [[0.51, 0.49, 0.52, 0.48]])


def test_sipo_learns_where_the_whole_group_fails_and_never_turns_a_sign():
    right, wrong = [-1.0, -1.0], [[-6.0, 4.0]]
    close(METHODS["sipo"](told(right, wrong, advantage=0.0)).advantages, [[0.02, -0.02]])
    close(METHODS["sipo"](told(right, wrong, advantage=0.01)).advantages, [[0.03, 0.0]])
    close(METHODS["sipo"](told(right, wrong, advantage=-0.01)).advantages, [[0.0, -0.03]])


# ---------------------------------------------------------------- identities and twins


@pytest.mark.parametrize("name", ["rlcsd", "sipo"])
def test_wrong_hints_that_say_what_the_right_one_says_are_grpo(name):
    batch = full_batch(0)
    same = batch | {"contrast_logps": batch["teacher_logps"].expand(2, -1, -1)}
    grpo = batch["advantages"][:, None] * batch["completion_mask"]
    torch.testing.assert_close(credit_of(METHODS[name], same).advantages, grpo, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "twins"),
    [
        ("rlcsd", {}, {}),
        ("rlcsd", {"scale": 2.0, "width": 0.75, "threshold": 0.5}, None),
        ("sipo", {}, {}),
        ("sipo", {"kappa": 0.5, "clip": 2.0}, {"kappa": 0.5, "clip_at": 2.0}),
    ],
)
def test_agrees_with_the_twin(name, settings, twins):
    for seed in range(30):
        batch = full_batch(seed)
        twins = settings if twins is None else twins
        advantages, _, _ = method_twin.run(getattr(method_twin, name), batch, **twins)
        found = credit_of(make_method(name, settings), batch)
        np.testing.assert_allclose(found.advantages, advantages, rtol=1e-5, atol=2e-6)
        assert found.omega is None
        assert found.terms == ()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ContrastiveHints(width=0.0), "width must be above 0"),
        (lambda: ContrastiveHints(threshold=-0.1), "threshold must be at least 0"),
        (lambda: ContrastiveHints(wrong_hints=0), "wrong_hints must be at least 1"),
        (
            lambda: ContrastiveHints(hints_from="thin air"),
            "hints_from must be failed_rollouts or other_problems, got 'thin air'",
        ),
        (lambda: ContrastiveTeacher(kappa=-1.0), "kappa must be at least 0"),
        (lambda: ContrastiveTeacher(clip=0.0), "clip must be above 0"),
        (lambda: ContrastiveTeacher(wrong_hints=0), "wrong_hints must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["rlcsd", "sipo"])
def test_missing_contrasts_are_named(name):
    ones = torch.ones(1, 1)
    with pytest.raises(ValueError, match="this method needs contrast_logps, which was not given"):
        METHODS[name](TokenSignals(-ones, -ones, ones, ones, torch.ones(1)))
