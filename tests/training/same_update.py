"""Trains on prescribed completions and writes what was logged and learnt, for comparison across numbers of processes.

Run by `test_distributed_update.py` and by `engines/test_deepspeed_update.py`, plainly for one process and under torchrun for
several: `same_update.py FOLDER [fsdp|zero2|zero3]`.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dasd import processes
from dasd.assets.build import build_tokenizer
from dasd.config import RunConfig, validate
from dasd.tasks.countdown import make_problems
from dasd.training.callbacks import MetricsWriter
from dasd.training.run import as_dataset, train
from dasd.training.trainer import SelfDistillationTrainer
from training.conftest import length_reward, make_arguments, tiny

ROLLOUTS = 8  # in one optimisation step, on all processes together
DECAY = {"start": 0.5, "end": 0.1, "steps": 2}
EMA = {"teacher_weights": "ema", "teacher_ema_rate": 0.5}
MIXED = {"num_generations": 8, "success_threshold": 9.0}  # of eight rollouts some are right and some wrong
CASES = {
    "dasd": {},
    "one group on all processes": {"num_generations": 8},
    "accumulated": {"passes": 2},
    "used twice": {"num_iterations": 2},
    "schedule, ema": {"method_settings": {"beta": DECAY}, **EMA},
    "peers on all processes": {"method": "sdpo", "context": "peer", "num_generations": 8, **EMA},
    "distributions, accumulated": {"method": "dasd_vocab", "passes": 2, **EMA},
    "distributions, frozen teacher": {"method": "opsd", "teacher_weights": "frozen", "head_in_shards": True},
    "distributions of uncertain tokens": {"method": "eopd"},
    "entropy switch": {"method": "antisd", "method_settings": {"warmup_steps": 1, "switch": 1.0, "lam": DECAY}},
    "lookahead": {"method": "lookahead", "method_settings": {"every": 1, "z": 0.0}, "passes": 2, "num_generations": 8},
    "wrong hints": {"method": "rlcsd", **MIXED},
    "wrong hints of other problems": {"method": "sipo", "method_settings": {"hints_from": "other_problems"}},
    "certainty over all processes": {"method": "srpo", "passes": 2, **MIXED},
    "each rollout's mean": {"method": "pw_opsd"},
    "forks of each rollout": {"method": "forking", "method_settings": {"scope": "rollout"}},
    "mean of rollouts": {"loss_type": "grpo"},
    "rows without teacher": {"context": "hint"},
    "rollouts of our own sampler": {"sampler": "dasd", "max_completion_length": 24},
}  # fmt: skip
SHARDED = [name for name, case in CASES.items() if name == "dasd" or "teacher_weights" in case]


class Prescribed(SelfDistillationTrainer):
    """Rollouts by place in the global batch and step; those of later places are longer, so that processes differ in length."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations):
        first = self.accelerator.process_index * len(prompt_ids)
        places = range(first, first + len(prompt_ids))
        return [prescribed(self.state.global_step, place, len(self.tokenizer)) for place in places], None

    def _head(self):
        """Under FSDP2 the head is whole after a forward pass, or in shards; accelerate's versions differ."""
        for module in self.model.modules() if self.head_in_shards else ():
            if isinstance(module, FSDPModule):
                module.reshard()
        return super()._head()


def prescribed(step, place, vocabulary):
    generator = torch.Generator().manual_seed(1000 * step + place)
    return torch.randint(3, vocabulary, (2 + place + step % 2,), generator=generator).tolist()


def run(folder, name, tokenizer, several, passes=1, head_in_shards=False, **settings):
    """Two steps with plain gradient descent, whose update is as exact as the gradient."""
    settings = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.5, "max_completion_length": 12} | settings
    settings |= {"per_device_train_batch_size": ROLLOUTS // several // passes, "gradient_accumulation_steps": passes}
    rows = as_dataset(make_problems(16, 0, "train"))
    if settings.get("context") == "hint":
        rows = rows.map(lambda row, index: {"hint": None if index % 2 else "try 3 * 7"}, with_indices=True)
    trainer = (SelfDistillationTrainer if settings.get("sampler") == "dasd" else Prescribed)(
        tiny(tokenizer), length_reward, make_arguments(output_dir=str(folder / name), **settings),
        train_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip
    trainer.head_in_shards = head_in_shards
    trainer.train()
    student = {key: whole(value) for key, value in trainer.accelerator.unwrap_model(trainer.model).named_parameters()}
    teacher = trainer.teacher.state_dict()
    if trainer.accelerator.is_main_process:
        torch.save({"student": student, "teacher": teacher}, folder / f"{name}.pt")
        (folder / f"{name}.json").write_text(json.dumps(trainer.state.log_history[:2]))


def whole(parameter):
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter.detach().full_tensor() if isinstance(parameter, DTensor) else parameter.detach().clone()


def shard_on_cpus():
    """Accelerate shards models on accelerators only; told that these are some, its FSDP2 runs on CPUs with gloo as it is."""
    os.environ |= {
        "ACCELERATE_TORCH_DEVICE": "cpu", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_TRANSFORMER_CLS_TO_WRAP": "Qwen3DecoderLayer",
        "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }  # fmt: skip
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def zero_on_cpus(stage):
    """The same for DeepSpeed, which accelerate ignores on CPUs without a word."""
    os.environ |= {
        "ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage), "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true", "ACCELERATE_MIXED_PRECISION": "no",
    }  # fmt: skip
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


class Killed(BaseException):
    pass


def kill_and_resume(folder, teacher):
    """`dasd train` as a whole, and killed in its second step and resumed."""

    def config(output):
        training = {
            "steps": 2, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, "save_steps": 1,
            "max_completion_length": 8, "trl": {"use_cpu": False, "gradient_checkpointing": True},
        }  # fmt: skip
        return validate(RunConfig, {"output": str(output), "data": {"limit": 20}, "teacher": teacher, "training": training})

    def die(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise Killed

    train(config(folder / "whole"))
    MetricsWriter.on_step_end = die
    try:
        train(config(folder / "killed"))
    except Killed:
        del MetricsWriter.on_step_end
    train(config(folder / "killed"))


if __name__ == "__main__":
    folder, sharding = Path(sys.argv[1]), (sys.argv[2:] or ["none"])[0]
    tokenizer = build_tokenizer()
    if sharding == "fsdp":
        shard_on_cpus()
    elif sharding.startswith("zero"):
        zero_on_cpus(int(sharding[-1]))
    for name in SHARDED if sharding == "fsdp" else CASES:
        try:
            run(folder, name, tokenizer, processes.count(), use_cpu=sharding == "none", **CASES[name])
        except ValueError as error:
            if not sharding.startswith("zero"):
                raise
            (folder / f"{name}.txt").write_text(str(error))
        if sharding.startswith("zero"):
            AcceleratorState._reset_state()  # DeepSpeed's settings are filled in once for a process
    if sharding != "none":
        kill_and_resume(folder, {} if sharding == "zero3" else {"weights": "ema", "ema_rate": 0.5})
    processes.leave()
    processes.end(0)
