"""Do the methods that change the advantage of each token compute what their formulas say? By hand, as identities, by twin."""

import math

import numpy as np
import pytest
import torch

from dasd.credit import METHODS, Schedule, TokenSignals, assign_credit, make_method
from dasd.credit.advantage import (
    AntiSelfDistillation,
    EntropyGuided,
    Forking,
    RatioReweighted,
    RewardRescaled,
    SelfAdaptation,
)
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
    for step in (0, 25, 500):  # lam = 0.5, and stays there
        close(credit("rlrt", signals, step), [[0.75, 1.5, 5 / 6, 1.5]])


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
    signals = one([LOG[3.0], LOG[0.5], 0.0], 1.0, teacher_entropy_history=[1.0] * 6)
    close(credit("antisd", signals), [[1 - 0.25 * math.log(2), 1 - 0.25 * math.log(0.75), 1.0]])
    close(credit("antisd", signals, lam=2.0), [[1 - math.log(2), 1 - math.log(0.75), 1.0]])


@pytest.mark.parametrize(
    ("medians", "on"),
    [
        # warm-up of five steps with mean 1: off below 0.93, on again only at 1 itself
        ([1, 1, 1, 1, 1, 1, 0.90, 0.95, 0.97, 0.99, 1.01], "00000100001"),
        ([1, 1, 1, 1, 1, 0.94, 0.95, 0.931], "00000111"),  # never below
        ([1, 1, 1, 1, 1, 0.92, 0.99, 1.00, 0.94, 0.92, 0.94], "00000001100"),
        ([1.2, 0.8, 1.9, 0.1, 1.0, 0.1, 0.99, 2.0, 0.95], "000000011"),  # the warm-up's own steps never matter alone
        ([], ""),
    ],
)
def test_antisd_has_a_switch_with_memory(medians, on):
    method = METHODS["antisd"]
    assert "".join(str(int(method.is_on(medians[: step + 1]))) for step in range(len(medians))) == on
    for step, is_on in enumerate(on):
        found = method(one([LOG[3.0]], 1.0, teacher_entropy_history=medians[: step + 1])).advantages.item()
        assert found == pytest.approx(1 - 0.25 * math.log(2) if is_on == "1" else 1.0)


def test_antisd_at_the_threshold_itself_is_on():
    method = AntiSelfDistillation(switch=0.5, warmup_steps=1)
    assert method.is_on([2.0, 1.0])
    assert not method.is_on([2.0, 0.999])
    assert method.is_on([2.0, 0.999, 2.0])
    assert not method.is_on([2.0, 0.999, 1.999])


def test_antisd_without_switch_needs_no_history():
    method = make_method("antisd", {"switch": None})
    assert method.needs == {"teacher_logps"}
    close(method(one([LOG[3.0]])).advantages, [[1 - 0.25 * math.log(2)]])
    with pytest.raises(ValueError, match="needs teacher_entropy_history"):
        METHODS["antisd"](one([LOG[3.0]]))


def test_hepo_is_forking_with_a_threshold_of_each_rollout():
    entropy = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0], [4.0, 3.0, 2.0, 1.0, 0.0]])
    signals = TokenSignals(entropy, entropy, entropy, torch.ones(2, 5), torch.tensor([2.0, -1.0]))
    assert METHODS["hepo"](signals).advantages.tolist() == [[2.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]]


def test_opsa_pushes_down_the_least_likely_fifth_of_the_batch():
    # fifteen tokens, floor(0.2 * 15) = 3: log-probs -9, -8, -7 with H = 1, 3, 2: (H - 1) / 2 = 0, 1, 0.5, A = -0.5, -1, -0.75.
    # Only these count in the mean: each 15 / 3 = 5 times. What the verifier said is not asked
    logps, entropy = -torch.ones(3, 5), torch.full((3, 5), 7.0)
    for (row, place), (logp, h) in {(0, 1): (-9.0, 1.0), (0, 4): (-8.0, 3.0), (2, 0): (-7.0, 2.0)}.items():
        logps[row, place], entropy[row, place] = logp, h
    credit = METHODS["opsa"](TokenSignals(logps, logps, entropy, torch.ones(3, 5), torch.tensor([3.0, -2.0, 0.0])))
    assert credit.advantages.tolist() == [[0, -0.5, 0, 0, -1.0], [0.0] * 5, [-0.75, 0, 0, 0, 0]]
    assert credit.loss_weights.tolist() == [[0, 5, 0, 0, 5], [0.0] * 5, [5, 0, 0, 0, 0]]
    # in each rollout one of five, alone and so at equal entropies: -1
    alone = SelfAdaptation(scope="rollout")(
        TokenSignals(logps, logps, entropy, torch.ones(3, 5), torch.tensor([3.0, -2.0, 0.0]))
    )
    assert alone.advantages.tolist() == [[0, -1.0, 0, 0, 0], [-1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0]]


def test_opsa_takes_at_least_one_token_and_never_a_masked_one():
    logps = torch.tensor([[-50.0, -1.0, -2.0, -60.0]])
    signals = TokenSignals(logps, logps, logps.abs(), torch.tensor([[0, 1, 1, 0]]), torch.ones(1))
    assert METHODS["opsa"](signals).advantages.tolist() == [[0, 0, -1.0, 0]]
    nothing = TokenSignals(logps, logps, logps.abs(), torch.zeros(1, 4), torch.ones(1))
    assert METHODS["opsa"](nothing).advantages.tolist() == [[0.0] * 4]


