"""Are bad inputs refused by name and place, and are the masked statistics and summed metrics right?"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.credit import Credit, DirectionAdaptive, TokenSignals, ratios
from dasd.credit.signals import entropy_deciles, high_entropy, masked_deviation, masked_mean, masked_quantile
from reference.batches import SCORES


def inputs(**changed):
    """Good inputs for two rollouts of three tokens, with some of them changed."""
    good = {
        "student_logps": torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.25, -1.0]]),
        "teacher_logps": torch.tensor([[-1.5, -1.0, -3.0], [-0.25, -0.5, -2.0]]),
        "entropies": torch.tensor([[0.5, 1.0, 2.0], [0.0, 0.25, 3.0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "advantages": torch.tensor([1.0, -1.0]),
    }
    return good | changed


def at(tensor, index, value):
    """A copy of the tensor with one entry replaced."""
    copy = tensor.clone()
    copy[index] = value
    return copy


def refused(message, **changed):
    with pytest.raises(ValueError, match=message):
        TokenSignals(**inputs(**changed))


# ---------------------------------------------------------------- rounding


def one_token(student, gap, **changed):
    student = torch.tensor([[student]], dtype=torch.float64)
    return TokenSignals(student, student + gap, *(torch.ones(1, 1) for _ in range(2)), torch.ones(1), **changed)


@pytest.mark.parametrize(
    ("dtype", "student", "floor"),
    # (16 eps + 2**-14) (1 - p) + 2**-18 with eps = 2**-23, 2**-10, 2**-7; 2**-14 = 512 * 2**-23, 2**-18 = 32 * 2**-23
    [
        (torch.float32, 0.0, 2.0**-18),  # p = 1
        (torch.float32, math.log(0.5), 2.0**-20 + 2.0**-15 + 2.0**-18),
        (torch.float64, math.log(0.5), 2.0**-20 + 2.0**-15 + 2.0**-18),  # scores are read in float32
        (torch.float16, math.log(0.75), 2.0**-8 + 2.0**-16 + 2.0**-18),
        (torch.bfloat16, math.log(0.5), 2.0**-4 + 2.0**-15 + 2.0**-18),
        (torch.bfloat16, -40.0, 2.0**-3 + 2.0**-14 + 2.0**-18),  # p = 0
    ],
)
def test_noise_floor_by_hand(dtype, student, floor):
    assert one_token(student, 0.0, computed_in=dtype).noise_floor.item() == pytest.approx(floor, rel=1e-6)


def test_a_gap_counts_above_the_floor_in_a_rollout_that_has_one_above_three_times_that():
    # p = 1 where the teacher is surer than possible, so that every floor is 2**-18
    gap = torch.tensor([[0.9, -0.9, 1.1, -2.9], [0.9, -0.9, 1.1, -3.1], [0.9, -0.9, 1.1, 0.0]]) * 2.0**-18
    student = torch.where(gap < 0, -gap, 0.0)  # exact at this size
    signals = TokenSignals(student, student + gap, *(torch.ones(3, 4) for _ in range(2)), torch.ones(3))
    assert torch.equal(signals.noise_floor, torch.full((3, 4), 2.0**-18))
    assert torch.equal(signals.raw_gap, gap)
    expected = torch.zeros(3, 4)
    expected[1, 2:] = gap[1, 2:]
    assert torch.equal(signals.gap, expected)


def test_the_less_likely_of_student_and_teacher_decides_on_the_floor():
    one, other = one_token(0.0, -1.0), one_token(-1.0, 1.0)
    assert one.noise_floor.item() == other.noise_floor.item() == pytest.approx(528 * 2**-23 * (1 - math.exp(-1)) + 2**-18)


def test_an_untaught_rollout_has_no_gap_of_either_kind():
    signals = one_token(-1.0, 3.0, has_teacher=torch.tensor([False]))
    assert (signals.gap.item(), signals.raw_gap.item()) == (0.0, 0.0)


# ---------------------------------------------------------------- what is refused

PER_TOKEN = ("student_logps", "teacher_logps", "entropies")


def test_good_inputs_are_accepted():
    assert TokenSignals(**inputs()).gap.tolist() == [[-0.5, 1.0, 0.0], [0.25, -0.25, 0.0]]


@pytest.mark.parametrize("name", inputs())
def test_what_is_not_a_tensor_is_refused_by_name(name):
    refused(f"^{name} must be a torch.Tensor, got list", **{name: inputs()[name].tolist()})


@pytest.mark.parametrize("name", ["teacher_logps", "entropies", "completion_mask"])
@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (2, 1), (1, 3), (2,), (2, 3, 1)], ids=str)
def test_wrong_shape_is_refused_by_name_and_never_broadcast(name, shape):
    changed = torch.ones(shape)
    shown = str(shape).replace("(", r"\(").replace(")", r"\)")
    refused(rf"^{name} must have shape \(2, 3\) to match student_logps, got {shown}$", **{name: changed})


@pytest.mark.parametrize("shape", [(2, 1), (3,), (1,), (), (2, 3)], ids=str)
def test_advantages_are_one_a_rollout(shape):
    refused(r"^advantages must have shape \(2,\)", advantages=torch.ones(shape))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 1), ()], ids=str)
def test_student_logps_must_be_two_dimensional(shape):
    refused(r"^student_logps must have shape \(B, T\), got ", student_logps=torch.ones(shape))


@pytest.mark.parametrize("name", [*PER_TOKEN, "advantages"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_scores_must_be_floating_point(name, dtype):
    refused(f"^{name} must be floating point, got {dtype}$", **{name: inputs()[name].to(dtype)})


def test_complex_mask_is_refused():
    refused(
        "^completion_mask must hold 0 and 1, got dtype torch.complex64", completion_mask=torch.ones(2, 3).to(torch.complex64)
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(2, "2"), (-1, "-1"), (0.5, r"0\.5"), (float("nan"), "nan"), (float("inf"), "inf")]
)
def test_mask_that_is_not_binary_is_refused_with_the_first_bad_index(value, shown):
    mask = torch.ones(2, 3, dtype=torch.int64 if isinstance(value, int) else torch.float32)
    refused(rf"^completion_mask\[0, 2\] is {shown}, expected 0 or 1 \(1 such", completion_mask=at(mask, (0, 2), value))


@pytest.mark.parametrize("name", PER_TOKEN)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_non_finite_score_at_a_valid_token_is_refused_with_its_index(name, value, dtype):
    changed = at(inputs()[name].to(dtype), (1, 1), value)
    refused(rf"^{name}\[1, 1\] is {value}, expected a finite value where the mask is 1 \(1 such", **{name: changed})


def test_first_bad_index_skips_masked_tokens_and_counts_the_rest():
    mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    bad = torch.tensor([[float("nan"), 1.0, 1.0], [1.0, float("inf"), float("nan")]])
    refused(r"^teacher_logps\[1, 1\] is inf, .*\(1 such", teacher_logps=bad, completion_mask=mask)
    refused(r"^entropies\[0, 0\] is nan, .*\(2 such", entropies=bad, completion_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_advantage_is_refused_with_its_index(value):
    refused(rf"^advantages\[1\] is {value}, expected a finite value \(1 such", advantages=torch.tensor([0.0, value]))


def test_anything_may_stand_at_masked_tokens():
    wild = {
        name: at(full()[name], (..., 1, 2), value)
        for name, value in zip(
            SCORES, (math.nan, math.inf, -7e9, -math.inf, math.nan, 3e38, math.nan, -1.0, math.inf), strict=True
        )
    }
    dirty, clean = TokenSignals(**full(**wild)), TokenSignals(**full())
    assert torch.equal(dirty.gap, clean.gap)
    assert torch.equal(dirty.entropy, clean.entropy)
    for name in SCORES[3:]:
        assert torch.equal(dirty.require(name), clean.require(name))


# ---------------------------------------------------------------- the optional signals


def full(**changed):
    """The good inputs and every optional tensor, the mask's one zero at [1, 2]."""
    good = {
        "correct": torch.tensor([True, False]),
        "teacher_entropies": torch.ones(2, 3),
        "contrast_logps": -torch.ones(2, 2, 3),
        "ratio": torch.ones(2, 3),
        "has_contrast": torch.tensor([[True, False], [True, True]]),
        "has_teacher": torch.tensor([True, True]),
        "attention_entropies": torch.ones(2, 3),
        "sum_squared_probs": torch.ones(2, 3),
        "token_frequencies": torch.ones(2, 3),
    }
    return inputs(**good | changed)


