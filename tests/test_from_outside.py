"""Can a method and a signal be added from outside the package, in one file each (a task: tests/tasks/test_own.py)?"""

from pathlib import Path

import pytest
import torch

from dasd.cli import run
from dasd.credit import TokenSignals, assign_credit, make_method
from dasd.files import read_lines

METHOD = f"{Path(__file__).parents[1] / 'examples' / 'own_method.py'}:Spread"
SIGNAL = f"{Path(__file__).parents[1] / 'examples' / 'own_signal.py'}:BySurprise"


def test_its_numbers_are_those_of_its_formula():
    """Gaps 0, 1 and 3: their mean is 4/3, so the shares are 0, 0.75 and 2 (2.25, capped)."""
    student = torch.full((1, 4), -2.0)
    signals = TokenSignals(
        student_logps=student,
        teacher_logps=student + torch.tensor([[0.0, -1.0, 3.0, 9.0]]),
        entropies=torch.ones(1, 4),
        completion_mask=torch.tensor([[1, 1, 1, 0]]),
        advantages=torch.tensor([2.0]),
    )
    credit = assign_credit(signals, make_method(METHOD, {"lam": 0.5}))
    torch.testing.assert_close(credit.advantages, torch.tensor([[1.0, 1.75, 3.0, 0.0]]))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [(METHOD, ["--method.lam", "0.25"], "Spread (lam 0.25)"), (SIGNAL, [], "signal surprise")],
)
def test_the_command_line_trains_with_it(name, settings, said, tmp_path):
    config = tmp_path / "config.yaml"
    sizes = "rollouts_per_step: 8, group_size: 4, micro_batch_size: 8, max_completion_length: 16"
    config.write_text(f"training: {{steps: 1, {sizes}}}\n")
    arguments = ["--method.name", name, *settings, "--data.limit", "4", "--output", str(tmp_path / "run")]
    assert run(["train", str(config), *arguments]) == 0
    assert len(read_lines(tmp_path / "run" / "metrics.jsonl")) == 1
    assert said in (tmp_path / "run" / "checkpoints" / "final" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (f"{METHOD}s", {}, "has no 'Spreads'; it has: .*Spread"),
        ("no/such/file.py:Spread", {}, r"no/such/file\.py does not exist"),
        (METHOD, {"lamb": 0.5}, "has no setting 'lamb', did you mean 'lam'?"),
        (METHOD, {"lam": 2.0}, "lam must lie between 0 and 1"),
        (METHOD, {"lam": "much"}, "lam must be a number"),
    ],
)
def test_what_is_wrong_is_said(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, settings)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def method(signals:", "cannot be run: SyntaxError"),
        ("import no_such_package", "cannot be run: ModuleNotFoundError"),
        ("def method(signals): return signals", "must be callable with TokenSignals and have `needs`"),
    ],
)
def test_a_broken_file_is_said(code, message, tmp_path):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ValueError, match=message):
        make_method(f"{tmp_path / 'mine.py'}:method")


def test_a_signal_from_outside_routes():
    """Surprises 1, 2, 3, 4 and rho 0.5: tau is 2.5, so the first two tokens are attracted and the others repelled."""
    signals = TokenSignals(
        student_logps=torch.tensor([[-1.0, -2.0, -3.0, -4.0]]),
        teacher_logps=torch.zeros(1, 4),
        entropies=torch.tensor([[4.0, 3.0, 2.0, 1.0]]),  # which would say the opposite
        completion_mask=torch.ones(1, 4),
        advantages=torch.zeros(1),
    )
    method = make_method(SIGNAL, {"rho": 0.5, "map": "hard", "gate": "none"})
    assert method.needs == {"teacher_logps"}
    omega = assign_credit(signals, method).omega
    torch.testing.assert_close(omega, torch.tensor([[1.0, 1.0, -1.0, -1.0]]))
