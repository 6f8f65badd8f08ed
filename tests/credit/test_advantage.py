"""Do the methods that change the advantage of each token compute what their formulas say? By hand, as identities, by twin."""

import math

import numpy as np
import pytest
import torch

from dasd.credit import METHODS, Schedule, TokenSignals, assign_credit, make_method
from dasd.credit.advantage import AntiSelfDistillation, ContrastiveHints, Forking, RewardRescaled
from reference import method_twin
from reference.batches import credit_of, full_batch


def one(gap, advantage=1.0, entropy=None, **more):
    """Signals of one rollout: these gaps on top of a student at -2."""
    gap = torch.tensor([gap])
    student = torch.full_like(gap, -2.0)
    entropy = torch.ones_like(gap) if entropy is None else torch.tensor([entropy])
    return TokenSignals(student, student + gap, entropy, torch.ones_like(gap), torch.tensor([advantage]), **more)


def credit(name, signals, step=0, **settings):
    return assign_credit(signals, make_method(name, settings), step).advantages


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=2e-6, atol=2e-6)


def grpo(batch):
    return batch["advantages"][:, None] * batch["completion_mask"]


LOG = {factor: math.log(factor) for factor in (0.5, 0.9, 1.1, 1.5, 2.0, 3.0)}  # a gap of log 2: twice as likely to the teacher


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo"])
def test_grpo_is_the_verifier_alone(name):
    assert credit(name, one([1.0, -3.0], advantage=0.7)).tolist() == [[pytest.approx(0.7)] * 2]


def test_forking_keeps_the_top_fifth_of_the_batch():
    # ten tokens in two rollouts: floor(0.8 * 10) = 8 lie below the threshold, the two most uncertain ones remain: H = 9 and 8
    entropy = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0], [4.0, 3.0, 2.0, 1.0, 0.0]])
    signals = TokenSignals(entropy, entropy, entropy, torch.ones(2, 5), torch.tensor([2.0, -1.0]))
    assert Forking()(signals).advantages.tolist() == [[2.0, 2.0, 0.0, 0.0, 0.0], [0.0] * 5]
    # one threshold for each rollout: its own fifth, one token
    assert Forking(scope="rollout")(signals).advantages.tolist() == [[2.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]]


def test_forking_counts_valid_tokens_only():
    # five valid tokens of eight: one fork. The masked ones would push the threshold to 50
    entropy = torch.tensor([[50.0, 1.0, 2.0, 60.0, 3.0, 4.0, 70.0, 5.0]])
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 0, 1]])
    forks = Forking()(TokenSignals(entropy, entropy, entropy, mask, torch.ones(1))).advantages
    assert forks.tolist() == [[0.0] * 7 + [1.0]]


def test_rlsd_rescales_towards_what_the_teacher_likes():
    # lam = 0.5, factor clip(2, 0.8, 1.2) = 1.2, clip(0.5) = 0.8, 1.1, 0.9: A_t = A * (0.5 + 0.5 * factor)
    gaps = [LOG[2.0], LOG[0.5], LOG[1.1], LOG[0.9], 0.0]
    close(credit("rlsd", one(gaps, 2.0)), [[2.2, 1.8, 2.1, 1.9, 2.0]])
    # A < 0: exp(-u) = 0.5, 2, 1/1.1, 1/0.9: what the teacher likes is punished less
    close(credit("rlsd", one(gaps, -2.0)), [[-1.8, -2.2, -(1 + 1 / 1.1), -(1 + 1 / 0.9), -2.0]])
    assert credit("rlsd", one(gaps, 0.0)).tolist() == [[0.0] * 5]


def test_rlsd_fades_out_in_fifty_steps():
    # lam = 0.5 * (1 - step / 50): at step 25, lam = 0.25 and the factor is 0.75 + 0.25 * 1.2 = 1.05
    signals = one([LOG[2.0]], 2.0)
    assert [credit("rlsd", signals, step).item() for step in (0, 25, 50, 500)] == pytest.approx([2.2, 2.1, 2.0, 2.0])


def test_rlrt_deviates_and_cuts_at_0_and_2():
    # lam = 1, A = 1: factor = exp(-u) = 0.5, 2 (of 2), 1/1.5 and, for u = -3 (20.1), 2
    signals = one([LOG[2.0], LOG[0.5], LOG[1.5], -3.0], correct=torch.tensor([True]))
    close(credit("rlrt", signals, lam=1.0), [[0.5, 2.0, 2 / 3, 2.0]])
    close(credit("rlrt", signals), [[0.75, 1.5, 5 / 6, 1.5]])  # lam = 0.5


