"""Does DASD compute what its formulas say? Cases worked by hand, the identities of method.md section 2, degenerate rollouts.

The arithmetic is in the comments; the gate takes sigmoid(-1) = 0.268941, sigmoid(0) = 0.5 and sigmoid(1) = 0.731059.
"""

import numpy as np
import pytest
import torch

from dasd.credit import METHODS, DirectionAdaptive, GroupRelative, Schedule, TokenSignals, assign_credit, make_method

POINTS = {
    **{name: {"map": name} for name in ("tanh", "linear", "hard", "attract", "repel")},
    "fork_only": {"map": "repel", "arm": "high"},
    "scaffold_only": {"map": "attract", "arm": "low"},
    "less its side's mean": {"baseline": "side"},
}


def signals(gap, entropy, advantage=0.0, mask=None, student=-2.0):
    """Signals of one rollout, or of several when the lists are nested; the gap is put on top of a constant student."""
    gap, entropy = torch.atleast_2d(torch.tensor(gap)), torch.atleast_2d(torch.tensor(entropy))
    mask = torch.ones_like(gap) if mask is None else torch.atleast_2d(torch.tensor(mask))
    students = torch.full_like(gap, student)
    return TokenSignals(students, students + gap, entropy, mask, torch.tensor(advantage).expand(len(gap)).clone())


def random_signals(seed=0, rollouts=6, tokens=17):
    """Ragged rollouts with gaps of either sign and log-normal entropies."""
    rng = torch.Generator().manual_seed(seed)
    student, teacher = -torch.rand(2, rollouts, tokens, generator=rng) * 3
    entropy = torch.randn(rollouts, tokens, generator=rng).exp()
    mask = torch.arange(tokens) < torch.randint(2, tokens + 1, (rollouts, 1), generator=rng)
    return TokenSignals(student, teacher, entropy, mask, torch.randn(rollouts, generator=rng))


def teacher_term(given, **settings):
    """beta * omega * gap_bar with beta = 1 and no verifier: the teacher's part of the advantage."""
    alone = TokenSignals(
        given.student_logps, given.teacher_logps, given.entropies, given.completion_mask, torch.zeros_like(given.advantages)
    )
    return DirectionAdaptive(beta=1.0, **settings)(alone).advantages


def close(actual, expected, tolerance=2e-6):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- worked by hand

# Five tokens, rho = 0.75, so that everything is round:
#   H     = 0, 1, 2, 3, 9     tau = quantile 0.75 = the value at 0.75 * 4 = 3, that is 3.   mean H = 15/5 = 3
#   sigma = (3 + 2 + 1 + 0 + 6) / 5 = 2.4
#   gap   = 1, -1, 2, 1, 0    mean |gap| = 5/5 = 1, so gap_bar = gap
ENTROPY, GAP = [0.0, 1.0, 2.0, 3.0, 9.0], [1.0, -1.0, 2.0, 1.0, 0.0]


def test_default_formula_on_five_tokens():
    # route = tanh(3/2.4), tanh(2/2.4), tanh(1/2.4), tanh(0), tanh(-6/2.4)
    #       = 0.848284,    0.682262,    0.394119,    0,       -0.986614
    # gate  = sigmoid(0),  sigmoid(0),  sigmoid(1),  -,       sigmoid(-1)
    # omega = 0.424142,    0.341131,    0.288124,    0,       -0.265341
    # A     = 0.5 + 0.1 * omega * (1, -1, 2, 1, 0)
    credit = DirectionAdaptive(beta=0.1, rho=0.75)(signals(GAP, ENTROPY, advantage=0.5))
    close(credit.omega, [[0.424142, 0.341131, 0.288124, 0.0, -0.265341]])
    close(credit.advantages, [[0.542414, 0.465887, 0.557625, 0.5, 0.5]])


def test_argument_of_tanh_is_distance_to_tau_in_units_of_sigma():
    # H = 0, 2, 4, rho = 0.75: tau at 0.75 * 2 = 1.5, that is 2 + 0.5 * 2 = 3; mean = 2, sigma = (2 + 0 + 2)/3 = 4/3
    # (tau - H)/sigma = 2.25, 0.75, -0.75; tanh(2.25) = 0.978026, tanh(0.75) = 0.635149
    credit = DirectionAdaptive(rho=0.75, gate="none")(signals([1.0, 1.0, 1.0], [0.0, 2.0, 4.0]))
    close(credit.omega, [[0.978026, 0.635149, -0.635149]])


