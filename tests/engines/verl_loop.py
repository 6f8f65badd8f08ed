"""verl's loop on CPUs under Ray, as far as it goes: its workers, queue, replay buffer, losses and updates, and dasd's trainer.

What verl has for GPUs alone is left out: rollout servers and the weights' way to them. Completions are prescribed, by place.
Used by `test_verl_loop.py`, brought into every process of Ray by `VERL_USE_EXTERNAL_MODULES=verl_cpu,verl_loop`.
"""

import json
import os
from pathlib import Path

import torch
import transfer_queue as tq
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.utils import tensordict_utils as tu
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerManager

from dasd.prompts import tokenize_prompt
from dasd.verl.trainer import DasdTrainer, samples_of

LLMServerManager.rollout_replica_class = None  # else vLLM or SGLang is loaded, for servers that are not started here


def prescribed(step, place, vocabulary):
    generator = torch.Generator().manual_seed(1000 * step + place)
    return torch.randint(3, vocabulary, (2 + place % 8 + step % 2,), generator=generator).tolist()


def reward(ids):
    """Varies inside every group, and some pass."""
    return float(sum(ids) % 7) / 3


class NoServers:
    """In the checkpoint manager's place: no rollout server waits for weights."""

    def update_weights(self, global_steps=None):
        return {}

    def sleep_replicas(self):
        pass


@register_trainer("dasd_on_cpus")
class OnCPUs(DasdTrainer):
    _enable_hybrid_replicas = False

    def _load_checkpoint(self):
        self.checkpoint_manager = NoServers()
        super()._load_checkpoint()

    def on_step_end(self):
        pass

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        fields = ["uid", "responses", "response_mask", "advantages", "old_log_probs", "rm_scores"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        rows = {name: [row.tolist() for row in data[name].unbind()] for name in fields[1:]}
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        line = {"step": global_steps, "uid": [sample["uid"] for sample in samples_of(data)], "rows": rows, "metrics": numbers}
        with Path(os.environ["DASD_SEEN"]).open("a") as out:
            out.write(json.dumps(line) + "\n")
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)


class Prescribed:
    """In the agent loop manager's place: puts completions into the queue as verl's own does."""

    def __init__(self, config):
        self.config, self.step = config, 0
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)

    @classmethod
    def create(cls, config, **_):
        return cls(config)

    def generate_sequences(self, batch):
        self.step += 1
        names = [name for name in batch.keys() if not isinstance(batch.get(name), torch.Tensor)]  # noqa: SIM118
        place = 0
        for index in range(len(batch)):
            sample = {name: tu.get(batch[index : index + 1], name) for name in names}
            sample = {name: value[0] if isinstance(value, list) else value for name, value in sample.items()}
            uid, rollouts = sample["uid"], []
            for _ in range(self.config.actor_rollout_ref.rollout.n):
                rollouts.append(self._fields(sample, prescribed(self.step, place, len(self.tokenizer))))
                place += 1
            keys = [f"{uid}_{session}_0" for session in range(len(rollouts))]
            lengths = [(len(fields["prompts"]), len(fields["responses"])) for fields in rollouts]
            tags = [
                {
                    "status": "success", "prompt_len": prompt, "response_len": response, "seq_len": prompt + response,
                    "global_steps": self.step, "min_global_steps": self.step - 1, "max_global_steps": self.step - 1,
                }
                for prompt, response in lengths
            ]  # fmt: skip
            tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(rollouts), tags=tags, partition_id="train")
            tq.kv_batch_put(keys=[uid], partition_id="train", tags=[{"status": "finished"}])

    def _fields(self, sample, ids):
        prompt = torch.tensor(tokenize_prompt(self.tokenizer, list(sample["raw_prompt"])))
        response = torch.tensor(ids)
        together, mask = torch.cat([prompt, response]), torch.ones_like(response)
        scores = torch.zeros(len(ids))
        scores[-1] = reward(ids)
        return sample | {
            "prompts": prompt, "responses": response, "response_mask": mask, "loss_mask": mask, "input_ids": together,
            "position_ids": torch.arange(len(together)), "rm_scores": scores, "num_turns": 2, "multi_modal_inputs": {},
            "extra_fields": {},
        }  # fmt: skip
