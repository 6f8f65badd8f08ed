"""Does TRL still have the private names the adapter uses, and does credit reach its loss by both ways?"""

import inspect

import pytest
import torch
from trl import GRPOTrainer
from trl.trainer.utils import pad

from dasd.training.trl_adapter import TokenCreditTrainer


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_compute_loss", ["self", "model", "inputs"]),
        (
            "_get_per_token_logps_and_entropies",
            ["self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"],
        ),
    ],
)
def test_trl_has_the_private_methods_the_adapter_overrides(name, parameters):
    assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters)[: len(parameters)] == parameters


def test_trl_reads_advantages_after_the_training_pass():
    """Deferred credit rests on this order in TRL's loss."""
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert source.index("self._get_per_token_logps_and_entropies(") < source.index('inputs["advantages"]')
    assert source.count('inputs["advantages"]') == 1


def test_trl_scores_the_policy_before_any_reference_model():
    """The recorded pass that belongs to the policy is the first one."""
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    first = source.index("self._get_per_token_logps_and_entropies(")
    assert source.rindex("old_per_token_logps, _, _ =", 0, first) < first < source.index("ref_per_token_logps, _, _ =")


def test_pad_pads_on_the_left():
    padded = pad([torch.tensor([1, 2]), torch.tensor([3])], padding_value=9, padding_side="left")
    assert padded.tolist() == [[1, 2], [9, 3]]


def test_adapter_is_the_only_file_with_private_trl_names():
    """Other files of the package may not touch `_metrics`, `_step` and their like on a trainer."""
    from pathlib import Path

    import dasd

    private = ("_get_per_token_logps", "_generate_and_score", "_compute_loss", "_metrics[", "_buffered_inputs")
    for path in Path(dasd.__file__).parent.rglob("*.py"):
        if path.name != "trl_adapter.py":
            assert not [name for name in private if name in path.read_text()], path
    assert issubclass(TokenCreditTrainer, GRPOTrainer)
