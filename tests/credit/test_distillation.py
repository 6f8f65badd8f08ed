"""Do the methods that compare whole distributions weigh each token as their formulas say? By hand, as identities, by twin."""

import math

import numpy as np
import pytest
import torch

from dasd.credit import METHODS, DirectionAdaptive, Divergence, Schedule, TokenSignals, assign_credit, make_method
from dasd.credit.distillation import DirectionAdaptiveVocabulary, Distillation, EntropyRouted, SampleRouted
from reference import method_twin
from reference.batches import credit_of, full_batch

OPSD_FAMILY = ("opsd", "pw_opsd", "ad_opsd")


def one(gap, entropy=None, advantage=1.0, **more):
    """Signals of one rollout: these gaps on top of a student at -2; `more` holds lists of tokens and single truths."""
    gap = torch.tensor([gap])
    student = torch.full_like(gap, -2.0)
    entropy = torch.ones_like(gap) if entropy is None else torch.tensor([entropy])
    more = {name: torch.tensor([value]) for name, value in more.items()}
    return TokenSignals(student, student + gap, entropy, torch.ones_like(gap), torch.tensor([advantage]), **more)


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=2e-6, atol=2e-6)


def grpo(batch):
    return batch["advantages"][:, None] * batch["completion_mask"]


# ---------------------------------------------------------------- what the names stand for


def test_each_name_compares_distributions_as_its_paper_does():
    capped = Divergence("forward_kl", summand_cap=0.05)
    expected = {
        **dict.fromkeys(OPSD_FAMILY, capped),
        "sdpo": Divergence("jsd", mixture=0.5, top_k=100, support="student", tail="bucket"),
        "sdft": Divergence("reverse_kl"),
        "eopd": Divergence("forward_kl", top_k=16, support="teacher", tail="drop"),
        "srpo": Divergence("jsd", mixture=0.5, top_k=100, support="student", tail="bucket"),
    }
    batch = full_batch(0)
    assert {name: [term.divergence for term in credit_of(METHODS[name], batch).terms] for name in expected} == {
        name: [divergence] for name, divergence in expected.items()
    }
    vocabulary = credit_of(METHODS["dasd_vocab"], batch).terms
    assert [term.divergence for term in vocabulary] == [Divergence("reverse_kl"), Divergence("jsd")]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "teacher_distribution" in method.needs])
def test_methods_that_need_the_distribution_are_those_with_terms(name):
    assert credit_of(METHODS[name], full_batch(0)).terms


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "teacher_distribution" not in method.needs])
def test_the_others_have_none(name):
    assert credit_of(METHODS[name], full_batch(0)).terms == ()


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize("name", ["opsd", "sdft", "sdpo"])
def test_every_token_counts_once_and_the_verifier_not_at_all(name):
    credit = METHODS[name](one([1.0, -1.0, 0.0], advantage=5.0))
    assert credit.advantages.tolist() == [[0.0, 0.0, 0.0]]
    assert credit.terms[0].weights.tolist() == [[1.0, 1.0, 1.0]]
    assert credit.terms[0].student_share is None


def test_sdpo_weighs_by_the_importance_ratio_up_to_2():
    signals = one([0.0] * 4, ratio=[0.5, 1.0, 2.0, 5.0])
    assert METHODS["sdpo"](signals).terms[0].weights.tolist() == [[0.5, 1.0, 2.0, 2.0]]
    assert METHODS["opsd"](signals).terms[0].weights.tolist() == [[1.0] * 4]


@pytest.mark.parametrize("name", ["opsd", "pw_opsd", "ad_opsd", "sdpo", "sdft", "srpo", "eopd", "dasd_vocab"])
def test_a_rollout_without_a_teacher_is_not_distilled(name):
    batch = full_batch(0) | {"has_teacher": torch.zeros(4, dtype=torch.bool)}
    assert all((term.weights == 0).all() for term in credit_of(METHODS[name], batch).terms)


def test_pw_opsd_weighs_the_end_more_than_the_start_in_each_rollout():
    # five tokens at (t - 1/2) / 5 = 0.1, 0.3, 0.5, 0.7, 0.9: sigmoid(-2) = 0.1192029, sigmoid(0) = 0.5, sigmoid(6) = 0.9975274
    weights = METHODS["pw_opsd"](one([0.0] * 5)).terms[0].weights[0]
    close(weights[[0, 1, 4]] * 5, [0.25 + 0.75 * 0.1192029, 0.625, 0.25 + 0.75 * 0.9975274])
    assert (weights.diff() > 0).all()
    assert make_method("pw_opsd", {"average": "tokens"})(one([0.0] * 5)).terms[0].weights[0, 1] == 0.625