@pytest.mark.parametrize("name", SCORES[3:4] + SCORES[5:])
def test_optional_tokens_have_the_shape_of_the_others(name):
    refused(rf"^{name} must have shape \(2, 3\) to match student_logps, got \(2, 2\)", **{name: torch.ones(2, 2)})
    refused(f"^{name} must be floating point, got torch.int64", **{name: torch.ones(2, 3).long()})
    refused(
        rf"^{name}\[1, 1\] is nan, expected a finite value where the mask is 1",
        **{name: at(torch.ones(2, 3), (1, 1), math.nan)},
    )


def test_contrasts_are_one_layer_for_each_wrong_context():
    refused(
        r"^contrast_logps must have shape \(W, 2, 3\) to match student_logps, got \(2, 3\)", contrast_logps=torch.ones(2, 3)
    )
    refused(r"^contrast_logps must have shape \(W, 2, 3\)", contrast_logps=torch.ones(4, 3, 2))
    bad = at(torch.ones(4, 2, 3), (3, 0, 1), -math.inf)
    refused(r"^contrast_logps\[3, 0, 1\] is -inf, expected a finite value where the mask is 1 \(1 such", contrast_logps=bad)


def test_which_wrong_contexts_there_are_goes_with_the_contrasts():
    refused("^has_contrast must be bool", has_contrast=torch.ones(2, 2))
    refused(
        r"^has_contrast must have shape \(W, 2\) to match student_logps, got \(2, 3\)", has_contrast=torch.ones(2, 3).bool()
    )
    with pytest.raises(ValueError, match=r"^contrast_logps has 2 wrong contexts and has_contrast 3"):
        TokenSignals(**full(has_contrast=torch.ones(3, 2).bool()))