def test_egrsd_is_the_ratio_in_the_verifiers_direction_less_where_the_teacher_is_unsure():
    # H_T / max = 0, 0.25, 0.5, 1: weights 1, 0.75, 0.5 and the floor 0.1; ratios 2, 0.5, 1, 3
    gaps, unsure = [LOG[2.0], LOG[0.5], 0.0, LOG[3.0]], torch.tensor([[0.0, 0.5, 1.0, 2.0]])
    close(credit("egrsd", one(gaps, 0.25, teacher_entropies=unsure)), [[2.0, 0.375, 0.5, 0.3]])
    close(credit("egrsd", one(gaps, -9.0, teacher_entropies=unsure)), [[-2.0, -0.375, -0.5, -0.3]])
    close(credit("egrsd", one(gaps, 1.0, teacher_entropies=unsure), gamma=2.0, ratio_cap=1.5), [[1.5, 0.25, 0.1, 0.15]])
    untaught = one(gaps, 0.25, teacher_entropies=unsure, has_teacher=torch.tensor([False]))
    close(credit("egrsd", untaught), [[0.25] * 4])
    sure = one(gaps, 1.0, teacher_entropies=torch.zeros(1, 4))
    close(credit("egrsd", sure), [[2.0, 0.5, 1.0, 3.0]])


def test_distilled_rl_moves_weight_inside_rollouts_better_than_their_group():
    # ratios 9 (cut to 3), 1/3 and 1: geometric mean 1; then 3, 3 and 1/3: cube root of 3
    close(credit("distilled_rl", one([2 * LOG[3.0], -LOG[3.0], 0.0], 2.0)), [[6.0, 2 / 3, 2.0]])
    mean = 3 ** (1 / 3)
    close(credit("distilled_rl", one([LOG[3.0], LOG[3.0], -LOG[3.0]], 1.0)), [[3 / mean, 3 / mean, 1 / 3 / mean]])
    close(credit("distilled_rl", one([LOG[3.0], LOG[3.0], 0.0], -1.0)), [[-1.0] * 3])


def test_opsd_sampled_is_the_gap_without_a_verifier():
    assert credit("opsd_sampled", one([0.5, -1.25], 7.0)).tolist() == [[0.5, -1.25]]


# ---------------------------------------------------------------- identities

SILENT = {
    "rlsd": {"lam": 0.0}, "rlrt": {"lam": 0.0}, "antisd": {"lam": 0.0}, "rlcsd": {"scale": 0.0}, "sipo": {"kappa": 0.0},
    "distilled_rl": {"clip": 1.0}, "forking": {"rho": 1.0}, "hepo": {"rho": 1.0, "scope": "batch"},
}  # fmt: skip


@pytest.mark.parametrize("name", SILENT)
def test_a_weight_of_zero_is_grpo(name):
    for seed in range(3):
        batch = full_batch(seed)
        assert torch.equal(credit_of(make_method(name, SILENT[name]), batch).advantages, grpo(batch))


@pytest.mark.parametrize(
    "name", ["rlsd", "rlrt", "antisd", "distilled_rl", "dasd", "conformity", "novelty", "fork_only", "scaffold_only"]
)
def test_a_teacher_that_says_what_the_student_says_is_grpo(name):
    for seed in range(3):
        batch = full_batch(seed)
        same = batch | {"teacher_logps": batch["student_logps"]}
        torch.testing.assert_close(credit_of(METHODS[name], same).advantages, grpo(batch), rtol=0, atol=1e-7)


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
    "hepo": [{}],
    "egrsd": [{}, {"gamma": 2.5, "floor": 0.25, "ratio_cap": 2.0}],
    "distilled_rl": [{}],
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


@pytest.mark.parametrize("settings", [{}, {"share": 0.5, "least": 0.25, "most": 2.0}])
def test_opsa_agrees_with_the_twin(settings):
    for seed in range(30):
        batch = full_batch(seed)
        batch["student_logps"] = -torch.randperm(56).reshape(4, 14).float() / 8  # no two alike
        advantages, counts = method_twin.opsa(batch, **settings)
        found = credit_of(SelfAdaptation(**settings), batch)
        np.testing.assert_allclose(found.advantages, advantages, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.loss_weights, counts, rtol=1e-6, atol=1e-6)


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
        (lambda: EntropyGuided(gamma=-1.0), "gamma must be at least 0"),
        (lambda: EntropyGuided(floor=1.5), "floor must be between 0 and 1"),
        (lambda: EntropyGuided(ratio_cap=0.0), "ratio_cap must be above 0, got 0.0; null for no cap"),
        (lambda: RatioReweighted(clip=0.5), "clip must be at least 1"),
        (lambda: SelfAdaptation(share=1.5), "share must be between 0 and 1"),
        (lambda: SelfAdaptation(least=2.0), "most must be at least 2 and finite, got 1.0: it is the larger one"),
        (lambda: SelfAdaptation(scope="group"), "scope must be batch or rollout, got 'group'"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("name", "missing"), [("rlrt", "correct"), ("egrsd", "teacher_entropies")])
def test_a_missing_signal_is_named(name, missing):
    with pytest.raises(ValueError, match=f"this method needs {missing}, which was not given"):
        credit(name, one([1.0]))
