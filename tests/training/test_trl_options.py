"""Is every field of TRL's config known, and do those that are said to work train as they do in TRL?"""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PrinterCallback, Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import GRPOConfig, GRPOTrainer

from dasd.config import BadInput, RunConfig, validate
from dasd.training.arguments import trainer_arguments
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer
from dasd.training.trl_options import HANDED_ON, OWN, REFUSED, WORKS, document
from training.conftest import length_reward, make_arguments, tiny

DOCS = Path(__file__).parents[2] / "docs"
AGAIN = {"num_iterations": 2, "learning_rate": 5e-2}  # the policy moves away from its rollouts: ratios are not 1
ENDS = {
    "generation_kwargs": {"exponential_decay_length_penalty": (2, 1.5)}
}  # most rollouts of a random model end by themselves

# Each is tried as a whole: with the method `dasd`, and with `grpo` against plain TRL.
EXAMPLES = {
    "schedule": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.5}},
    "adam": {"weight_decay": 0.5, "adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 1e-3, "max_grad_norm": 0.05},
    "optimiser": {"optim": "adamw_torch", "optim_args": "eps=1e-3"},
    "bf16": {"bf16": True, "use_cpu": True},
    "fp16": {"fp16": True},
    "checkpointing": {
        "activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}, "use_cache": True,
    },
    "checkpointing, old name": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "logging": {"logging_first_step": True, "logging_steps": 2, "torch_empty_cache_steps": 1, "full_determinism": True},
    "data": {
        "dataloader_num_workers": 1, "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 2,
        "dataloader_in_order": True, "dataloader_pin_memory": False, "dataloader_multiprocessing_context": "fork",
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}, "shuffle_dataset": False,
    },
    "padding": {"pad_to_multiple_of": 8, "disable_dropout": True},
    "a batch for two steps": {"generation_batch_size": 16, "save_total_limit": 1},
    "two passes a batch": {"steps_per_generation": 2, "per_device_train_batch_size": 4},
    "sampling": {"top_p": 0.9, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1, "cache_implementation": "static"},
    "rollouts that end": ENDS | {"mask_truncated_completions": True},
    "clipping": AGAIN | {"epsilon": 0.01, "epsilon_high": 0.02, "delta": 1.05},
    "sapo": AGAIN | {"loss_type": "sapo", "sapo_temperature_neg": 1.5, "sapo_temperature_pos": 0.5},
    "vespo": AGAIN | {
        "loss_type": "vespo", "vespo_k_pos": 1.5, "vespo_lambda_pos": 2.0, "vespo_k_neg": 2.0, "vespo_lambda_neg": 1.0,
    },
    "a ratio for a rollout": AGAIN | {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "rewards": {"reward_weights": [0.5], "scale_rewards": "batch"},
    "rewards apart": {"multi_objective_aggregation": "normalize_then_sum"},
    "KL": AGAIN | {
        "beta": 0.5, "sync_ref_model": True, "ref_model_mixup_alpha": 0.5, "ref_model_sync_steps": 1,
        "use_bias_correction_kl": False,
    },
    "uncertain tokens": {"top_entropy_quantile": 0.3, "entropy_coef": 0.1},
    "entropy held": {
        "use_adaptive_entropy": True, "entropy_coef": 0.5, "entropy_coef_min": 0.1, "entropy_coef_max": 0.9,
        "entropy_coef_delta": 0.2, "entropy_target": 9.0,
    },
    "off policy": AGAIN | {"off_policy_mask_threshold": 0.001},
    "completions": {"log_completions": True, "num_completions_to_print": 1, "log_unique_prompts": True},
    "head": {"cast_lm_head_to_fp32": True},
}  # fmt: skip
ELSEWHERE = {  # trained with in another test of this folder
    "router_aux_loss_coef": "test_experts_keep_their_balance",
    "vllm_importance_sampling_correction": "test_vllm.py",
    "vllm_importance_sampling_mode": "test_vllm.py",
    "vllm_importance_sampling_clip_max": "test_vllm.py",
    "vllm_importance_sampling_clip_min": "test_vllm.py",
}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny(tokenizer).save_pretrained(path)
    return path


@pytest.fixture
def trained(folder, tokenizer, problems, tmp_path):
    """Two steps from the same weights."""

    def start(kind, settings, **changes):
        trainer = kind(
            AutoModelForCausalLM.from_pretrained(folder), length_reward,
            make_arguments(settings, output_dir=str(tmp_path), **changes), train_dataset=as_dataset(problems),
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        finally:
            torch.use_deterministic_algorithms(False)  # of full_determinism
        return trainer

    return start


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_trains_as_in_trl(trained, name, monkeypatch):
    """With rollouts of TRL's generation: our sampler draws other random numbers. And every row with its own prompt: read once,
    sums are rounded in another order (test_passes.py has their gradients)."""
    monkeypatch.setattr("dasd.training.trl_adapter.trains_on_shared_prompts", lambda *_: False)
    changes = EXAMPLES[name]
    ours = trained(SelfDistillationTrainer, SelfDistillationConfig, method="grpo", sampler="trl", **changes)
    theirs = trained(GRPOTrainer, GRPOConfig, **({"disable_dropout": True} | changes))
    assert ours.state.global_step == theirs.state.global_step == 2
    assert ours.weights_changed
    size = 1e-3 * ours.args.learning_rate  # Adam makes steps of about the learning rate, however small a gradient is
    for (weight, one), (_, other) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=size, rtol=0, msg=lambda text, weight=weight: f"{weight}: {text}")


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_trains_with_token_credit(trained, name):
    trainer = trained(SelfDistillationTrainer, SelfDistillationConfig, method="dasd", **EXAMPLES[name])
    assert trainer.state.global_step == 2
    assert trainer.weights_changed
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(entry["loss"]) for entry in logged)
    assert logged[0]["gap/abs"] > 0