def test_only_a_direction_by_entropy_needs_it():
    needing = {point for point, settings in POINTS.items() if "entropies" in DirectionAdaptive(**settings).needs}
    assert needing == set(POINTS) - {"attract", "repel"}
    assert "entropies" in DirectionAdaptive(map="attract", gap_units="side").needs
    assert "entropies" in DirectionAdaptive(map="repel", flip="low").needs
    assert "entropies" in make_method("conformity", {"baseline": "side"}).needs
    assert "entropies" not in make_method("conformity", {"baseline": "rollout"}).needs
    assert "teacher_entropies" in make_method("conformity", {"baseline": "side", "signal": "teacher_entropy"}).needs


def test_rho_is_the_quantile_so_that_the_share_one_minus_rho_lies_above_tau():
    # 5 tokens: rho = 0.8 leaves 1 above, rho = 0.25 (tau at 0.25 * 4 = 1, a token's own value) leaves 3 above
    given = signals([1.0] * 5, [5.0, 1.0, 3.0, 2.0, 4.0])
    assert (DirectionAdaptive(rho=0.8)(given).omega < 0).tolist() == [[True, False, False, False, False]]
    assert (DirectionAdaptive(rho=0.25)(given).omega < 0).tolist() == [[True, False, True, False, True]]


@pytest.mark.parametrize(
    ("center", "sigma"),
    # H = 0, 1, 2, 9, rho = 0.75: tau at 0.75 * 3 = 2.25, that is 2 + 0.25 * 7 = 3.75; mean = 12/4 = 3; median = 1.5
    [
        ("mean", 3.0),  # (3 + 2 + 1 + 6) / 4
        ("median", 2.5),  # (1.5 + 0.5 + 0.5 + 7.5) / 4
        ("quantile", 3.375),  # (3.75 + 2.75 + 1.75 + 5.25) / 4
    ],
)
def test_sigma_is_the_mean_absolute_deviation_from_its_center(center, sigma):
    credit = DirectionAdaptive(rho=0.75, gate="none", sigma_center=center)(signals([1.0] * 4, [0.0, 1.0, 2.0, 9.0]))
    arguments = torch.atanh(credit.omega)  # (tau - H) / sigma
    close(arguments, [[3.75 / sigma, 2.75 / sigma, 1.75 / sigma, -5.25 / sigma]], tolerance=2e-5)


@pytest.mark.parametrize(
    ("scale", "gap_bar"),
    # gap = 1, 2, 6: median = 2; mean = 3, mean |gap| = 3; deviations -2, -1, 3, variance 14/3, std 2.160247
    [
        ("median_abs", [0.5, 1.0, 3.0]),
        ("mean_abs", [1 / 3, 2 / 3, 2.0]),
        ("std", [0.462910, 0.925820, 2.777460]),
        ("none", [1.0, 2.0, 6.0]),
    ],
)
def test_gap_scale_is_the_unit_of_the_gap(scale, gap_bar):
    given = signals([1.0, 2.0, 6.0], [0.0, 1.0, 2.0])
    close(teacher_term(given, map="attract", gate="none", gap_scale=scale, gap_clip=100.0), [gap_bar])


@pytest.mark.parametrize("scale", ["median_abs", "mean_abs"])
def test_negative_gaps_count_by_their_size(scale):
    # gap = -3, 1, 2: |gap| has mean 2 and median 2 (the gaps themselves: 0 and 1)
    given = signals([-3.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    close(teacher_term(given, map="attract", gate="none", gap_scale=scale), [[-1.5, 0.5, 1.0]])


def test_the_median_of_an_even_number_of_gaps_lies_between_the_two_in_the_middle():
    # |gap| = 1, 2, 4, 40: median (2 + 4) / 2 = 3; one large gap moves it no further
    given = signals([2.0, -1.0, 4.0, 40.0], [0.0, 1.0, 2.0, 3.0])
    close(teacher_term(given, map="attract", gate="none", gap_clip=20.0), [[2 / 3, -1 / 3, 4 / 3, 40 / 3]])


@pytest.mark.parametrize(("scale", "unit"), [("median_abs", None), ("mean_abs", 0.5), ("std", 0.871780), ("none", 1.0)])
def test_where_most_gaps_are_rounding_the_others_count(scale, unit):
    # gap = 1e-7 (three times), 0.5, -2: the median is rounding, so that the noise floor is the unit and the others are clipped
    # mean |gap| = 2.5/5 = 0.5; mean = -0.3, variance (3 * 0.09 + 0.64 + 2.89)/5 = 0.76, std 0.871780
    given = signals([1e-7, 1e-7, 1e-7, 0.5, -2.0], [0.0, 1.0, 2.0, 3.0, 4.0], student=0.0)
    expected = [5.0, -5.0] if unit is None else [0.5 / unit, -2.0 / unit]
    close(teacher_term(given, map="attract", gate="none", gap_scale=scale), [[0.0, 0.0, 0.0, *expected]])


@pytest.mark.parametrize("scale", ["median_abs", "mean_abs", "std", "none"])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-6), (torch.bfloat16, 0.2)])
def test_rounding_is_no_credit_in_any_unit(scale, dtype, size):
    given = random_signals(3)
    noise = size * (2 * torch.rand(given.student_logps.shape, generator=torch.Generator().manual_seed(0)) - 1)
    scores = {"student_logps": given.student_logps - 1.0, "teacher_logps": given.student_logps - 1.0 + noise}
    said = TokenSignals(
        **scores, entropies=given.entropies, completion_mask=given.valid, advantages=given.advantages, computed_in=dtype
    )
    for settings in ({"map": "attract", "gate": "none"}, {}):
        credit = DirectionAdaptive(beta=1.0, gap_scale=scale, **settings)(said)
        assert torch.equal(credit.advantages, grpo(given))
        assert credit.metrics["gap/abs"] == 0.0
    alike = TokenSignals(**scores, entropies=given.entropies, completion_mask=given.valid, advantages=given.advantages)
    assert (dtype == torch.float32) == torch.equal(DirectionAdaptive(gap_scale=scale)(alike).advantages, grpo(given))


