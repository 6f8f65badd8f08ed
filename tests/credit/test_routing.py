"""Do the parts that a direction is made of compute what they say? By hand; the identities between points of their space; the
formula as printed, in both readings of its quantile.

Arithmetic is in the comments; sigmoid(-1) = 0.268941, sigmoid(0) = 0.5, sigmoid(1) = 0.731059.
"""

import math

import numpy as np
import pytest
import torch

from dasd.credit import METHODS, DirectionAdaptive, TokenSignals, make_method
from dasd.credit.routing import GATES, MAPS, SIGMAS, SIGNALS, gradient_norm, position, ranks, token_frequency
from reference import credit_twin
from reference.batches import credit_of, full_batch


def rollout(gap, entropy, advantage=0.0, mask=None, **optional):
    """Signals of one rollout whose student gives every token the log-prob -2, unless told otherwise."""
    gap, entropy = torch.tensor([gap]), torch.tensor([entropy])
    mask = torch.ones_like(gap) if mask is None else torch.tensor([mask])
    student = optional.pop("student", torch.full_like(gap, -2.0))
    optional = {name: torch.tensor([values]) for name, values in optional.items()}
    return TokenSignals(student, student + gap, entropy, mask, torch.tensor([advantage]), **optional)


def close(actual, expected, tolerance=2e-6):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- as the paper prints it


@pytest.mark.parametrize(("read_from", "rho"), [("below", 0.2), ("above", 0.8)])
@pytest.mark.parametrize("seed", range(5))
def test_the_printed_formula_in_both_readings_of_its_quantile(read_from, rho, seed):
    rng = np.random.default_rng(seed)
    student, teacher = -rng.exponential(1.0, (2, 25)).astype(np.float32)
    entropy = rng.gamma(0.7, 1.0, 25).astype(np.float32)
    given = TokenSignals(
        *(torch.from_numpy(x)[None] for x in (student, teacher, entropy)), torch.ones(1, 25), torch.tensor([0.7])
    )
    ours = DirectionAdaptive(beta=0.3, rho=rho, gap_clip=math.inf)(given).advantages[0]
    printed = credit_twin.as_printed(student, teacher, entropy, 0.7, beta=0.3, rho=0.2, read_from=read_from)
    np.testing.assert_allclose(ours, printed, rtol=2e-5, atol=2e-6)


def test_the_name_of_the_printed_form():
    assert METHODS["dasd_paper"] == DirectionAdaptive(rho=0.2) == make_method("dasd", {"rho": 0.2})
    assert METHODS["dasd_paper"].gap_scale == "median_abs"


# ---------------------------------------------------------------- signals


def test_position_falls_from_one_to_zero_over_the_tokens_that_count():
    given = rollout([1.0] * 5, [0.0] * 5, mask=[0, 1, 1, 0, 1])
    assert position(given).tolist() == [[0.0, 1.0, 0.5, 0.0, 0.0]]
    assert position(rollout([1.0], [0.0])).tolist() == [[1.0]]


def test_rare_tokens_are_unsure():
    given = rollout([1.0] * 3, [0.0] * 3, mask=[1, 1, 0], token_frequencies=[0.5, 0.125, math.nan])
    close(token_frequency(given), [[math.log(2), math.log(8), 0.0]])


def test_gradient_norm_is_that_of_autograd():
    """Against the gradient itself, of a vocabulary of seven."""
    logits = torch.randn(1, 4, 7, generator=torch.Generator().manual_seed(0)).mul(2).requires_grad_()
    chosen = torch.tensor([[0, 3, 6, 2]])
    logps = logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
    logps.sum().backward()
    squares = logits.detach().softmax(-1).square().sum(-1)
    zeros = torch.zeros(1, 4)
    given = TokenSignals(logps.detach(), zeros, zeros, torch.ones(1, 4), torch.zeros(1), sum_squared_probs=squares)
    torch.testing.assert_close(gradient_norm(given), logits.grad.norm(dim=-1))


def test_gradient_norm_by_hand():
    # p = 1/2, 1/4, 1/4: y the first: sqrt(1/4 + 1/16 + 1/16) = 0.612372; the second: sqrt(1/4 + 9/16 + 1/16) = 0.935414
    student = torch.tensor([[0.5, 0.25, 1.0]]).log()
    given = rollout([1.0] * 3, [0.0] * 3, student=student, sum_squared_probs=[0.375, 0.375, 1.0])
    close(gradient_norm(given), [[0.612372, 0.935414, 0.0]])


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_signal_needs_what_it_reads_and_decides(signal):
    """The tokens above the signal's quantile are repelled, whatever the entropies are."""
    method = DirectionAdaptive(signal=signal, map="hard", gate="none")
    assert method.needs == {"teacher_logps", *SIGNALS[signal][1]}
    for seed in range(3):
        batch = full_batch(seed)
        values = SIGNALS[signal][0](TokenSignals(**batch))
        omega = credit_of(method, batch).omega
        for row, valid in enumerate(batch["completion_mask"].bool()):
            if valid.any():
                tau = np.quantile(values[row, valid].double(), 0.8)
                np.testing.assert_array_equal(omega[row, valid], np.sign(tau - values[row, valid].double().numpy()))
    for name in SIGNALS[signal][1]:
        if name != "entropies":
            with pytest.raises(ValueError, match=f"this method needs {name}, which was not given"):
                credit_of(method, full_batch(0) | {name: None})


