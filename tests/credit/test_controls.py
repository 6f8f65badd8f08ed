"""Does a control spoil the one signal it names and nothing else, by chance that is fair and depends on the rollout alone?"""

import pytest
import torch

from dasd.credit import CONTROLS, METHODS, Controlled, DirectionAdaptive, TokenSignals, make_method
from dasd.credit.controls import noise
from reference.batches import ROLLOUT_METHODS, credit_of, full_batch, outputs, rows, tokenwise

SPOILS = {
    "permuted_entropy": "entropies",
    "position_router": "entropies",
    "permuted_gap": "teacher_logps",
    "sign_randomised_gap": "teacher_logps",
}


def can(method, control):
    """Whether the method reads what the control spoils; the gap of the sampled token is not what whole distributions teach, and
    half of what a contrast of hints does."""
    gap_only = not {"teacher_distribution", "contrast_logps"} & method.needs
    if "evidence" in method.needs:  # made from signals that no control reaches
        return False
    return SPOILS[control] in method.needs and (SPOILS[control] == "entropies" or gap_only)


PAIRS = [(name, control) for name, method in ROLLOUT_METHODS.items() for control in CONTROLS if can(method, control)]
every_pair = pytest.mark.parametrize(("name", "control"), PAIRS)


def spoiled(control, batch, seed=0):
    return CONTROLS[control](TokenSignals(**batch), seed)


def each_rollout(*tensors, mask):
    """Valid values of each row, of each tensor."""
    for row, valid in enumerate(mask):
        yield [tensor[row, valid] for tensor in tensors]


def wide(seed=0, tokens=200):
    """Enough tokens that a permutation is not the identity by chance, and a teacher's say in each rollout."""
    varied = {"advantages": torch.tensor([1.0, -1.3, 0.4, 1.7]), "correct": torch.tensor([True, False, True, True])}
    return full_batch(seed, tokens=tokens) | varied | {"has_teacher": None}


# ---------------------------------------------------------------- what each one keeps


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("seed", range(3))
def test_everything_but_the_named_signal_stays(control, seed):
    batch = wide(seed)
    before, after = TokenSignals(**batch), spoiled(control, batch)
    for name in ("completion_mask", "advantages", "correct", "teacher_entropies", "contrast_logps", "ratio", "has_teacher"):
        assert getattr(after, name) is getattr(before, name), name
    assert torch.equal(after.student_logps.masked_fill(~after.valid, 0.0), before.student_logps.masked_fill(~before.valid, 0.0))
    if SPOILS[control] == "entropies":
        assert torch.equal(after.gap, before.gap)
        assert not torch.equal(after.entropy, before.entropy)
    else:
        assert torch.equal(after.entropy, before.entropy)
        assert not torch.equal(after.gap, before.gap)