def test_totals_are_those_given_or_those_of_these_rollouts():
    def count(signals):
        return {"tokens": signals.valid.sum()}

    assert TokenSignals(**full()).totals(count) == {"tokens": 5.0}
    assert TokenSignals(**full(batch_totals={"tokens": 80.0})).totals(count) == {"tokens": 80.0}


@pytest.mark.parametrize("name", ["correct", "has_teacher"])
def test_truths_are_bool_and_one_a_rollout(name):
    refused(f"^{name} must be bool, got torch.float32", **{name: torch.ones(2)})
    refused(f"^{name} must be bool, got torch.int64", **{name: torch.ones(2).long()})
    refused(rf"^{name} must have shape \(2,\)", **{name: torch.ones(2, 3, dtype=torch.bool)})


def test_without_a_teacher_there_is_no_gap_and_nothing_is_taught():
    signals = TokenSignals(**inputs(has_teacher=torch.tensor([False, True])))
    assert signals.gap.tolist() == [[0.0, 0.0, 0.0], [0.25, -0.25, 0.0]]
    assert signals.taught.tolist() == [[False] * 3, [True, True, False]]
    assert TokenSignals(**inputs()).taught.tolist() == [[True] * 3, [True, True, False]]


def test_what_a_method_requires_and_was_not_given_is_named():
    with pytest.raises(ValueError, match="this method needs ratio, which was not given to TokenSignals"):
        TokenSignals(**inputs()).require("ratio")


# ---------------------------------------------------------------- masked statistics


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_masked_quantile_is_numpys_quantile_of_the_valid_values(data):
    length = data.draw(st.integers(1, 12))
    row = data.draw(st.lists(st.floats(-1000, 1000, width=32), min_size=length, max_size=length))
    mask = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    q = data.draw(st.sampled_from([0.0, 0.125, 0.5, 0.8, 0.9, 1.0]) | st.floats(0, 1))
    values, valid = torch.tensor([row]), torch.tensor([mask])
    kept = [value for value, keep in zip(row, mask, strict=True) if keep]
    expected = np.quantile(np.array(kept, np.float64), q) if kept else 0.0
    spread = max(map(abs, kept), default=1.0)
    np.testing.assert_allclose(masked_quantile(values, valid, q)[0], expected, rtol=1e-6, atol=1e-6 * spread + 1e-37)


