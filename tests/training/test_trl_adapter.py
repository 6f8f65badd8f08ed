"""Does TRL still have the private names the adapter uses, and does credit reach its loss by both ways?"""

import inspect
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer
from trl import GRPOTrainer
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.trainer.utils import pad

from dasd.training.batches import policy_moves
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
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_load_optimizer_and_scheduler", ["self", "checkpoint"]),
        ("_get_output_dir", ["self", "trial"]),
        ("_issue_warnings_after_load", ["self", "load_result"]),
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


def test_the_fused_divergence_takes_what_it_is_given():
    expected = [
        "ctx", "student_hidden", "student_weight", "student_bias", "teacher_hidden", "teacher_weight", "teacher_bias",
        "beta", "temperature", "student_logit_scale", "student_final_logit_softcapping", "teacher_logit_scale",
        "teacher_final_logit_softcapping",
    ]  # fmt: skip
    assert list(inspect.signature(ChunkedDivergenceFunction.forward).parameters) == expected


def test_trl_scores_rollouts_beforehand_where_the_policy_moves():
    """By the very condition of `policy_moves`, written as TRL has it."""
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert "generate_every = self.args.steps_per_generation * self.num_iterations" in source
    assert "if self.args.gradient_accumulation_steps % generate_every != 0 or (" in source
    for steps, uses, passes in product(range(1, 9), range(1, 4), range(1, 13)):
        given = SimpleNamespace(steps_per_generation=steps, num_iterations=uses, gradient_accumulation_steps=passes)
        assert policy_moves(given) == (passes % (steps * uses) != 0)


def test_trl_averages_dapo_as_the_divergence_is():
    """Over the tokens of one optimisation step: the same lines stand in the adapter."""
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert 'normalizer = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes' in source
    assert "normalizer = normalizer * self.current_gradient_accumulation_steps / self.args.steps_per_generation" in source
    assert "self.current_gradient_accumulation_steps = " in inspect.getsource(Trainer)


def test_a_checkpoint_is_complete_when_its_state_is():
    """Ours are written first; transformers writes trainer_state.json after model and optimiser."""
    source = inspect.getsource(Trainer._save_checkpoint)
    assert source.index("self.save_model(") < source.index("TRAINER_STATE_NAME")
    assert source.index("_save_optimizer_and_scheduler(") < source.rindex("self.state.save_to_json(")


def test_pad_pads_on_the_left():
    padded = pad([torch.tensor([1, 2]), torch.tensor([3])], padding_value=9, padding_side="left")
    assert padded.tolist() == [[1, 2], [9, 3]]


def test_adapter_is_the_only_file_with_private_trl_names():
    """Other files of the package may not touch `_metrics`, `_step` and their like on a trainer."""
    from pathlib import Path

    import dasd

    private = ("_get_per_token_logps", "._generate", "_generate_and_score", "_compute_loss", "_metrics[", "_buffered_inputs")
    for path in Path(dasd.__file__).parent.rglob("*.py"):
        if path.name != "trl_adapter.py":
            assert not [name for name in private if name in path.read_text()], path
    assert issubclass(TokenCreditTrainer, GRPOTrainer)


def test_an_off_policy_mask_leaves_out_whole_rollouts():
    """Two rollouts pushed down on the whole, one up; the policy has left the first and the last by 1 nat a token."""
    advantages = torch.tensor([[-1.0, -1.0, 0.5], [-1.0, 0.2, 9.0], [1.0, 0.1, -0.5]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]])
    moved = torch.tensor([1.0, 0.1, 1.0])[:, None].expand(3, 3)
    kept = TokenCreditTrainer.get_off_policy_mask(
        advantages=advantages, per_token_logps=-moved, sampling_per_token_logps=torch.zeros(3, 3), mask=mask,
        off_policy_threshold=0.5,
    )  # fmt: skip
    assert kept.tolist() == [[0], [1], [1]]


def test_an_off_policy_mask_of_rollout_advantages_is_trls():
    torch.manual_seed(0)
    mask = (torch.rand(64, 9) < 0.8).long()
    given = {
        "advantages": torch.randn(64, 1), "per_token_logps": -torch.rand(64, 9), "sampling_per_token_logps": -torch.rand(64, 9),
        "mask": mask, "off_policy_threshold": 0.05,
    }  # fmt: skip
    theirs = GRPOTrainer.get_off_policy_mask(**given)
    spread = given | {"advantages": given["advantages"].expand(64, 9) * mask}
    assert 0 < theirs.sum() < 64
    assert torch.equal(TokenCreditTrainer.get_off_policy_mask(**given), theirs)
    assert torch.equal(TokenCreditTrainer.get_off_policy_mask(**spread), theirs)


def test_trls_loss_gives_the_off_policy_mask_what_it_is_given_here():
    assert list(inspect.signature(GRPOTrainer.get_off_policy_mask).parameters) == [
        "advantages", "per_token_logps", "sampling_per_token_logps", "mask", "off_policy_threshold",
    ]  # fmt: skip
    assert "off_policy_mask = self.get_off_policy_mask(\n                advantages=advantages," in inspect.getsource(
        GRPOTrainer._compute_loss
    )