def test_rlrt_leaves_wrong_rollouts_alone():
    batch = full_batch(0)
    found, wrong = credit_of(make_method("rlrt", {"lam": 1.0}), batch).advantages, ~batch["correct"]
    assert torch.equal(found[wrong], grpo(batch)[wrong])
    assert not torch.equal(found[~wrong], grpo(batch)[~wrong])


def test_rlrt_goes_by_the_verifier_and_not_by_the_sign_of_the_advantage():
    negative_but_right = one([LOG[2.0]], -1.0, correct=torch.tensor([True]))
    # A < 0: exp(-sign(A) * u) = exp(log 2) = 2
    close(credit("rlrt", negative_but_right, lam=1.0), [[-2.0]])
    positive_but_wrong = one([LOG[2.0]], 1.0, correct=torch.tensor([False]))
    close(credit("rlrt", positive_but_wrong, lam=1.0), [[1.0]])


def test_antisd_moves_away_from_the_teacher():
    # softplus(u) - log 2 = log((1 + e^u) / 2): e^u = 3 gives log 2; 0.5 gives log 0.75; u = 0 gives 0
    signals = one([LOG[3.0], LOG[0.5], 0.0], 1.0, teacher_entropy_history=[])
    close(credit("antisd", signals), [[1 - 0.25 * math.log(2), 1 - 0.25 * math.log(0.75), 1.0]])
    close(credit("antisd", signals, lam=2.0), [[1 - math.log(2), 1 - math.log(0.75), 1.0]])


@pytest.mark.parametrize(
    ("history", "on"),
    # warm-up of two steps with mean (1.2 + 0.8) / 2 = 1; the threshold is 0.93
    [
        ([], True),
        ([0.1], True),
        ([1.9, 0.1], True),  # still warm-up, at a tenth of its mean
        ([1.2, 0.8, 0.94], True),
        ([1.2, 0.8, 0.92], False),
        ([1.2, 0.8, 0.92, 0.94], True),  # on again
        ([1.2, 0.8, 0.94, 0.1], False),
    ],
)
def test_antisd_rests_while_the_teacher_is_too_sure(history, on):
    method = AntiSelfDistillation(warmup_steps=2)
    assert method.is_on(history) is on
    found = method(one([LOG[3.0]], 1.0, teacher_entropy_history=history)).advantages.item()
    assert found == pytest.approx(1 - 0.25 * math.log(2) if on else 1.0)


def test_antisd_at_the_threshold_itself_is_on():
    method = AntiSelfDistillation(switch=0.5, warmup_steps=1)
    assert method.is_on([2.0, 1.0])
    assert not method.is_on([2.0, 0.999])


def test_antisd_without_switch_needs_no_history():
    method = make_method("antisd", {"switch": None})
    assert method.needs == {"teacher_logps"}
    close(method(one([LOG[3.0]])).advantages, [[1 - 0.25 * math.log(2)]])
    with pytest.raises(ValueError, match="needs teacher_entropy_history"):
        METHODS["antisd"](one([LOG[3.0]]))


def test_rlcsd_adds_what_only_the_right_hint_says():
    # log-prob under the right hint -1, -1, -1.01; wrong hints -1.01 and -0.97 (mean -0.99): e = -0.01, then with -1.02 and
    # -1.0 (mean -1.01): e = 0.01, then the same for both: 0. tanh(0.5) = 0.462117
    student = torch.full((1, 3), -2.0)
    right, wrong = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[[-1.01, -1.02, -1.0]], [[-0.97, -1.0, -1.0]]])
    signals = TokenSignals(student, right, torch.ones(1, 3), torch.ones(1, 3), torch.tensor([1.0]), contrast_logps=wrong)
    step = 0.5 * math.tanh(0.5)
    torch.testing.assert_close(
        METHODS["rlcsd"](signals).advantages, torch.tensor([[1 - step, 1 + step, 1.0]]), rtol=0, atol=5e-6
    )


def test_rlcsd_does_not_read_the_student():
    batch = full_batch(0)
    other = batch | {"student_logps": batch["student_logps"] - 3.0}
    assert torch.equal(credit_of(METHODS["rlcsd"], other).advantages, credit_of(METHODS["rlcsd"], batch).advantages)


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
        cut += int(((found == 0) & (grpo(batch) != 0)).sum())
    assert cut > 0


def test_opsd_sampled_is_the_gap_without_a_verifier():
    assert credit("opsd_sampled", one([0.5, -1.25], 7.0)).tolist() == [[0.5, -1.25]]


# ---------------------------------------------------------------- identities