def test_position_runs_over_valid_tokens():
    # two of five count: 0.25 and 0.75, sigmoid(-0.5) = 0.3775407, sigmoid(4.5) = 0.9890131; each is half of its rollout
    signals = TokenSignals(*(torch.ones(1, 5) for _ in range(3)), torch.tensor([[0, 1, 0, 1, 0]]), torch.ones(1))
    close(
        METHODS["pw_opsd"](signals).terms[0].weights * 2,
        [[0.0, 0.25 + 0.75 * 0.3775407, 0.0, 0.25 + 0.75 * 0.9890131, 0.0]],
    )
    # a single token stands in the middle: sigmoid(2) = 0.8807971
    close(METHODS["pw_opsd"](one([0.0])).terms[0].weights, [[0.25 + 0.75 * 0.8807971]])


def test_what_each_term_is_averaged_over():
    averages = {
        name: credit_of(METHODS[name], full_batch(0)).terms[0].average for name in (*OPSD_FAMILY, "sdpo", "sdft", "srpo")
    }
    assert averages == {
        "opsd": "tokens", "pw_opsd": "rollouts", "ad_opsd": "tokens", "sdpo": "taught", "sdft": "tokens", "srpo": "tokens",
    }  # fmt: skip


def test_ad_opsd_anchors_what_the_teacher_suppresses_at_forks():
    # student at -2, ten tokens; H = 9 and 8 stand above the quantile 0.8 (7.2). U = sigmoid(e^-2 * -u): at u = -3
    # sigmoid(0.406006) = 0.6001298, at u = 0 one half
    gaps = [-3.0, 0.0] + [1.0] * 8
    credit = METHODS["ad_opsd"](one(gaps, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]))
    close(credit.terms[0].student_share, [[0.6001298, 0.5] + [0.0] * 8])
    assert (credit.terms[0].weights == 1).all()
    sharp = make_method("ad_opsd", {"anchor_width": 1e-4})(one(gaps, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]))
    close(sharp.terms[0].student_share, [[1.0, 0.5] + [0.0] * 8])


def test_ad_opsd_without_any_entropy_is_opsd():
    assert (METHODS["ad_opsd"](one([0.0] * 3, [0.0] * 3)).terms[0].student_share == 0).all()


def test_eopd_is_the_gap_and_forward_kl_where_the_teacher_is_unsure():
    signals = one([0.5, -9.0, 7.0, 0.0], teacher_entropies=[0.79, 0.8, 0.81, 3.0], advantage=9.0)
    credit = METHODS["eopd"](signals)
    assert credit.advantages.tolist() == [[0.5, -9.0, 7.0, 0.0]]
    assert credit.terms[0].weights.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert make_method("eopd", {"gap_clip": 5})(signals).advantages.tolist() == [[0.5, -5.0, 5.0, 0.0]]


def test_srpo_distils_wrong_rollouts_where_the_teacher_is_sure():
    # exp(-H_T) = 1, 1/3, 2/3: mean 2/3, weights 1.5, 0.5, 1
    entropies = [0.0, math.log(3.0), math.log(1.5)]
    wrong = METHODS["srpo"](one([0.0] * 3, teacher_entropies=entropies, correct=False, advantage=-1.0))
    close(wrong.terms[0].weights, [[1.5, 0.5, 1.0]])
    assert wrong.advantages.tolist() == [[0.0] * 3]
    right = METHODS["srpo"](one([0.0] * 3, teacher_entropies=entropies, correct=True, advantage=0.5))
    assert right.terms[0].weights.tolist() == [[0.0] * 3]
    assert right.advantages.tolist() == [[0.5] * 3]


def routed(**more):
    """Four rollouts of two tokens: wrong ones with exp(-H_T) = 1, 1 and 1/4, 1/4, a right one, a wrong one without teacher."""
    sure, unsure = [0.0, 0.0], [math.log(4.0)] * 2
    ones = torch.ones(4, 2)
    return TokenSignals(
        -ones, -ones, ones, ones, torch.ones(4), correct=torch.tensor([False, False, True, False]),
        teacher_entropies=torch.tensor([sure, unsure, [9.0, 9.0], [9.0, 9.0]]),
        has_teacher=torch.tensor([True, True, True, False]), **more,
    )  # fmt: skip


def test_srpos_certainty_has_mean_1_over_all_distilled_tokens_of_the_batch():
    # mean of 1, 1, 1/4, 1/4 is 5/8: 1.6 and 0.4. In each rollout by itself all weights would be 1
    weights = METHODS["srpo"](routed()).terms[0].weights
    close(weights, [[1.6, 1.6], [0.4, 0.4], [0.0, 0.0], [0.0, 0.0]])
    assert weights.sum() / 4 == 1
    sharper = make_method("srpo", {"sharpness": 2.0})(routed()).terms[0].weights  # 1 and 1/16: mean 17/32
    close(sharper[:2, 0], [32 / 17, 2 / 17])


