#!/usr/bin/env bash
# Tested on: nothing yet. That verl 0.9.1 composes these settings and that dasd accepts them is tested; not trained.
# Command: on the first node `ray start --head`, on the other `ray start --address HEAD:6379`, then on the first one
#   bash recipes/verl/qwen3_8b_2nodes.sh
# Data: verl's own columns in Parquet: data_source, prompt (messages), reward_model.ground_truth, extra_info. The teacher sees the
#   answer (reward_model.ground_truth); with extra_info.solution in the data: dasd.teacher.context=solution.
# Needs on both nodes: pip install 'dasd[verl]' and a rollout engine of verl's (vLLM). verl finds the trainer by itself.
# Expect: not measured. beta is this package's default; the rest is what GRPO is commonly run with at this size. None of it has
#   been tuned on this model.
set -euo pipefail
DATA=${DATA:-$HOME/data/dapo-math-17k}
MODEL=${MODEL:-Qwen/Qwen3-8B}
NODES=${NODES:-2}

python -m verl.trainer.main_ppo \
    trainer.v1.trainer_mode=dasd \
    +dasd.method.name=dasd \
    +dasd.method.beta=0.1 \
    +dasd.teacher.context=answer \
    +dasd.teacher.weights=live \
    algorithm.adv_estimator=grpo \
    algorithm.use_kl_in_reward=false \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=128 \
    data.max_prompt_length=1024 \
    data.max_response_length=8192 \
    data.filter_overlong_prompts=true \
    data.truncation=error \
    +data.apply_chat_template_kwargs.enable_thinking=false \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.use_remove_padding=true \
    actor_rollout_ref.model.enable_gradient_checkpointing=true \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=12288 \
    actor_rollout_ref.actor.use_kl_loss=false \
    actor_rollout_ref.actor.entropy_coeff=0 \
    actor_rollout_ref.actor.loss_agg_mode=token-mean \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=2 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.calculate_log_probs=true \
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true \
    actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=12288 \
    trainer.nnodes="$NODES" \
    trainer.n_gpus_per_node=8 \
    trainer.total_training_steps=200 \
    trainer.save_freq=50 \
    trainer.test_freq=-1 \
    trainer.val_before_train=false \
    trainer.logger='["console"]' \
    trainer.project_name=dasd \
    trainer.experiment_name=qwen3_8b_2nodes "$@"