def test_the_default_and_the_printed_form():
    """0.2 is the lower fifth, as the paper prints it: four of five tokens are repelled. By default one of five is."""
    given = signals([1.0] * 5, [5.0, 1.0, 3.0, 2.0, 4.0])
    for rho, above in ((0.8, 1), (0.2, 4)):
        assert int((DirectionAdaptive(rho=rho)(given).omega < 0).sum()) == above
    assert (DirectionAdaptive().rho, DirectionAdaptive().gap_scale) == (0.8, "median_abs")


def test_gap_is_clipped_on_both_sides_after_scaling():
    # gap = 7, -7, 1, 1, 0 ... of 8 tokens: mean |gap| = 16/8 = 2, gap_bar = 3.5, -3.5, 0.5, 0.5, 0; clipped at 3
    given = signals([7.0, -7.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    clipped = teacher_term(given, map="attract", gate="none", gap_scale="mean_abs", gap_clip=3.0)
    close(clipped, [[3.0, -3.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]])


def test_default_clip_is_five():
    # one gap of 1 in 10 tokens: mean |gap| = 0.1, gap_bar = 10, clipped to 5
    given = signals([-1.0] + [0.0] * 9, [float(t) for t in range(10)])
    close(teacher_term(given, map="attract", gate="none", gap_scale="mean_abs")[0, :2], [-5.0, 0.0])


def test_gate_sees_the_clipped_gap():
    # as above, clipped to 1: the gate is sigmoid(1 - 1) = 0.5, not sigmoid(10 - 1)
    given = signals([1.0] + [0.0] * 9, [float(t) for t in range(10)])
    close(DirectionAdaptive(map="attract", gap_scale="mean_abs", gap_clip=1.0)(given).omega[0, :2], [0.5, 0.268941])


def test_gate_is_one_half_for_a_typical_gap_and_less_for_small_ones():
    # gap = 0, 1, -2: mean |gap| = 1; gate = sigmoid(-1), sigmoid(0), sigmoid(1)
    credit = DirectionAdaptive(map="attract")(signals([0.0, 1.0, -2.0], [0.0, 1.0, 2.0]))
    close(credit.omega, [[0.268941, 0.5, 0.731059]])


def test_hard_map_is_the_sign_and_nothing_at_the_threshold():
    credit = DirectionAdaptive(rho=0.75, map="hard", gate="none")(signals(GAP, ENTROPY))
    assert credit.omega.tolist() == [[1.0, 1.0, 1.0, 0.0, -1.0]]


def test_each_rollout_has_its_own_statistics():
    # the second rollout is the first at 10 times the entropy and 100 times the gap: the same credit
    both = signals([GAP, [100 * g for g in GAP]], [ENTROPY, [10 * h for h in ENTROPY]], student=0.0)
    credit = DirectionAdaptive(rho=0.75)(both).advantages
    torch.testing.assert_close(credit[1], credit[0], rtol=1e-5, atol=1e-6)


def test_masked_tokens_belong_to_no_statistic():
    # the five tokens above with two wild masked ones in between: the hand-computed omega stays
    given = signals(
        [1.0, -1.0, 500.0, 2.0, 1.0, -500.0, 0.0],
        [0.0, 1.0, 80.0, 2.0, 3.0, 0.0, 9.0],
        advantage=0.5,
        mask=[1, 1, 0, 1, 1, 0, 1],
    )
    credit = DirectionAdaptive(beta=0.1, rho=0.75)(given)
    close(credit.omega, [[0.424142, 0.341131, 0.0, 0.288124, 0.0, 0.0, -0.265341]])
    close(credit.advantages, [[0.542414, 0.465887, 0.0, 0.557625, 0.5, 0.0, 0.5]])


def test_metrics_on_five_tokens():
    # hard map, no gate, rho = 0.75, beta = 1: omega = 1, 1, 1, 0, -1 and term = 1, -1, 2, 0, 0 with A_G = 0.5
    # A = 1.5, -0.5, 2.5, 0.5, 0.5: one sign flips. sum |term| = 4, all on the attracted side; sum |A_G| = 2.5
    # above tau = 3 stands only H = 9 with gap 0; the other four have mean gap (1 - 1 + 2 + 1)/4 = 0.75
    # ranks 0..4 of 5 tokens fall into deciles 1, 3, 5, 7, 9
    metrics = DirectionAdaptive(beta=1.0, rho=0.75, map="hard", gate="none")(signals(GAP, ENTROPY, advantage=0.5)).metrics
    assert metrics == pytest.approx(
        {
            "tokens/attracted": 0.6,
            "tokens/repelled": 0.2,
            "credit/attracted": 1.0,
            "credit/repelled": 0.0,
            "credit/teacher": 4 / 6.5,
            "credit/sign_flips": 0.2,
            "gap/abs": 1.0,
            "gap/high": 0.0,
            "gap/low": 0.75,
            "gap/decile_1": 1.0,
            "gap/decile_3": -1.0,
            "gap/decile_5": 2.0,
            "gap/decile_7": 1.0,
            "gap/decile_9": 0.0,
        }
    )


def test_metrics_split_credit_between_the_two_sides():
    # H = 0, 1, 2, 3, 4, rho = 0.5: tau = 2; gap = 1, 1, 4, -3, 1 (mean |gap| 2): gap_bar = 0.5, 0.5, 2, -1.5, 0.5
    # omega = 1, 1, 0, -1, -1; |term| = 0.5 + 0.5 attracted, 1.5 + 0.5 repelled: 1/3 and 2/3
    # A_G = -1: A = -0.5, -0.5, -1, 0.5, -1.5: one flip. high: (-3 + 1)/2 = -1; low: (1 + 1 + 4)/3 = 2
    given = signals([1.0, 1.0, 4.0, -3.0, 1.0], [0.0, 1.0, 2.0, 3.0, 4.0], advantage=-1.0)
    metrics = DirectionAdaptive(beta=1.0, rho=0.5, map="hard", gate="none", gap_scale="mean_abs")(given).metrics
    assert metrics["credit/attracted"] == pytest.approx(1 / 3)
    assert metrics["credit/repelled"] == pytest.approx(2 / 3)
    assert metrics["credit/sign_flips"] == pytest.approx(0.2)
    assert metrics["credit/teacher"] == pytest.approx(3 / 8)
    assert (metrics["gap/high"], metrics["gap/low"]) == pytest.approx((-1.0, 2.0))


# ---------------------------------------------------------------- direction and scale of the teacher's term


def test_low_entropy_attracts_and_high_entropy_repels():
    # the teacher likes every token more: certain ones gain, uncertain ones lose; the reverse when it likes them less
    entropy = [0.0, 0.1, 0.2, 0.3, 8.0]
    assert teacher_term(signals([1.0] * 5, entropy)).sign().tolist() == [[1.0, 1.0, 1.0, 1.0, -1.0]]
    assert teacher_term(signals([-1.0] * 5, entropy)).sign().tolist() == [[-1.0, -1.0, -1.0, -1.0, 1.0]]


@pytest.mark.parametrize("scale", ["median_abs", "mean_abs", "std", "none"])
def test_gap_is_never_centred(scale):
    # all gaps of one sign: centring would flip those below the mean
    given = signals([0.5, 1.0, 1.5, 2.0, 9.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert (teacher_term(given, map="attract", gate="none", gap_scale=scale) > 0).all()
    mixed = random_signals(1)
    term = teacher_term(mixed, map="attract", gate="none", gap_scale=scale)
    assert torch.equal(term.sign(), mixed.gap.sign())


def test_omega_stays_strictly_between_minus_one_and_one():
    # H = 0, 1 (98 times), 2: tau = 1, sigma = 0.02, tanh(+-50) = +-1 in float32, 0 in between
    # |gap| = 9.1 at both ends, 0.1 else: mean 0.28, gap_bar clipped to 5. The gate keeps omega at sigmoid(5 - 1) = 0.982014
    given = signals([9.1] + [0.1] * 98 + [-9.1], [0.0] + [1.0] * 98 + [2.0])
    close(METHODS["dasd"](given).omega, [[0.982014] + [0.0] * 98 + [-0.982014]])
    assert DirectionAdaptive(gate="none")(given).omega.aminmax() == (-1.0, 1.0)


@pytest.mark.parametrize("point", POINTS)
def test_outputs_are_detached_float32_and_zero_where_masked(point):
    given = random_signals(2)
    credit = DirectionAdaptive(**POINTS[point])(given)
    for output in (credit.advantages, credit.omega):
        assert output.dtype == torch.float32
        assert not output.requires_grad
        assert (output[~given.valid] == 0).all()
    assert (credit.advantages[given.valid] != 0).all()


# ---------------------------------------------------------------- identities


def grpo(given):
    return given.advantages[:, None] * given.valid


@pytest.mark.parametrize("point", POINTS)
def test_beta_zero_is_grpo(point):
    given = random_signals(4)
    assert torch.equal(DirectionAdaptive(beta=0.0, **POINTS[point])(given).advantages, grpo(given))


def test_grpo_gives_every_token_its_rollouts_advantage():
    given = random_signals(5)
    credit = METHODS["grpo"](given)
    assert torch.equal(credit.advantages, grpo(given))
    assert credit.omega is None
    assert credit.metrics["credit/teacher"] == 0.0
    assert credit.metrics["credit/sign_flips"] == 0.0
    assert "tokens/attracted" not in credit.metrics


@pytest.mark.parametrize("point", POINTS)
def test_a_teacher_that_says_what_the_student_says_is_grpo(point):
    given = random_signals(6)
    same = TokenSignals(given.student_logps, given.student_logps, given.entropies, given.completion_mask, given.advantages)
    assert torch.equal(DirectionAdaptive(**POINTS[point])(same).advantages, grpo(given))


@pytest.mark.parametrize(("name", "sign"), [("conformity", 1.0), ("novelty", -1.0)])
def test_conformity_and_novelty_are_omega_plus_and_minus_one(name, sign):
    given = random_signals(7)
    credit = METHODS[name](given)
    assert torch.equal(credit.omega, sign * given.valid.float())
    # A = A_G + 0.1 * (+-1) * gap / median|gap|, row by row
    for row, valid in enumerate(given.valid):
        gap = (given.teacher_logps - given.student_logps)[row, valid].double().numpy()
        expected = float(given.advantages[row]) + sign * 0.1 * np.clip(gap / np.median(np.abs(gap)), -5, 5)
        np.testing.assert_allclose(credit.advantages[row, valid], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rho", [0.875, 0.8, 0.5])
def test_fork_only_and_scaffold_only_split_the_tokens_at_the_threshold(rho):
    given = random_signals(8)
    forks = DirectionAdaptive(map="repel", arm="high", gate="none", rho=rho)(given)
    scaffold = DirectionAdaptive(map="attract", arm="low", gate="none", rho=rho)(given)
    for row, valid in enumerate(given.valid):
        entropy = given.entropies[row, valid].double().numpy()
        above = entropy > np.quantile(entropy, rho)
        assert forks.omega[row, valid].tolist() == [-1.0 if high else 0.0 for high in above]
        assert scaffold.omega[row, valid].tolist() == [0.0 if high else 1.0 for high in above]
    untouched = (forks.omega == 0) & given.valid
    assert torch.equal(forks.advantages[untouched], grpo(given)[untouched])


def test_a_token_at_the_threshold_is_scaffold_and_not_fork():
    # rho = 0.75 of five tokens: tau = 3 is the fourth token's own entropy
    given = signals(GAP, ENTROPY)
    scaffold = DirectionAdaptive(map="attract", arm="low", gate="none", rho=0.75)(given)
    assert scaffold.omega.tolist() == [[1.0, 1.0, 1.0, 1.0, 0.0]]
    assert DirectionAdaptive(map="repel", arm="high", gate="none", rho=0.75)(given).omega.tolist() == [
        [0.0, 0.0, 0.0, 0.0, -1.0]
    ]


def test_novelty_mirrors_conformity_around_the_verifier():
    given = random_signals(9)
    middle = (METHODS["conformity"](given).advantages + METHODS["novelty"](given).advantages) / 2
    torch.testing.assert_close(middle, grpo(given), rtol=1e-6, atol=1e-6)


def test_beta_scales_the_teachers_term_linearly():
    given = signals(GAP, ENTROPY)
    one, four = (DirectionAdaptive(beta=beta)(given).advantages for beta in (0.125, 0.5))
    assert torch.equal(4 * one, four)
    assert one.abs().max() > 0


# ---------------------------------------------------------------- what the term is less

# Six tokens, rho = 0.5: H = 0, 1, 2, 3, 4, 5, tau = 2.5. In nats, hard map, no gate, beta 1: omega = 1, 1, 1, -1, -1, -1
#   gap = 1, -3, -1 | -1, -5, -3      omega * gap = 1, -3, -1 | 1, 5, 3: means -1 and 3, together (-3 + 9)/6 = 1
SIX = [1.0, -3.0, -1.0, -1.0, -5.0, -3.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
IN_NATS = {"map": "hard", "gate": "none", "gap_scale": "none", "gap_clip": 10.0}
ARMS, BASELINES = ("both", "low", "high"), ("rollout", "side")


@pytest.mark.parametrize(
    ("baseline", "arm", "term"),
    [
        ("none", "both", [1.0, -3.0, -1.0, 1.0, 5.0, 3.0]),
        ("rollout", "both", [0.0, -4.0, -2.0, 0.0, 4.0, 2.0]),
        ("side", "both", [2.0, -2.0, 0.0, -2.0, 2.0, 0.0]),
        # only one side has a direction: its own mean either way, and the others have no term
        ("rollout", "low", [2.0, -2.0, 0.0, 0.0, 0.0, 0.0]),
        ("side", "low", [2.0, -2.0, 0.0, 0.0, 0.0, 0.0]),
        ("rollout", "high", [0.0, 0.0, 0.0, -2.0, 2.0, 0.0]),
        ("side", "high", [0.0, 0.0, 0.0, -2.0, 2.0, 0.0]),
    ],
)
def test_the_baseline_is_the_mean_of_the_terms_by_hand(baseline, arm, term):
    close(teacher_term(signals(*SIX), rho=0.5, arm=arm, baseline=baseline, **IN_NATS), [term])


def test_a_token_at_tau_is_of_the_lower_side_whatever_its_direction():
    # rho = 0.75 of the five tokens: tau = 3 is the fourth's own entropy, where the hard map says 0. Terms 1, -1, 2, 0: mean 0.5
    given = signals(GAP, ENTROPY)
    for baseline in BASELINES:
        term = teacher_term(given, rho=0.75, arm="low", baseline=baseline, **IN_NATS)
        close(term, [[0.5, -1.5, 1.5, -0.5, 0.0]])
    # conformity: 1, -1, 2, 1 | 0, means 0.75 and 0
    settings = IN_NATS | {"map": "attract"}
    close(teacher_term(given, rho=0.75, baseline="side", **settings), [[0.25, -1.75, 1.25, 0.25, 0.0]])


def test_masked_tokens_and_rollouts_without_a_teacher_are_in_no_mean_and_keep_their_advantage():
    # the six tokens with two wild masked ones, and once more without a teacher; A_G = 0.5
    gap = [1.0, -3.0, 400.0, -1.0, -1.0, -5.0, -300.0, -3.0]
    one = signals(gap, [0.0, 1.0, 90.0, 2.0, 3.0, 4.0, 0.0, 5.0], advantage=0.5, mask=[1, 1, 0, 1, 1, 1, 0, 1])
    tensors = (one.student_logps, one.teacher_logps, one.entropies, one.completion_mask, one.advantages)
    pair = TokenSignals(*(torch.cat([tensor, tensor]) for tensor in tensors), has_teacher=torch.tensor([True, False]))
    untaught = [0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.0, 0.5]
    side = DirectionAdaptive(beta=1.0, rho=0.5, baseline="side", **IN_NATS)(pair).advantages
    close(side, [[2.5, -1.5, 0.0, 0.5, -1.5, 2.5, 0.0, 0.5], untaught])
    rollout = DirectionAdaptive(beta=1.0, rho=0.5, baseline="rollout", **IN_NATS)(pair).advantages
    close(rollout, [[0.5, -3.5, 0.0, -1.5, 0.5, 4.5, 0.0, 2.5], untaught])


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("settings", [{}, {"map": "attract", "gate": "none"}, {"rank": True, "gate": "threshold"}], ids=str)
def test_terms_less_a_baseline_have_the_mean_zero_and_the_others_none(baseline, arm, settings):
    given = random_signals(10)
    term = teacher_term(given, rho=0.6, arm=arm, baseline=baseline, **settings)
    assert term.abs().max() > 0.1
    for row, valid in enumerate(given.valid):
        entropy, terms = given.entropies[row, valid].double().numpy(), term[row, valid].double().numpy()
        low = entropy <= np.quantile(entropy, 0.6)
        sides = {"low": [low], "high": [~low], "both": [low, ~low]}[arm]
        for group in sides if baseline == "side" else [np.any(sides, axis=0)]:
            assert abs(terms[group].mean()) < 2e-6
        assert (terms[~np.any(sides, axis=0)] == 0).all()


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_moves_all_tokens_of_a_group_alike_and_leaves_omega(baseline):
    given = random_signals(11)
    plain, less = (DirectionAdaptive(beta=1.0, baseline=kind)(given) for kind in ("none", baseline))
    assert torch.equal(less.omega, plain.omega)
    moved = plain.advantages - less.advantages
    for row, valid in enumerate(given.valid):
        entropy = given.entropies[row, valid].double().numpy()
        low = torch.from_numpy(entropy <= np.quantile(entropy, 0.8))
        for group in (low, ~low) if baseline == "side" else (low | ~low,):
            shifts = moved[row, valid][group]
            torch.testing.assert_close(shifts, shifts[:1].expand_as(shifts), rtol=0.0, atol=2e-6)


def test_the_credit_that_is_reported_is_less_the_baseline():
    # 0, -4, -2 | 0, 4, 2: six of twelve on each side; A_G = 1: 1, -3, -1 | 1, 5, 3
    given = signals(*SIX, advantage=1.0)
    metrics = DirectionAdaptive(beta=1.0, rho=0.5, baseline="rollout", **IN_NATS)(given).metrics
    shares = {name: metrics[f"credit/{name}"] for name in ("attracted", "repelled", "teacher", "sign_flips")}
    assert shares == pytest.approx({"attracted": 0.5, "repelled": 0.5, "teacher": 12 / 18, "sign_flips": 2 / 6})


@pytest.mark.parametrize("baseline", BASELINES)
def test_beta_weighs_what_is_left_and_may_be_a_schedule(baseline):
    given = signals(*SIX)
    settings = {"rho": 0.5, "baseline": baseline, **IN_NATS}
    one, quarter = (DirectionAdaptive(beta=beta, **settings)(given).advantages for beta in (1.0, 0.25))
    assert torch.equal(quarter, one / 4)
    falling = DirectionAdaptive(beta=Schedule(1.0, 0.0, steps=4), **settings)
    for step, share in enumerate((1.0, 0.75, 0.5, 0.25, 0.0, 0.0)):
        assert torch.equal(assign_credit(given, falling, step).advantages, share * one)


def test_a_sample_of_the_student_is_punished_for_what_it_is_by_conforming_without_a_baseline():
    """Tokens of pi have a mean gap of -KL(pi || q): the term is a reward for being unsure of the teacher, not for a choice."""
    rng = torch.Generator().manual_seed(0)
    pi, q = (torch.softmax(2 * torch.randn(8, generator=rng), 0) for _ in range(2))
    kl = float((pi * (pi / q).log()).sum())
    tokens = torch.multinomial(pi, 20_000, replacement=True, generator=rng)[None]
    ones = torch.ones(tokens.shape)
    given = TokenSignals(pi.log()[tokens], q.log()[tokens], ones, ones, torch.zeros(1))
    error = float((pi / q).log()[tokens].std()) / tokens.numel() ** 0.5
    assert kl > 50 * error

    settings = {"gap_scale": "none", "gap_clip": float("inf"), "beta": 1.0}
    for name, sign in (("conformity", -1.0), ("novelty", 1.0)):
        plain, less = (
            make_method(name, settings | {"baseline": kind})(given).advantages.double() for kind in ("none", "rollout")
        )
        assert abs(float(plain.mean()) - sign * kl) < 4 * error
        assert abs(float(less.mean())) < 1e-5
        # of what the teacher prefers to the student's own mean, conforming rewards more than the rest, and deviating less
        assert torch.equal(less > 0, -sign * (given.gap - given.gap.mean()) > 0)


# ---------------------------------------------------------------- degenerate rollouts

DEGENERATE = {
    "one token": signals([3.0], [2.0], advantage=0.7),
    "one valid token": signals([9.0, 3.0, 9.0], [1.0, 2.0, 3.0], advantage=0.7, mask=[0, 1, 0]),
    "all entropies equal": signals([1.0, -2.0, 3.0], [0.3, 0.3, 0.3], advantage=0.7),
    "all gaps zero": signals([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], advantage=0.7),
    "all gaps and entropies zero": signals([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], advantage=0.7),
    "empty mask": signals([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], advantage=0.7, mask=[0, 0, 0]),
}


@pytest.mark.parametrize("given", DEGENERATE.values(), ids=list(DEGENERATE))
@pytest.mark.parametrize("scale", ["median_abs", "mean_abs", "std", "none"])
@pytest.mark.parametrize("center", ["mean", "median", "quantile"])
@pytest.mark.parametrize(
    "settings",
    [
        {"map": "tanh"},
        {"map": "linear", "rank": True},
        {"map": "hard"},
        POINTS["fork_only"],
        {"sigma": "side", "gap_units": "side"},
        {"baseline": "rollout"},
        {"baseline": "side"},
    ],
    ids=str,
)
def test_degenerate_rollouts_fall_back_to_the_verifier(given, scale, center, settings):
    credit = DirectionAdaptive(beta=1.0, gap_scale=scale, sigma_center=center, **settings)(given)
    assert torch.equal(credit.advantages, grpo(given))
    assert torch.isfinite(credit.omega).all()
    assert all(np.isfinite(value) for value in credit.metrics.values())


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("entropy", [0.1, 0.3, 1 / 3, 1e-30])
def test_equal_entropies_give_no_direction_whatever_their_rounding(length, entropy):
    # the mean of n equal floats need not be that float: sigma_H may be a rounding error, tau - H must still be 0
    credit = DirectionAdaptive(beta=1.0, gate="none")(signals([1.0] * length, [entropy] * length))
    assert (credit.omega == 0).all()


@pytest.mark.parametrize("scale", ["median_abs", "mean_abs", "std", "none"])
def test_no_tokens_gives_nothing_out_for_every_gap_scale(scale):
    credit = DirectionAdaptive(gap_scale=scale)(TokenSignals(*(torch.zeros(2, 0) for _ in range(4)), torch.ones(2)))
    assert credit.advantages.shape == (2, 0)
    assert credit.metrics == {}


def test_one_empty_rollout_leaves_its_neighbours_alone():
    pair = signals([GAP, GAP], [ENTROPY, ENTROPY], advantage=0.5, mask=[[1] * 5, [0] * 5])
    alone = signals(GAP, ENTROPY, advantage=0.5)
    credit, expected = DirectionAdaptive()(pair), DirectionAdaptive()(alone)
    torch.testing.assert_close(credit.advantages[:1], expected.advantages, rtol=1e-6, atol=1e-7)
    assert (credit.advantages[1] == 0).all()
    assert credit.metrics == pytest.approx(expected.metrics)


# ---------------------------------------------------------------- settings and the table of methods


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -0.1}, "beta must be at least 0 and finite, got -0.1"),
        ({"beta": float("nan")}, "beta must be at least 0 and finite, got nan"),
        ({"rho": 0.0}, r"rho must lie between 0 and 1, got 0\.0"),
        ({"rho": 1.0}, r"rho must lie between 0 and 1, got 1\.0"),
        ({"rho": float("nan")}, "rho must lie between 0 and 1, got nan"),
        ({"gap_clip": 0.0}, r"gap_clip must be above 0, got 0\.0"),
        ({"gap_clip": -5.0}, r"gap_clip must be above 0, got -5\.0"),
        ({"map": "soft"}, "map must be one of tanh, linear, hard, .*got 'soft'"),
        ({"signal": "entropy"}, "signal must be one of student_entropy, .*got 'entropy'"),
        ({"arm": "none"}, "arm must be one of both, low, high, got 'none'"),
        ({"flip": "both"}, "flip must be one of none, low, high, got 'both'"),
        ({"gate": "soft"}, "gate must be one of gap, none, threshold, magnitude, got 'soft'"),
        ({"gate_threshold": -1.0}, r"gate_threshold must be at least 0 and finite, got -1\.0"),
        ({"gap_units": "two"}, "gap_units must be one of one, side, got 'two'"),
        ({"sigma": "rank"}, "sigma must be one of one, side, got 'rank'"),
        ({"rank": 1}, "rank must be True or False, got 1"),
        ({"gap_scale": "mad"}, "gap_scale must be one of median_abs, mean_abs, std, none, got 'mad'"),
        ({"baseline": "group"}, "baseline must be one of none, rollout, side, got 'group'"),
        ({"baseline": None}, "baseline must be one of none, rollout, side, got None"),
        ({"sigma_center": "mode"}, "sigma_center must be one of mean, median, quantile, got 'mode'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DirectionAdaptive(**settings)


def test_no_clipping_is_a_setting():
    given = signals([1.0] + [0.0] * 9, [float(t) for t in range(10)])
    close(teacher_term(given, map="attract", gate="none", gap_scale="mean_abs", gap_clip=float("inf"))[0, :2], [10.0, 0.0])


def test_table_of_methods_holds_the_named_ablations():
    expected = {
        "dasd": DirectionAdaptive(
            beta=0.1, rho=0.8, map="tanh", gate="gap", gap_scale="median_abs", gap_clip=5.0, sigma_center="mean"
        ),
        "grpo": GroupRelative(),
        "conformity": DirectionAdaptive(map="attract", gate="none"),
        "novelty": DirectionAdaptive(map="repel", gate="none"),
        "fork_only": DirectionAdaptive(map="repel", arm="high", gate="none"),
        "scaffold_only": DirectionAdaptive(map="attract", arm="low", gate="none"),
    }
    assert {name: METHODS[name] for name in expected} == expected
