"""verl's synchronous trainer with token credit from a privileged self-teacher: `trainer.v1.trainer_mode=dasd`.

Between verl's advantage and its update of the actor stands one more pass: the rollouts' own ids behind the teacher's prompts,
by the actor as it is (`dasd.teacher.weights: live`), by verl's reference policy (`frozen`) or by the actor without its adapter
(`adapter_off`). Entropies are those of verl's pass for `old_log_probs`. What `dasd.credit` makes of them goes back in place of
the advantages, and verl's own clipped loss takes it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import no_padding_2_padding, response_to_nested

from dasd.config import RunFailed
from dasd.credit import has_teacher
from dasd.prompts import tokenize_prompt
from dasd.verl.alignment import behind_prompts, credit, unpadded
from dasd.verl.prompts import as_row, teacher_prompts
from dasd.verl.settings import check, read

SCORES = ("response_mask", "old_log_probs", "entropy", "advantages", "rm_scores")
ABOUT = ("uid", "raw_prompt", "extra_info", "reward_model")


@register_trainer("dasd")
class DasdTrainer(PPOTrainerSync):
    """`PPOTrainerSync` whose `_compute_advantage` ends with token credit."""

    def __init__(self, config: Any) -> None:
        given = config.get("dasd")
        self.settings, self.method, self.context = read(OmegaConf.to_container(given, resolve=True) if given else None)
        with open_dict(config):  # the rest of verl asks by this name how rollouts and updates take turns
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        model = config.actor_rollout_ref.model
        lora = model.get("lora_adapter_path") is not None or model.get("lora_rank", 0) or model.get("lora", {}).get("rank", 0)
        check(config, self.settings, self.method, self.use_reference_policy, bool(lora), self.use_critic)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        column = [self.context.column] if self.context.column else []
        wanted = [*SCORES, *ABOUT, "responses", *column]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=wanted)
        rollouts = padded(data, ("responses", *SCORES), self.tokenizer.pad_token_id)
        if has_teacher(self.method):
            with marked_timer("teacher", self.timing_raw, color="olive"):
                self._score_as_teacher(rollouts, data, metrics)
        step = self.global_steps - 1  # verl's first one is 1, a schedule's is 0
        assigned = credit(rollouts, self.method, self.settings.success_threshold, step)
        metrics |= {f"dasd/{name}": value for name, value in assigned.metrics.items()}
        fields = {"advantages": response_to_nested(assigned.loss_advantages, data["response_mask"])}
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )

    def _score_as_teacher(self, rollouts: DataProto, data: TensorDict, metrics: dict[str, Any]) -> None:
        """Adds `teacher_log_probs`, `teacher_entropy` (B, T) and `has_teacher` (B,) to the rollouts."""
        samples = samples_of(data)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in data["responses"].unbind()]
        correct = (rollouts.batch["rm_scores"].sum(1) >= self.settings.success_threshold).tolist()
        prompts = teacher_prompts(
            samples, self.context, [sample["uid"] for sample in samples], texts, correct, Rows(self.train_dataset, self.context)
        )
        has_teacher = torch.tensor([prompt is not None for prompt in prompts])
        metrics["dasd/teacher/skipped"] = 1.0 - float(has_teacher.float().mean())
        template = dict(self.config.data.get("apply_chat_template_kwargs") or {}) | self.settings.teacher.chat_template_kwargs
        known = [list(s["raw_prompt"]) if prompt is None else prompt for prompt, s in zip(prompts, samples, strict=True)]
        ids = [tokenize_prompt(self.tokenizer, prompt, **template) for prompt in known]
        inputs = unpadded(behind_prompts(rollouts, ids, self.tokenizer.pad_token_id))
        self._refuse_too_long(inputs)
        output = self._teacher_pass(inputs)
        rollouts.batch["teacher_log_probs"] = no_padding_2_padding(tu.get(output, "log_probs"), inputs)
        rollouts.batch["teacher_entropy"] = no_padding_2_padding(tu.get(output, "entropy"), inputs)
        rollouts.batch["has_teacher"] = has_teacher

    def _teacher_pass(self, inputs: TensorDict) -> TensorDict:
        """Log-probs and entropies of the rows by the teacher's weights."""
        rollout = self.config.actor_rollout_ref.rollout
        tu.assign_non_tensor(inputs, calculate_entropy=True, compute_loss=False, temperature=rollout.temperature)
        if self.settings.teacher.weights == "frozen":
            return self.ref_policy_wg.compute_ref_log_prob(inputs)
        if self.settings.teacher.weights == "adapter_off":
            tu.assign_non_tensor(inputs, no_lora_adapter=True)
        return self.actor_rollout_wg.compute_log_prob(inputs)

    def _refuse_too_long(self, inputs: TensorDict) -> None:
        """Raises RunFailed where the teacher's prompt and the response are longer than a worker takes at once."""
        rollout = self.config.actor_rollout_ref.rollout
        longest = int(inputs["input_ids"].offsets().diff().max())
        limit = rollout.log_prob_max_token_len_per_gpu if rollout.log_prob_use_dynamic_bsz else None
        if limit is not None and longest > limit:
            raise RunFailed(
                f"the teacher's prompt with its response has {longest} tokens, and a worker takes {limit}: raise "
                "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu"
            )


class Rows(Sequence[Mapping[str, Any]]):
    """verl's dataset as rows of the context's, read one by one."""

    def __init__(self, dataset: Any, context: Any) -> None:
        self.dataset, self.context = dataset, context

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return as_row(self.dataset[int(index)], self.context)


def samples_of(data: TensorDict) -> list[dict[str, Any]]:
    """verl's columns that are no tensors, by rollout. The queue gives them as stacks, lists or arrays."""
    found = {name: data.get(name) for name in data.keys()}  # noqa: SIM118 (a TensorDict)
    columns = {
        name: column.tolist() if hasattr(column, "tolist") else list(column)
        for name, column in found.items()
        if not isinstance(column, torch.Tensor)
    }
    return [{name: column[row] for name, column in columns.items()} for row in range(len(data))]


def padded(data: TensorDict, names: Sequence[str], pad: int) -> DataProto:
    """These nested (B, T_i) fields right-padded to (B, T), with the `attention_mask` of the responses."""
    tensors = {name: data[name].to_padded_tensor(pad if name == "responses" else 0) for name in names}
    lengths = data["responses"].offsets().diff()
    places = torch.arange(tensors["responses"].shape[1])
    tensors["attention_mask"] = (places < lengths[:, None]).long()
    return DataProto.from_dict(tensors=tensors)