def test_srpos_mean_is_that_of_the_batch_that_the_rollouts_are_part_of():
    whole = METHODS["srpo"].batch_totals(routed())
    assert {name: float(total) for name, total in whole.items()} == {"certainty": 2.5, "distilled": 4.0}
    part = METHODS["srpo"](routed(batch_totals={"certainty": 5.0, "distilled": 20.0})).terms[0].weights
    close(part, [[4.0, 4.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])  # over 1/4
    nothing = METHODS["srpo"](routed(batch_totals={"certainty": 0.0, "distilled": 0.0})).terms[0].weights
    assert torch.isfinite(nothing).all()


def test_srpo_decides_by_correct_and_not_by_the_sign_of_the_advantage():
    right = METHODS["srpo"](one([0.0], teacher_entropies=[0.0], correct=True, advantage=-1.0))
    wrong = METHODS["srpo"](one([0.0], teacher_entropies=[0.0], correct=False, advantage=1.0))
    assert (right.advantages.item(), right.terms[0].weights.item()) == (-1.0, 0.0)
    assert (wrong.advantages.item(), wrong.terms[0].weights.item()) == (0.0, 1.0)


def test_srpo_keeps_the_policy_gradient_of_a_wrong_rollout_without_a_teacher():
    credit = METHODS["srpo"](one([0.0], teacher_entropies=[0.0], correct=False, has_teacher=False, advantage=-1.0))
    assert (credit.advantages.item(), credit.terms[0].weights.item()) == (-1.0, 0.0)


def test_srpo_caps_the_importance_ratio_at_2():
    weights = (
        METHODS["srpo"](one([0.0] * 3, teacher_entropies=[1.0] * 3, correct=False, ratio=[0.5, 2.0, 9.0])).terms[0].weights
    )
    close(weights, [[0.5, 2.0, 2.0]])


def test_dasd_vocab_attracts_and_repels_by_hand():
    # five tokens as in test_direction.py, rho = 0.75: omega = 0.424142, 0.341131, 0.288124, 0, -0.265341; beta = 0.1
    signals = one([1.0, -1.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0, 9.0], advantage=0.5)
    credit = DirectionAdaptiveVocabulary(beta=0.1, rho=0.75)(signals)
    attract, repel = credit.terms
    close(attract.weights, [[0.0424142, 0.0341131, 0.0288124, 0.0, 0.0]])
    close(repel.weights, [[0.0, 0.0, 0.0, 0.0, -0.0265341]])
    assert credit.advantages.tolist() == [[0.5] * 5]


# ---------------------------------------------------------------- identities


def test_dasd_vocab_has_dasds_omega_and_weights_that_add_up_to_beta_omega():
    for seed in range(6):
        batch = full_batch(seed)
        vocabulary, dasd = (credit_of(kind(beta=0.25), batch) for kind in (DirectionAdaptiveVocabulary, DirectionAdaptive))
        assert torch.equal(vocabulary.omega, dasd.omega)
        attract, repel = (term.weights for term in vocabulary.terms)
        assert torch.equal(attract + repel, 0.25 * dasd.omega * batch["has_teacher"][:, None])
        assert (attract >= 0).all()
        assert (repel <= 0).all()
        assert torch.equal(vocabulary.advantages, grpo(batch))


def test_strength_zero_and_the_verifiers_whole_weight_are_grpo():
    batch = full_batch(0)
    credit = credit_of(Distillation(strength=0.0, verifier_weight=1.0), batch)
    assert torch.equal(credit.advantages, grpo(batch))
    assert (credit.terms[0].weights == 0).all()


@pytest.mark.parametrize("name", ["opsd", "pw_opsd", "ad_opsd", "sdpo", "sdft", "eopd", "srpo"])
def test_strength_scales_the_weights_and_follows_a_schedule(name):
    batch = full_batch(0)
    plain = credit_of(METHODS[name], batch)
    method = make_method(name, {"strength": {"start": 4.0, "end": 0.0, "steps": 4}})
    for step, factor in ((0, 4.0), (3, 1.0), (4, 0.0)):
        credit = credit_of(method, batch, step)
        torch.testing.assert_close(credit.terms[0].weights, factor * plain.terms[0].weights)
        assert torch.equal(credit.advantages, plain.advantages)


def test_an_anchor_of_zero_is_opsd():
    batch = full_batch(0)
    found = credit_of(make_method("ad_opsd", {"anchor": 0.0}), batch).terms[0]
    assert found.student_share is None
    assert torch.equal(found.weights, credit_of(METHODS["opsd"], batch).terms[0].weights)


def test_without_a_ratio_the_policy_has_not_moved():
    batch = full_batch(0)
    for name in ("sdpo", "srpo"):
        none = credit_of(METHODS[name], batch | {"ratio": None}).terms[0].weights
        ones = credit_of(METHODS[name], batch | {"ratio": torch.ones(4, 14)}).terms[0].weights
        assert torch.equal(none, ones)


# ---------------------------------------------------------------- the slow twin

TWINS = {
    "opsd": ("opsd", [{}, {"strength": 0.25}]),
    "sdft": ("opsd", [{}]),
    "pw_opsd": ("pw_opsd", [{}]),
    "ad_opsd": ("ad_opsd", [{}, {"anchor": 0.5, "anchor_width": 0.1}]),
    "sdpo": ("sdpo", [{}]),
    "eopd": ("eopd", [{}, {"threshold": 1.5, "gap_clip": 0.75}]),
    "dasd_vocab": ("dasd_vocab", [{}, {"beta": 1.0, "rho": 0.5, "map": "hard", "gap_scale": "std", "gap_clip": 2.0}]),
}


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, (_, all_of) in TWINS.items() for one in all_of])
def test_agrees_with_the_twin(name, settings):
    twin = getattr(method_twin, TWINS[name][0])
    for seed in range(30):
        batch = full_batch(seed)
        credit = credit_of(make_method(name, settings), batch)
        advantages, weights, share = method_twin.run(twin, batch, **settings)
        np.testing.assert_allclose(credit.advantages, advantages, rtol=1e-6, atol=1e-6)
        for index, term in enumerate(credit.terms):
            np.testing.assert_allclose(term.weights, weights[index], rtol=1e-6, atol=1e-6)
            if term.student_share is not None:
                np.testing.assert_allclose(term.student_share, share, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"sharpness": 0.25}])
