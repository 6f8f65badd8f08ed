"""Which fields of `trl.GRPOConfig` may stand under `training.trl`, and what becomes of each? One table, for the code and for
docs/trl_options.md (`python -m dasd.training.trl_options`).

Every field is in exactly one of the four: a setting of dasd's own, one that works (tests/training/test_trl_options.py trains
with it, against plain TRL), one that is handed on to another library, or one that is refused, with the reason. A test fails for
a field of TRL's that is in none.
"""

from __future__ import annotations

# TRL's name -> the key of a config that decides it
OWN = {
    "output_dir": "output",
    "max_steps": "training.steps",
    "per_device_train_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.rollouts_per_step",
    "num_generations": "training.group_size",
    "num_iterations": "training.num_iterations",
    "learning_rate": "training.learning_rate",
    "warmup_steps": "training.warmup_steps",
    "loss_type": "training.loss_type",
    "temperature": "training.temperature",
    "max_completion_length": "training.max_completion_length",
    "save_steps": "training.save_steps",
    "seed": "training.seed",
    "report_to": "training.report_to",
    "chat_template_kwargs": "model.chat_template_kwargs",
    "trust_remote_code": "model.trust_remote_code",
}

WORKS = {
    "lr_scheduler_type": "default constant_with_warmup; over training.steps, also where those were raised",
    "lr_scheduler_kwargs": "",
    "optim": "some need a package of their own, which is said",
    "optim_args": "",
    "weight_decay": "",
    "adam_beta1": "",
    "adam_beta2": "",
    "adam_epsilon": "",
    "max_grad_norm": "0: no clipping",
    "bf16": "default: on GPUs, and for an adapter on weights in bfloat16",
    "fp16": "a step whose gradient overflows is left out by its scaler",
    "activation_checkpointing": "",
    "activation_checkpointing_kwargs": "",
    "gradient_checkpointing": "TRL's older name of activation_checkpointing; default: on GPUs",
    "gradient_checkpointing_kwargs": "",
    "use_cache": "",
    "torch_empty_cache_steps": "",
    "logging_steps": "steps between two lines of metrics.jsonl, default 1",
    "logging_first_step": "",
    "save_total_limit": "newest checkpoints that are kept, default 2",
    "full_determinism": "",
    "use_cpu": "default: where there is no accelerator",
    "accelerator_config": "gradient_accumulation_kwargs and the like; split_batches and dispatch_batches are refused",
    "dataloader_num_workers": "",
    "dataloader_pin_memory": "",
    "dataloader_persistent_workers": "",
    "dataloader_prefetch_factor": "",
    "dataloader_multiprocessing_context": "",
    "dataloader_in_order": "",
    "disable_dropout": "default true; false only for models without dropout, or methods without teacher",
    "cast_lm_head_to_fp32": "log-probs and divergences alike",
    "shuffle_dataset": "",
    "pad_to_multiple_of": "",
    "generation_batch_size": "rollouts sampled at once, for several optimisation steps",
    "steps_per_generation": "passes for which rollouts are sampled at once",
    "top_p": "sampling only: scores are of the whole distribution, as TRL's",
    "top_k": "as top_p",
    "min_p": "as top_p",
    "repetition_penalty": "as top_p",
    "generation_kwargs": "as top_p",
    "cache_implementation": "",
    "beta": "KL to the base; with LoRA the base is the model without its adapter",
    "use_bias_correction_kl": "",
    "sync_ref_model": "all weights only, as TRL says",
    "ref_model_mixup_alpha": "",
    "ref_model_sync_steps": "",
    "epsilon": "",
    "epsilon_high": "",
    "delta": "",
    "sapo_temperature_neg": "loss_type sapo; by each token's sign",
    "sapo_temperature_pos": "",
    "vespo_k_pos": "loss_type vespo; by each token's sign",
    "vespo_lambda_pos": "",
    "vespo_k_neg": "",
    "vespo_lambda_neg": "",
    "importance_sampling_level": "sequence: one ratio for a rollout, times each token's credit",
    "reward_weights": "one number for each reward: the verifier, training.overlong_buffer, training.rewards",
    "multi_objective_aggregation": "",
    "scale_rewards": "",
    "mask_truncated_completions": "",
    "top_entropy_quantile": "policy loss on the most uncertain tokens only, after their credit",
    "entropy_coef": "",
    "use_adaptive_entropy": "",
    "entropy_coef_min": "",
    "entropy_coef_max": "",
    "entropy_coef_delta": "",
    "entropy_target": "",
    "off_policy_mask_threshold": "whole rollouts are left out, by the mean of their tokens' credit; divergences are not",
    "log_completions": "",
    "num_completions_to_print": "",
    "log_unique_prompts": "",
    "router_aux_loss_coef": "models with experts only",
    "vllm_importance_sampling_correction": "",
    "vllm_importance_sampling_mode": "default token_truncate",
    "vllm_importance_sampling_clip_max": "",
    "vllm_importance_sampling_clip_min": "",
}