def test_masked_quantile_by_hand():
    # valid values 1, 3, 7: q = 0.75 stands at 0.75 * 2 = 1.5, that is 3 + 0.5 * 4 = 5; the rows differ in where the mask is
    values = torch.tensor([[7.0, 1.0, 99.0, 3.0], [-99.0, 3.0, 7.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    valid = torch.tensor([[True, True, False, True], [False, True, True, True], [False, False, False, False]])
    assert masked_quantile(values, valid, 0.75).tolist() == [5.0, 5.0, 0.0]


def test_masked_quantile_works_past_the_limit_of_torch_quantile():
    # 2**24 + 3 values, two of them 1 and the others 0. q puts the quantile on the lower of the two ones, whose rank
    # 2**24 + 1 is not a float32: rounding the rank to 2**24 would give 0
    size = 2**24 + 3
    values = torch.zeros(1, size)
    values[0, 5] = values[0, size // 2] = 1.0
    q = (2**24 + 1) / (size - 1)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, q, dim=-1)
    found = masked_quantile(values, torch.ones_like(values, dtype=torch.bool), q)
    assert found.item() == pytest.approx(1.0, abs=1e-6)


def test_masked_mean_and_deviation_by_hand():
    # valid 1, 2, 6: mean 3, mean absolute deviation from 3: (2 + 1 + 3)/3 = 2, from 2: (1 + 0 + 4)/3 = 5/3
    values = torch.tensor([[1.0, float("nan"), 2.0, 6.0], [4.0, 4.0, 4.0, 4.0]])
    valid = torch.tensor([[True, False, True, True], [False] * 4])
    assert masked_mean(values, valid).tolist() == [3.0, 0.0]
    assert masked_deviation(values, valid, torch.tensor([3.0, 0.0])).tolist() == [2.0, 0.0]
    torch.testing.assert_close(masked_deviation(values, valid, torch.tensor([2.0, 0.0])), torch.tensor([5 / 3, 0.0]))


def test_high_entropy_is_above_the_quantile_and_never_at_it():
    # valid 1, 2, 3, 4, 5: rho = 0.8 gives tau at 0.8 * 4 = 3.2, that is 4.2; rho = 0.75 tau = 4, a token's own entropy
    entropy = torch.tensor([[5.0, 1.0, 99.0, 3.0, 2.0, 4.0]])
    same, mask = torch.zeros_like(entropy), torch.tensor([[1, 1, 0, 1, 1, 1]])
    signals = TokenSignals(same, same, entropy, mask, torch.zeros(1))
    for rho, above in ((0.8, [5.0]), (0.75, [5.0]), (0.5, [5.0, 4.0])):
        assert entropy[high_entropy(signals, rho)].tolist() == above


def test_entropy_deciles_hold_a_tenth_of_the_tokens_each_in_order():
    entropy = torch.arange(20.0).flip(0)[None]  # highest first
    same = torch.zeros_like(entropy)
    assert entropy_deciles(TokenSignals(same, same, entropy, torch.ones_like(same), torch.zeros(1))).tolist() == [
        [9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    ]


def test_entropy_deciles_are_of_the_rollout_and_skip_masked_tokens():
    # two valid tokens: ranks 0 and 1 of 2, deciles 0 and 5. Equal entropies rank in order of position
    entropy = torch.tensor([[9.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[1, 0, 1], [1, 1, 0]])
    same = torch.zeros_like(entropy)
    assert entropy_deciles(TokenSignals(same, same, entropy, mask, torch.zeros(2))).tolist() == [[5, -1, 0], [0, 5, -1]]


# ---------------------------------------------------------------- totals and metrics


def test_metrics_are_ratios_of_totals_summed_over_batches():
    # one token with gap -0.5 in the first batch and three in the second: the mean over 4 tokens, not the mean of the means
    method = DirectionAdaptive(beta=1.0, map="attract", gate="none", gap_scale="none")
    one = method(TokenSignals(torch.zeros(1, 1), torch.full((1, 1), -0.5), torch.ones(1, 1), torch.ones(1, 1), torch.ones(1)))
    three = method(
        TokenSignals(torch.zeros(1, 3), torch.tensor([[1.0, 1.0, -2.0]]), torch.ones(1, 3), torch.ones(1, 3), torch.ones(1))
    )
    summed = {name: float(one.totals[name]) + float(three.totals[name]) for name in one.totals}
    metrics = ratios(summed)
    assert metrics["gap/abs"] == pytest.approx(4.5 / 4)
    assert metrics["credit/teacher"] == pytest.approx(4.5 / 8.5)
    assert metrics["credit/sign_flips"] == pytest.approx(1 / 4)  # only 1 - 2 changes sign
    assert Credit(one.advantages, totals={name: torch.tensor(total) for name, total in summed.items()}).metrics == metrics


def test_ratio_without_tokens_behind_it_is_left_out():
    # two equal entropies: no token lies above the threshold, and only deciles 1 and 6 are populated
    credit = DirectionAdaptive()(TokenSignals(*(torch.ones(1, 2) for _ in range(4)), torch.ones(1)))
    assert sorted(credit.metrics) == [
        "credit/sign_flips",
        "credit/teacher",
        "gap/abs",
        "gap/decile_1",
        "gap/decile_6",
        "gap/low",
        "tokens/attracted",
        "tokens/repelled",
    ]
    assert Credit(torch.zeros(1, 2)).metrics == {}