def plain(values):
    """An example as a config file may have it: TRL's fields alone, without what has a key of its own."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if name not in OWN}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_config_may_have_it(name):
    values = {
        "training": {
            "rollouts_per_step": 16,
            "group_size": 4,
            "micro_batch_size": 8,
            "save_steps": 100,
            "trl": plain(EXAMPLES[name]),
        }
    }
    arguments = trainer_arguments(validate(RunConfig, values))
    torch.use_deterministic_algorithms(False)
    for field, value in plain(EXAMPLES[name]).items():
        if field not in ("accelerator_config", "generation_kwargs"):
            assert getattr(arguments, field) == value, field


def test_every_field_is_known_once():
    known = [*OWN, *WORKS, *HANDED_ON, *REFUSED]
    assert len(known) == len(set(known))
    assert set(known) == {field.name for field in fields(GRPOConfig)}


def test_every_field_that_works_is_trained_with():
    tried = {field for values in EXAMPLES.values() for field in values}
    assert set(WORKS) - tried == set(ELSEWHERE)
    assert tried <= set(WORKS) | set(OWN)


def test_the_page_is_the_table():
    assert (DOCS / "trl_options.md").read_text() == document(), "python -m dasd.training.trl_options > docs/trl_options.md"


def test_own_keys_are_keys():
    for key in OWN.values():
        kind = RunConfig
        for part in key.split("."):
            kind = kind.model_fields[part].annotation


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_field_says_why(name):
    with pytest.raises(BadInput) as said:
        trainer_arguments(validate(RunConfig, {"training": {"trl": {name: 1}}}))
    assert str(said.value) == f"training.trl.{name} is refused: {REFUSED[name]}"


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_field_of_dasds_own_names_its_key(name):
    with pytest.raises(BadInput, match=f"use its own key, {OWN[name]} "):
        trainer_arguments(validate(RunConfig, {"training": {"trl": {name: 1}}}))


@pytest.mark.parametrize(
    ("trl", "message"),
    [
        ({"weight_decay": "much"}, r"training\.trl\.weight_decay: .*number.*got 'much'"),
        ({"top_k": 1.5}, r"training\.trl\.top_k: .*integer.*got 1\.5"),
        ({"bf16": "perhaps"}, r"training\.trl\.bf16: .*boolean"),
        ({"reward_weights": [1, "a"]}, r"training\.trl\.reward_weights.*got 'a'"),
        ({"generation_kwargs": 3}, r"training\.trl\.generation_kwargs: "),
        ({"accelerator_config": {"split_batches": True}}, "split_batches is refused: groups"),
        ({"lr_scheduler_type": "cosin"}, "TRL refuses these settings: cosin is not a valid SchedulerType"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(trl, message):
    with pytest.raises(BadInput, match=message):
        trainer_arguments(validate(RunConfig, {"training": {"trl": trl}}))


def test_experts_keep_their_balance(tokenizer, problems, tmp_path):
    """`router_aux_loss_coef` on a model with experts: more of it, another update; against plain TRL."""

    def step(kind, settings, coefficient, **changes):
        torch.manual_seed(0)
        model = Qwen3MoeForCausalLM(
            Qwen3MoeConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1, head_dim=16, num_experts=4, num_experts_per_tok=2,
                initializer_range=0.2, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                output_router_logits=True,
            )
        )  # fmt: skip
        arguments = make_arguments(settings, output_dir=str(tmp_path), router_aux_loss_coef=coefficient, max_steps=1, **changes)
        trainer = kind(model, length_reward, arguments, train_dataset=as_dataset(problems), processing_class=tokenizer)
        trainer.train()
        return model.model.layers[0].mlp.gate.weight.detach()

    ours = {c: step(SelfDistillationTrainer, SelfDistillationConfig, c, method="grpo", sampler="trl") for c in (0.0, 1.0)}
    theirs = step(GRPOTrainer, GRPOConfig, 1.0, disable_dropout=True)
    torch.testing.assert_close(ours[1.0], theirs, atol=1e-6, rtol=0)
    assert (ours[1.0] - ours[0.0]).abs().max() > 1e-4
    assert step(SelfDistillationTrainer, SelfDistillationConfig, 1.0, method="dasd").isfinite().all()


@pytest.mark.parametrize(("beta", "expected"), [(0.04, {"revision": "abc"}), (0.0, None)])
def test_the_reference_of_a_kl_is_of_the_same_revision(beta, expected):
    """TRL loads it once more, by the model's name alone."""
    values = {"model": {"path": "org/model", "revision": "abc"}, "training": {"trl": {"beta": beta}}}
    assert trainer_arguments(validate(RunConfig, values)).model_init_kwargs == expected