def test_srpo_agrees_with_the_twin(settings):
    for seed in range(30):
        batch = full_batch(seed) | {"batch_totals": None}
        credit = credit_of(make_method("srpo", settings), batch)
        mean = method_twin.mean_certainty(batch, **settings)
        advantages, weights, _ = method_twin.run(method_twin.srpo, batch, mean=mean, **settings)
        np.testing.assert_allclose(credit.advantages, advantages, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(credit.terms[0].weights, weights[0], rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Distillation(strength=-1.0), "strength must be at least 0"),
        (lambda: Distillation(strength=Schedule(1.0, math.pi, 5), verifier_weight=-1.0), "verifier_weight must be at least 0"),
        (lambda: Distillation(anchor=1.5), "anchor must be between 0 and 1"),
        (lambda: Distillation(ratio_cap=0.0), "ratio_cap must be above 0"),
        (lambda: Distillation(weighting="late"), "weighting must be one of uniform, position, got 'late'"),
        (lambda: Distillation(average="rows"), "average must be one of tokens, taught, rollouts, got 'rows'"),
        (lambda: Distillation(anchor_width=0.0), "anchor_width must be above 0"),
        (lambda: EntropyRouted(gap_clip=0.0), "gap_clip must be above 0"),
        (lambda: SampleRouted(sharpness=-1.0), "sharpness must be at least 0"),
        (lambda: EntropyRouted(threshold=-1.0), "threshold must be at least 0"),
        (lambda: SampleRouted(ratio_cap=-1.0), "ratio_cap must be above 0"),
        (lambda: SampleRouted(strength=math.nan), "strength must be at least 0 and finite, got nan"),
        (lambda: DirectionAdaptiveVocabulary(repel=Divergence("reverse_kl")), "repel must be a jsd, got reverse_kl: it is max"),
        (lambda: DirectionAdaptiveVocabulary(rho=2.0), "rho must lie between 0 and 1"),
        (
            lambda: DirectionAdaptiveVocabulary(baseline="rollout"),
            "baseline must be none, got 'rollout': a divergence is an exp",
        ),
        (lambda: make_method("dasd_vocab", {"baseline": "side"}), "baseline must be none, got 'side'"),
        (lambda: DirectionAdaptiveVocabulary(baseline="mean"), "baseline must be one of none, rollout, side, got 'mean'"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("name", "missing"), [("eopd", "teacher_entropies"), ("srpo", "correct")])
def test_a_missing_signal_is_named(name, missing):
    with pytest.raises(ValueError, match=f"this method needs {missing}, which was not given"):
        assign_credit(one([1.0]), METHODS[name])