def test_an_untaught_rollout_has_no_teachers_entropy():
    batch = full_batch(0) | {"completion_mask": torch.ones(4, 14), "has_teacher": torch.tensor([True, False, True, False])}
    found = SIGNALS["teacher_entropy"][0](TokenSignals(**batch))
    assert torch.equal(found[::2], batch["teacher_entropies"][::2])
    assert (found[1::2] == 0).all()


def test_ranks_by_hand():
    # 2, 5, 5, 9 of four: 0, (1 + 2)/2, (1 + 2)/2, 3 over 3
    values = torch.tensor([[5.0, -1e9, 2.0, 9.0, 5.0], [7.0, 7.0, 7.0, 7.0, 7.0], [3.0, 0.0, 0.0, 0.0, 0.0]])
    valid = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]).bool()
    close(ranks(values, valid), [[0.5, 0.0, 0.0, 1.0, 0.5], [0.5, 0.5, 0.5, 0.5, 0.0], [0.0] * 5])


def test_routing_by_rank_forgets_how_far_apart_the_entropies_are():
    gap = [1.0, -1.0, 2.0, 1.0, 0.5]
    near, far = (
        DirectionAdaptive(rank=True)(rollout(gap, entropy))
        for entropy in ([0.1, 0.2, 0.4, 0.3, 0.5], [0.0, 1.0, 8.0, 7.0, 90.0])
    )
    assert torch.equal(near.omega, far.omega)
    # ranks 0, 1/4, 3/4, 1/2, 1: tau = 0.8, sigma = (1/2 + 1/4 + 1/4 + 0 + 1/2)/5 = 0.3
    plain = DirectionAdaptive(rank=True, gate="none")(rollout(gap, [0.1, 0.2, 0.4, 0.3, 0.5])).omega
    close(plain, [[math.tanh((0.8 - rank) / 0.3) for rank in (0.0, 0.25, 0.75, 0.5, 1.0)]])


# ---------------------------------------------------------------- maps, sigma, arms, flips


def test_maps_by_hand():
    below, sigma = torch.tensor([[3.0, 1.0, 0.0, -1.0, -8.0]]), torch.tensor([[2.0]])
    expected = {
        "tanh": [0.905148, 0.462117, 0.0, -0.462117, -0.999329],
        "linear": [1.0, 0.5, 0.0, -0.5, -1.0],
        "hard": [1.0, 1.0, 0.0, -1.0, -1.0],
        "attract": [1.0] * 5,
        "repel": [-1.0] * 5,
    }
    assert set(expected) == set(MAPS)
    for name, values in expected.items():
        close(MAPS[name](below, sigma), [values])
        no_spread = MAPS[name](torch.zeros(1, 5), torch.zeros(1, 1))
        assert torch.isfinite(no_spread).all()


def test_sigma_of_each_side_is_its_own_mean_distance_from_tau():
    # H = 0, 1, 2, 3, 9, rho = 0.5: tau = 2; below it 0, 1 at distances 2, 1: 1.5; above 3, 9 at 1, 7: 4
    signal = torch.tensor([[0.0, 1.0, 2.0, 3.0, 9.0]])
    found = SIGMAS["side"](signal, 2.0 - signal, torch.ones(1, 5, dtype=torch.bool), torch.zeros(1))
    close(found, [[1.5, 1.5, 4.0, 4.0, 4.0]])
    omega = DirectionAdaptive(rho=0.5, sigma="side", gate="none")(rollout([1.0] * 5, signal[0].tolist())).omega
    close(omega, [[math.tanh(x) for x in (2 / 1.5, 1 / 1.5, 0.0, -1 / 4, -7 / 4)]])