@pytest.mark.parametrize(
    ("control", "signal"), [("permuted_entropy", "entropy"), ("position_router", "entropy"), ("permuted_gap", "gap")]
)
@pytest.mark.parametrize("seed", range(6))
def test_a_permutation_keeps_the_values_of_each_rollout(control, signal, seed):
    batch = wide(seed)
    before, after = getattr(TokenSignals(**batch), signal), getattr(spoiled(control, batch), signal)
    for old, new in each_rollout(before, after, mask=batch["completion_mask"]):
        torch.testing.assert_close(new.sort().values, old.sort().values, rtol=0, atol=1e-6)
    assert (after[~batch["completion_mask"]] == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_random_signs_keep_sizes_and_are_balanced(seed):
    batch = wide(seed)
    before, after = TokenSignals(**batch).gap, spoiled("sign_randomised_gap", batch).gap
    torch.testing.assert_close(after.abs(), before.abs(), rtol=0, atol=1e-6)
    counted = batch["completion_mask"] & (before.abs() > 0)
    turned = (before * after < 0)[counted].float()
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / len(turned) ** 0.5  # four standard errors


def test_the_position_router_makes_the_first_tokens_the_forks():
    # valid entropies 1, 9, 3, 2 with a hole: sorted 9, 3, 2, 1 at the valid places
    entropy, mask = torch.tensor([[1.0, 9.0, 77.0, 3.0, 2.0]]), torch.tensor([[1, 1, 0, 1, 1]])
    signals = TokenSignals(entropy, entropy, entropy, mask, torch.ones(1))
    assert CONTROLS["position_router"](signals, 0).entropies.tolist() == [[9.0, 3.0, 0.0, 2.0, 1.0]]
    # of ten tokens the first fifth is repelled, whatever their own entropies
    method = make_method("fork_only", {"control": "position_router"})
    ten = TokenSignals(
        *(torch.randn(1, 10, generator=torch.Generator().manual_seed(0)) for _ in range(3)), torch.ones(1, 10), torch.ones(1)
    )
    assert method(ten).omega.tolist() == [[-1.0, -1.0, 0, 0, 0, 0, 0, 0, 0, 0]]


@every_pair
def test_a_control_changes_the_credit_and_another_seed_changes_it_again(name, control):
    batch, method = wide(), ROLLOUT_METHODS[name]
    plain, one, again, other = (
        outputs(credit_of(m, batch)) for m in (method, *(Controlled(method, control, seed) for seed in (1, 1, 2)))
    )
    assert any(not torch.equal(one[key], plain[key]) for key in plain)
    assert all(torch.equal(one[key], again[key]) for key in plain)
    assert control == "position_router" or any(not torch.equal(one[key], other[key]) for key in plain)


@pytest.mark.parametrize("control", CONTROLS)
def test_beta_zero_under_a_control_is_still_grpo(control):
    batch = full_batch(0)
    expected = credit_of(METHODS["grpo"], batch).advantages
    assert torch.equal(credit_of(Controlled(DirectionAdaptive(beta=0.0), control), batch).advantages, expected)


# ---------------------------------------------------------------- what must not matter


@every_pair
def test_padding_order_splits_and_masked_values_change_nothing(name, control):
    method = Controlled(ROLLOUT_METHODS[name], control, seed=5)

    def same(found, expected):
        for key, output in found.items():
            torch.testing.assert_close(output, expected[key], rtol=5e-6, atol=5e-6)

    for seed in range(3):
        batch = full_batch(seed)
        mask, plain = batch["completion_mask"], outputs(credit_of(method, batch))
        order = [2, 0, 3, 1]
        same(outputs(credit_of(method, rows(batch, order))), {key: output[order] for key, output in plain.items()})
        parts = [outputs(credit_of(method, rows(batch, [row]))) for row in range(4)]
        same({key: torch.cat([part[key] for part in parts]) for key in plain}, plain)
        padded = tokenwise(
            batch, lambda key, x: torch.nn.functional.pad(x, (3, 5), value=False if key == "completion_mask" else torch.nan)
        )
        same({key: output[:, 3:-5] for key, output in outputs(credit_of(method, padded)).items()}, plain)
        dirty = tokenwise(batch, lambda key, x, mask=mask: x if key == "completion_mask" else torch.where(mask, x, torch.nan))
        same(outputs(credit_of(method, dirty)), plain)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(("rollouts", "tokens"), [(0, 3), (2, 0), (0, 0), (2, 1)])
def test_next_to_nothing_gives_next_to_nothing(control, rollouts, tokens):
    credit = credit_of(Controlled(METHODS["dasd"], control), full_batch(0, rollouts, tokens))
    assert credit.advantages.shape == (rollouts, tokens)
    assert torch.isfinite(credit.advantages).all()


# ---------------------------------------------------------------- chance


def chi_square(values, bins):
    """Statistic of equal shares in `bins` bins of [0, 1)."""
    counts = torch.bincount((values.flatten() * bins).long(), minlength=bins).double()
    expected = values.numel() / bins
    return float(((counts - expected) ** 2 / expected).sum())


def signals_of(student):
    return TokenSignals(student, student, student.abs(), torch.ones_like(student), torch.zeros(len(student)))


SOURCES = {
    "random log-probs": lambda seed: signals_of(-torch.rand(32, 512, generator=torch.Generator().manual_seed(0)) * 3),
    "certain tokens": lambda seed: signals_of(torch.zeros(1, 16384)),
    "log-probs on a grid": lambda seed: signals_of(-torch.arange(16384.0).reshape(32, 512) / 1024),
}
LIMIT_63, LIMIT_255 = 117.0, 346.0  # chi-square with so many degrees of freedom lies above by chance once in 20,000


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_noise_is_uniform_and_neighbours_are_independent(source, seed):
    values = noise(SOURCES[source](seed), seed)
    assert values.dtype == torch.float64
    assert values.min() >= 0
    assert values.max() < 1
    assert chi_square(values, 64) < LIMIT_63
    flat = values.flatten()
    for lag in (1, 2):  # 16 by 16 cells of a token and one after it
        pairs = (flat[:-lag] * 16).floor() * 16 + (flat[lag:] * 16).floor()
        assert chi_square(pairs / 256, 256) < LIMIT_255


def test_noise_of_a_token_is_uniform_and_independent_over_seeds():
    values = torch.stack([noise(signals_of(torch.tensor([[-0.5, 0.0]])), seed)[0] for seed in range(2560)])
    for column in values.T:
        assert chi_square(column, 64) < LIMIT_63
        pairs = (column[:-1] * 16).floor() * 16 + (column[1:] * 16).floor()
        assert chi_square(pairs / 256, 256) < LIMIT_255


def test_every_order_of_three_tokens_is_equally_likely():
    entropy = torch.tensor([[1.0, 2.0, 3.0]])
    student = -torch.rand(6000, 3, generator=torch.Generator().manual_seed(0))
    batch = TokenSignals(student, student, entropy.expand(6000, -1), torch.ones(6000, 3), torch.zeros(6000))
    found = CONTROLS["permuted_entropy"](batch, 0).entropies
    _, counts = found.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert float(((counts - 1000.0) ** 2 / 1000).sum()) < 27.9  # 5 degrees of freedom, once in 26,000


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_that_spoils_what_is_never_read_is_refused(name, control):
    if can(METHODS[name], control):
        assert Controlled(METHODS[name], control).needs == METHODS[name].needs
    else:
        with pytest.raises(ValueError, match=f"control {control} (changes nothing|does not reach)"):
            make_method(name, {"control": control})


@pytest.mark.parametrize("name", ["rlcsd", "sipo"])
@pytest.mark.parametrize("control", ["permuted_gap", "sign_randomised_gap"])
def test_a_control_of_the_gap_would_spoil_half_of_a_contrast(name, control):
    """The scores under wrong hints stay where they are, and what is left of the evidence is not chance."""
    with pytest.raises(ValueError, match="does not reach the wrong hints of this method: it would spoil half of its evidence"):
        make_method(name, {"control": control})


@pytest.mark.parametrize(
    ("name", "control"), [("conformity", "permuted_entropy"), ("grpo", "permuted_gap"), ("forking", "permuted_gap")]
)
def test_a_refused_control_would_have_changed_nothing(name, control):
    batch = wide()
    assert torch.equal(METHODS[name](spoiled(control, batch)).advantages, METHODS[name](TokenSignals(**batch)).advantages)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, True, None, "0"])
def test_seeds_are_whole_numbers_in_range(seed):
    with pytest.raises(ValueError, match="control_seed must be a whole number from 0 to 2147483647"):
        Controlled(METHODS["dasd"], "permuted_gap", seed)


def test_the_largest_seed_works():
    assert torch.isfinite(noise(signals_of(torch.zeros(1, 3)), 2**31 - 1)).all()


@pytest.mark.parametrize("control", ["shuffled", "", None, ["permuted_gap"]])
def test_an_unknown_control_is_refused(control):
    with pytest.raises(ValueError, match="control must be one of permuted_entropy, permuted_gap"):
        Controlled(METHODS["dasd"], control)