_DDP, _VLLM = "torch's DDP, with several processes", "vLLM"
HANDED_ON = {
    "tf32": "torch, on GPUs that have it",
    "log_level": "transformers' own log",
    "log_level_replica": "transformers' own log",
    "log_on_each_node": "transformers' own log",
    "disable_tqdm": "transformers' own progress bar, default off beside dasd's",
    "skip_memory_metrics": "transformers' memory tracker, which is slow",
    "run_name": "the tracker of training.report_to",
    "project": "the tracker of training.report_to",
    "trackio_space_id": "trackio",
    "trackio_bucket_id": "trackio",
    "trackio_static_space_id": "trackio",
    "ddp_find_unused_parameters": _DDP,
    "ddp_bucket_cap_mb": _DDP,
    "ddp_broadcast_buffers": _DDP,
    "ddp_static_graph": _DDP,
    "ddp_backend": _DDP,
    "ddp_timeout": _DDP,
    "ds3_gather_for_generation": "DeepSpeed ZeRO-3",
    "use_vllm": f"{_VLLM}; docs/scaling.md",
    "vllm_mode": _VLLM,
    "vllm_model_impl": _VLLM,
    "vllm_enable_sleep_mode": _VLLM,
    "vllm_structured_outputs_regex": _VLLM,
    "vllm_server_base_url": _VLLM,
    "vllm_server_host": _VLLM,
    "vllm_server_port": _VLLM,
    "vllm_server_timeout": _VLLM,
    "vllm_group_port": _VLLM,
    "vllm_gpu_memory_utilization": _VLLM,
    "vllm_max_model_length": _VLLM,
    "vllm_tensor_parallel_size": _VLLM,
}