def test_an_arm_alone_and_an_arm_turned_round():
    given, plain = rollout([1.0, -1.0, 2.0, 1.0, 0.5], [0.0, 1.0, 2.0, 3.0, 9.0]), {"rho": 0.5, "map": "linear", "gate": "none"}
    # tau = 2, sigma = (3 + 2 + 1 + 0 + 6)/5 = 2.4
    both = [2 / 2.4, 1 / 2.4, 0.0, -1 / 2.4, -1.0]
    close(DirectionAdaptive(**plain)(given).omega, [both])
    close(DirectionAdaptive(**plain, arm="low")(given).omega, [[*both[:3], 0.0, 0.0]])
    close(DirectionAdaptive(**plain, arm="high")(given).omega, [[0.0, 0.0, 0.0, *both[3:]]])
    close(DirectionAdaptive(**plain, flip="low")(given).omega, [[-2 / 2.4, -1 / 2.4, 0.0, *both[3:]]])
    close(DirectionAdaptive(**plain, flip="high")(given).omega, [[*both[:3], 1 / 2.4, 1.0]])


@pytest.mark.parametrize("settings", [{}, {"map": "hard"}, {"map": "linear", "sigma": "side", "rank": True}], ids=str)
def test_the_arms_add_up_and_a_flip_is_one_arm_less_the_other(settings):
    for seed in range(6):
        omega = {
            (arm, flip): credit_of(DirectionAdaptive(**settings, arm=arm, flip=flip), full_batch(seed)).omega
            for arm, flip in (("both", "none"), ("low", "none"), ("high", "none"), ("both", "low"), ("both", "high"))
        }
        assert torch.equal(omega["both", "none"], omega["low", "none"] + omega["high", "none"])
        assert torch.equal(omega["both", "low"], omega["high", "none"] - omega["low", "none"])
        assert torch.equal(omega["both", "high"], omega["low", "none"] - omega["high", "none"])


def test_the_ablations_are_points_of_the_space():
    for seed in range(6):
        batch = full_batch(seed)
        given = TokenSignals(**batch)
        high = torch.zeros_like(given.valid)
        for row, valid in enumerate(given.valid):
            if valid.any():
                high[row, valid] = given.entropy[row, valid] > np.quantile(given.entropy[row, valid].double(), 0.8)
        expected = {
            "conformity": given.valid.float(),
            "novelty": -given.valid.float(),
            "fork_only": -high.float(),
            "scaffold_only": (given.valid & ~high).float(),
        }
        for name, omega in expected.items():
            assert torch.equal(credit_of(METHODS[name], batch).omega, omega), name


# ---------------------------------------------------------------- gates


def test_gates_by_hand():
    size = torch.tensor([[0.0, 0.5, 1.0, 2.0]])
    close(GATES["gap"](size, 9.0), [[0.268941, 0.377541, 0.5, 0.731059]])
    close(GATES["none"](size, 9.0), [[1.0] * 4])
    close(GATES["threshold"](size, 0.5), [[0.0, 0.0, 1.0, 1.0]])
    close(GATES["magnitude"](size, 9.0), [[0.0, 0.5, 1.0, 1.0]])


def test_the_gates_threshold_is_a_setting():
    # gap = 1, 2, 4: median 2, gap_bar = 0.5, 1, 2
    given = rollout([1.0, 2.0, 4.0], [0.0, 1.0, 2.0])
    for threshold, open_ in ((0.4, [1.0, 1.0, 1.0]), (0.6, [0.0, 1.0, 1.0]), (1.5, [0.0, 0.0, 1.0])):
        method = DirectionAdaptive(map="attract", gate="threshold", gate_threshold=threshold)
        assert method(given).omega.tolist() == [open_]


# ---------------------------------------------------------------- units of the gap by side


def test_each_side_of_tau_has_its_own_unit_of_the_gap():
    # H = 0, 1, 2, 3, 4, rho = 0.5: tau = 2; at or below it |gap| = 0.1, 0.2, 0.4: median 0.2; above 1, 3: median 2
    given = rollout([0.1, -0.2, 0.4, 1.0, -3.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    term = DirectionAdaptive(beta=1.0, rho=0.5, map="attract", gate="none", gap_units="side")(given).advantages
    close(term, [[0.5, -1.0, 2.0, 0.5, -1.5]], tolerance=1e-5)


def test_units_by_side_give_sure_tokens_their_share_of_the_credit():
    given = rollout([0.01, -0.02, 0.04, 1.0, -3.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    settings = {"rho": 0.5, "map": "hard", "gate": "none", "gap_scale": "mean_abs"}
    one, side = (DirectionAdaptive(**settings, gap_units=units)(given).metrics for units in ("one", "side"))
    # one unit: 0.03 of 4.03 (the token at tau has no direction); by side: units 0.07/3 and 2: 0.03/0.0233 = 1.2857 against 2
    assert one["credit/attracted"] == pytest.approx(0.03 / 4.03, rel=1e-4)
    assert side["credit/attracted"] == pytest.approx(1.285714 / 3.285714, rel=1e-4)