SILENT = {"rlsd": {"lam": 0.0}, "rlrt": {"lam": 0.0}, "antisd": {"lam": 0.0}, "rlcsd": {"scale": 0.0}, "forking": {"rho": 1.0}}


@pytest.mark.parametrize("name", SILENT)
def test_a_weight_of_zero_is_grpo(name):
    for seed in range(3):
        batch = full_batch(seed)
        assert torch.equal(credit_of(make_method(name, SILENT[name]), batch).advantages, grpo(batch))


@pytest.mark.parametrize("name", ["rlsd", "rlrt", "antisd", "dasd", "conformity", "novelty", "fork_only", "scaffold_only"])
def test_a_teacher_that_says_what_the_student_says_is_grpo(name):
    for seed in range(3):
        batch = full_batch(seed)
        same = batch | {"teacher_logps": batch["student_logps"]}
        torch.testing.assert_close(credit_of(METHODS[name], same).advantages, grpo(batch), rtol=0, atol=1e-7)


def test_wrong_hints_that_say_what_the_right_one_says_are_grpo():
    batch = full_batch(0)
    same = batch | {"contrast_logps": batch["teacher_logps"].expand(3, -1, -1)}
    assert torch.equal(credit_of(METHODS["rlcsd"], same).advantages, grpo(batch))


@pytest.mark.parametrize("name", ["rlsd", "rlrt"])
def test_rescaling_never_turns_a_sign(name):
    batch = full_batch(0)
    found = credit_of(make_method(name, {"lam": 1.0}), batch).advantages
    assert (found * batch["advantages"][:, None] >= 0).all()


# ---------------------------------------------------------------- the slow twin

TWINS = {
    "grpo": [{}],
    "rlsd": [{"lam": 0.5}, {"lam": 1.0, "low": 0.25, "high": 3.0}],
    "rlrt": [{"lam": 0.5}, {"lam": 1.0, "high": 7.0}],
    "antisd": [{}, {"lam": 1.75}],
    "rlcsd": [{}, {"scale": 2.0, "width": 0.75}],
    "opsd_sampled": [{}],
}


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, all_of in TWINS.items() for one in all_of])
def test_agrees_with_the_twin(name, settings):
    for seed in range(30):
        batch = full_batch(seed)
        advantages, _, _ = method_twin.run(getattr(method_twin, name), batch, **settings)
        found = credit_of(make_method(name, settings), batch)
        np.testing.assert_allclose(found.advantages, advantages, rtol=1e-6, atol=1e-6)
        assert found.omega is None
        assert found.terms == ()


@pytest.mark.parametrize("rho", [0.2, 0.25, 0.5])
def test_forking_agrees_with_the_twin_in_either_scope(rho):
    for seed in range(30):
        batch = full_batch(seed)
        rollout, _, _ = method_twin.run(method_twin.forking, batch, rho=rho)
        np.testing.assert_allclose(credit_of(Forking(rho, "rollout"), batch).advantages, rollout, rtol=1e-6)
        np.testing.assert_allclose(credit_of(Forking(rho), batch).advantages, method_twin.forking_batch(batch, rho), rtol=1e-6)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Forking(rho=1.5), "rho must be between 0 and 1, got 1.5"),
        (lambda: Forking(scope="group"), "scope must be batch or rollout, got 'group'"),
        (lambda: RewardRescaled(lam=1.5), "lam must be between 0 and 1"),
        (lambda: RewardRescaled(lam=Schedule(0.5, -0.1, 10)), "lam must be between 0 and 1, got -0.1"),
        (lambda: RewardRescaled(side="left"), "side must be conform or deviate"),
        (lambda: RewardRescaled(low=1.1), "low and high must lie on both sides of 1"),
        (lambda: RewardRescaled(low=-0.1), "low and high must lie on both sides of 1"),
        (lambda: RewardRescaled(high=0.9), "low and high must lie on both sides of 1"),
        (lambda: AntiSelfDistillation(lam=-1.0), "lam must be at least 0"),
        (lambda: AntiSelfDistillation(switch=1.5), "switch must be between 0 and 1"),
        (lambda: AntiSelfDistillation(warmup_steps=0), "needs a warm-up.*got warmup_steps 0.*or switch to null"),
        (lambda: ContrastiveHints(width=0.0), "width must be above 0"),
        (lambda: ContrastiveHints(wrong_hints=0), "wrong_hints must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("name", "missing"), [("rlrt", "correct"), ("rlcsd", "contrast_logps")])
def test_a_missing_signal_is_named(name, missing):
    with pytest.raises(ValueError, match=f"this method needs {missing}, which was not given"):
        credit(name, one([1.0]))