_EVALUATION = "of transformers' own evaluation; training.eval_steps watches a run, dasd eval evaluates a model"
_HUB = "a run is written to the disk: upload its final folder with `hf upload`"
_LAUNCHER = "it belongs to the launcher: accelerate launch --config_file recipes/accelerate/..."
_NOTHING = "it would do nothing: "
_TORN = "checkpoints are how a killed run goes on as it was: training.save_steps"
REFUSED = {
    "num_train_epochs": "training.steps says how long a run is",
    "optim_target_modules": "of optimisers (GaLore, APOLLO) that dasd was not tried with",
    "average_tokens_across_devices": _NOTHING + "TRL's loss counts the tokens of all processes itself",
    "label_smoothing_factor": _NOTHING + "TRL's loss has no labels to smooth",
    "neftune_noise_alpha": "the student would be scored with noise that the teacher does not have",
    "bf16_full_eval": _EVALUATION,
    "fp16_full_eval": _EVALUATION,
    "torch_compile": "batches differ in shape, so that each is compiled anew, and a compiled forward hides its hidden states",
    "torch_compile_backend": "see torch_compile",
    "torch_compile_mode": "see torch_compile",
    "use_liger_kernel": "deprecated by TRL, and not tried",
    "liger_kernel_config": "see use_liger_kernel",
    "auto_find_batch_size": "groups would be torn, as TRL says: lower training.micro_batch_size",
    "logging_strategy": "metrics.jsonl has a line every logging_steps",
    "logging_nan_inf_filter": "it hides a loss that is not finite, which ends a run here",
    "include_num_input_tokens_seen": _NOTHING + "TRL logs num_tokens itself",
    "eval_strategy": _EVALUATION,
    "eval_steps": _EVALUATION,
    "eval_delay": _EVALUATION,
    "per_device_eval_batch_size": _EVALUATION,
    "prediction_loss_only": _EVALUATION,
    "eval_on_start": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_use_gather_object": _EVALUATION,
    "eval_accumulation_steps": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "num_generations_eval": _EVALUATION,
    "load_best_model_at_end": _EVALUATION,
    "metric_for_best_model": _EVALUATION,
    "greater_is_better": _EVALUATION,
    "save_only_model": _TORN,
    "save_strategy": _TORN,
    "enable_jit_checkpoint": "its checkpoint may fall into the use of a batch of rollouts, which is in no checkpoint",
    "save_on_each_node": "one process writes a run's folder",
    "resume_from_checkpoint": "the same command goes on from the last checkpoint by itself",
    "restore_callback_states_from_checkpoint": _NOTHING + "no callback of a run has a state",
    "ignore_data_skip": "a run that goes on would meet the same problems again",
    "push_to_hub": _HUB,
    "hub_token": "it would be written to config.yaml",
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "log_completions_hub_repo": _HUB,
    "data_seed": _NOTHING + "TRL's order of the data goes by training.seed",
    "parallelism_config": "TRL's GRPO cannot split a sequence over devices, and YAML cannot write it",
    "dataloader_drop_last": _NOTHING + "TRL gives whole batches only",
    "remove_unused_columns": "the columns are what grader and teacher read",
    "label_names": _NOTHING + "there are no labels",
    "train_sampling_strategy": _NOTHING + "the order is TRL's, group by group (shuffle_dataset)",
    "length_column_name": "see train_sampling_strategy",
    "fsdp": _LAUNCHER,
    "fsdp_config": _LAUNCHER,
    "deepspeed": _LAUNCHER,
    "debug": "of transformers' own development",
    "do_train": "dasd train trains",
    "do_eval": _EVALUATION,
    "do_predict": _EVALUATION,
    "local_rank": _LAUNCHER,
    "model_init_kwargs": "the section model says how the model is loaded",
    "max_tool_calling_iterations": _NOTHING + "a run has no tools",
    "log_multimodal": _NOTHING + "problems are text",
    "use_transformers_continuous_batching": "it rounds the trained weights to the type of the mixed precision, for good",
    "transformers_continuous_batching_config": "see use_transformers_continuous_batching",
    "use_transformers_paged": "see use_transformers_continuous_batching",
    "vllm_importance_sampling_cap": "deprecated by TRL: vllm_importance_sampling_clip_max",
}


def refusal(name: str, value: object = None) -> str | None:
    """Why this field may not stand under training.trl with this value; None where it may."""
    if name in OWN:
        return f"training.trl.{name} is set by dasd itself: use its own key, {OWN[name]} (dasd train --help lists them)"
    if name in REFUSED:
        return f"training.trl.{name} is refused: {REFUSED[name]}"
    if name == "accelerator_config" and isinstance(value, dict):
        for key in ("split_batches", "dispatch_batches"):
            if value.get(key):
                return f"training.trl.accelerator_config.{key} is refused: groups of rollouts would be torn"
    return None


def document() -> str:
    """The table as a page."""
    rows = {name: ("own", f"`{key}`") for name, key in OWN.items()}
    rows |= {name: ("works", note) for name, note in WORKS.items()}
    rows |= {name: ("handed on", f"to {whom}") for name, whom in HANDED_ON.items()}
    rows |= {name: ("refused", reason) for name, reason in REFUSED.items()}
    table = "".join(f"| `{name}` | {status} | {note} |\n" for name, (status, note) in sorted(rows.items()))
    return HEAD + table


HEAD = """# TRL's options

What becomes of each field of `trl.GRPOConfig` (TRL 1.16) where a run's config has it under `training.trl`. This page is made by
`python -m dasd.training.trl_options`, and a test fails where TRL has a field that it does not know.

* **own**: decided by a key of dasd's own; under `training.trl` it is refused with that key's name.
* **works**: trained with by the test suite. Where the method is `grpo` and the field concerns the optimisation, two steps end
  with the very weights of `trl.GRPOTrainer` (`tests/training/test_trl_options.py`).
* **handed on**: nothing here looks at it; it reaches the library that is named.
* **refused**: an error with this reason, before anything is loaded.

Every value is checked for its type first, and none may be infinite or NaN. `dasd.SelfDistillationConfig` in Python is a
`GRPOConfig` and takes what TRL takes.

| field | | |
|---|---|---|
"""

if __name__ == "__main__":
    print(document(), end="")
