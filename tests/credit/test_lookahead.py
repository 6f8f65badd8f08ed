"""Direction from evidence: numbers on paper, a slow twin, and GRPO where there is none."""

import math

import pytest
import torch

from dasd.credit import Controlled, DirectionAdaptive, GroupRelative, TokenSignals, make_method
from dasd.credit.lookahead import CLASSES, Lookahead
from dasd.credit.signals import entropy_deciles


def batch(rows=8, length=30, seed=0):
    torch.manual_seed(seed)
    student = -torch.rand(rows, length) * 3
    mask = torch.ones(rows, length)
    mask[1, 20:] = 0
    has_teacher = torch.ones(rows, dtype=torch.bool)
    has_teacher[2] = False
    teacher = torch.where(has_teacher[:, None], student + torch.randn(rows, length), student)
    return TokenSignals(
        student,
        teacher,
        torch.rand(rows, length),
        mask,
        torch.randn(rows),
        correct=torch.rand(rows) > 0.5,
        has_teacher=has_teacher,
    )


def sums(*columns):
    """(G, CLASSES) with these columns first."""
    found = torch.zeros(len(columns[0]), CLASSES)
    for place, column in enumerate(columns):
        found[:, place] = torch.tensor(column)
    return found


def test_numbers_on_paper():
    """Mean 2, standard deviation over 4 problems 2, its error 1: (2 * 1 / 2)^2 = 1 leaves nothing at z 2, 3/4 at z 1."""
    values = [2 + 3**0.5, 2 - 3**0.5, 2 + 3**0.5, 2 - 3**0.5]
    method = Lookahead(z=1.0)
    evidence = method.update(None, sums(values, [-v for v in values], [5.0] * 4, [1.0, -1.0, 1.0, -1.0]))
    assert method.directions(evidence)[:5] == pytest.approx([0.75, -0.75, 1.0, 0.0, 0.0])
    assert Lookahead(z=2.0).directions(evidence)[:3] == pytest.approx([0.0, 0.0, 1.0])


def test_one_problem_is_no_evidence():
    assert Lookahead().directions(Lookahead().update(None, sums([3.0]))) == [0.0] * CLASSES


def test_evidence_fades():
    method = Lookahead(memory=0.5)
    evidence = method.update(method.update(None, sums([4.0, 4.0])), sums([1.0, 3.0]))
    assert evidence["weight"] == [0.5 * 2 + 2]
    assert evidence["squared_weight"] == [0.25 * 2 + 2]
    assert evidence["sum"][0] == 0.5 * 8 + 4
    assert evidence["squares"][0] == 0.5 * 32 + 10
    assert Lookahead(memory=0.0).update(evidence, sums([1.0, 3.0])) == Lookahead().update(None, sums([1.0, 3.0]))


def test_without_evidence_it_is_grpo():
    signals = batch()
    credit = Lookahead()(signals)
    assert torch.equal(credit.advantages, GroupRelative()(signals).advantages)
    assert (credit.omega == 0).all()


def test_credit_is_that_of_dasd_with_the_evidence_for_router():
    signals = batch()
    method = Lookahead(beta=0.2)
    evidence = method.update(None, sums([1.0] * 4, *[[0.0] * 4] * 8, [-1.0] * 4))  # attract the first decile, repel the last
    signals = TokenSignals(**{name: getattr(signals, name) for name in signals.__dataclass_fields__} | {"evidence": evidence})
    credit = method(signals)
    deciles = entropy_deciles(signals)
    assert torch.equal(credit.omega, (deciles == 0).float() - (deciles == 9).float())
    _, gap_bar = DirectionAdaptive(gate="none").direction(signals)
    torch.testing.assert_close(credit.advantages, signals.rollout_advantages + 0.2 * credit.omega * gap_bar)


def test_look_equals_loops():
    signals, uphill = batch(), torch.randn(8, 30)
    uphill[1, 20:] = math.nan  # behind its end
    _, gap_bar = DirectionAdaptive(gate="none").direction(signals)
    deciles = entropy_deciles(signals)
    expected = torch.zeros(8, CLASSES)
    for row in range(8):
        for token in range(30):
            if signals.taught[row, token]:
                expected[row, deciles[row, token]] += gap_bar[row, token] * uphill[row, token]
    torch.testing.assert_close(Lookahead().look(signals, uphill), expected, atol=1e-5, rtol=1e-5)


def test_settings_out_of_range():
    for wrong, said in (({"z": -1.0}, "z"), ({"memory": 1.0}, "memory"), ({"every": 0}, "every"), ({"beta": -0.1}, "beta")):
        with pytest.raises(ValueError, match=said):
            make_method("lookahead", wrong)


def test_no_control_spoils_half_of_it():
    with pytest.raises(ValueError, match="does not reach the evidence"):
        Controlled(Lookahead(), "permuted_gap")
