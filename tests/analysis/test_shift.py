"""Is the shift what a small step does to the total variation, and is it zero where the two agree?"""

import math

import pytest
import torch

from dasd.analysis.shift import compare, teacher_terms
from dasd.models import LanguageModelHead


def head():
    """Logits are the hidden states themselves."""
    return LanguageModelHead(torch.eye(4, dtype=torch.float64), None, 1.0, None, 1.0)


def test_total_variation_by_hand():
    student, teacher = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log(), torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log()
    found = compare(head(), student.double(), teacher.double(), torch.tensor([1]))
    assert found["tv"].item() == pytest.approx(0.25)
    assert found["teacher_logps"].item() == pytest.approx(math.log(0.25))


def test_slope_by_hand():
    """p = (3/4, 1/4), q = (1/4, 3/4), s = (+1, -1), the sampled token is the second. sum s p = 1/2, sum p^2 = 5/8,
    sum s p^2 = 1/2: slope = 1/2 (-1/4 - 1/2 - (1/4 - 5/8) / 2) = -9/32: credit on what the teacher likes leads toward it."""
    two = LanguageModelHead(torch.eye(2), None, 1.0, None, 1.0)
    found = compare(two, torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    assert found["slope"].item() == pytest.approx(-9 / 32)


def test_slope_is_the_derivative_of_a_step():
    """Against the step itself: logits moved by eta (e_y - p), central difference."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    tokens = torch.randint(4, (30,), generator=generator)
    slope = compare(head(), student, teacher, tokens)["slope"]
    moved = torch.nn.functional.one_hot(tokens, 4) - student.float().softmax(-1).double()

    def tv(eta):
        return 0.5 * ((student + eta * moved).softmax(-1) - teacher.softmax(-1)).abs().sum(-1)

    assert torch.allclose(slope.double(), (tv(1e-5) - tv(-1e-5)) / 2e-5, atol=1e-5)


def test_where_both_agree_nothing_moves():
    states = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    found = compare(head(), states, states, torch.tensor([0, 1, 2, 3, 0]))
    assert found["tv"].tolist() == found["slope"].tolist() == [0.0] * 5


def test_terms_point_where_the_methods_say():
    student = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0])
    teacher = torch.tensor([-0.5, -1.5, -0.5, -1.5, -0.4])
    entropies = torch.tensor([0.0, 0.1, 0.2, 0.3, 5.0])
    terms = teacher_terms(student, teacher, entropies)
    gap = teacher - student
    assert (terms["conformity"] * gap > 0).all()
    assert torch.allclose(terms["novelty"], -terms["conformity"])
    assert (terms["dasd"] * gap)[0] > 0 > (terms["dasd"] * gap)[4]


def test_an_empty_completion_has_no_rows():
    found = compare(head(), torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert [len(row) for row in found.values()] == [0, 0, 0]
