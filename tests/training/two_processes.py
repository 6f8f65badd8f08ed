"""Trains on two processes and writes what each of them saw. Run by `test_distributed.py` under torchrun."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model

from conftest import make_arguments, tiny  # the folder of this file is on the path
from dasd import processes
from dasd.assets.build import build_tokenizer
from dasd.tasks.countdown import make_problems
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer

folder = Path(sys.argv[1])
tokenizer = build_tokenizer()
dataset = as_dataset(make_problems(16, 0, "train"))


class Spy(SelfDistillationTrainer):
    def _prompts(self, context, rows, batch, fitting, choice=0):
        prompts = super()._prompts(context, rows, batch, fitting, choice)
        told = [None if prompt is None else prompt[-1]["content"] for prompt in prompts]
        ids = [row[mask.bool()] for row, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)]
        seen["peers"].append({"ids": [row["id"] for row in rows], "told": told, "texts": self.tokenizer.batch_decode(ids)})
        return prompts


def accepts_first_process(completions, **_):
    return [1.0 if dist.get_rank() == 0 else index / 10 for index in range(len(completions))]


def run(name, model, **settings):
    """Two steps of eight rollouts, four on each process."""
    seen["peers"] = []
    settings |= {"output_dir": str(folder / name), "per_device_train_batch_size": 4, "ddp_backend": "gloo"}
    trainer = Spy(
        model, accepts_first_process, make_arguments(**settings), train_dataset=dataset, processing_class=tokenizer,
    )  # fmt: skip
    start = {name: tensor.clone() for name, tensor in trainer.teacher.state_dict().items()}
    trainer.train()
    student = {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    torch.save({"start": start, "teacher": trainer.teacher.state_dict(), "student": student}, f"{folder}/{name}-{rank}.pt")
    metrics = {name: value for name, value in trainer.state.log_history[0].items() if not name.endswith("time")}
    Path(f"{folder}/{name}-{rank}.json").write_text(json.dumps({"peers": seen["peers"], "metrics": metrics}))


seen = {}
dist.init_process_group("gloo")
rank = dist.get_rank()
run("frozen", tiny(tokenizer), context="peer", teacher_weights="frozen", num_generations=8)
model = tiny(tokenizer)
torch.manual_seed(rank)  # each process may draw its own fresh adapter
model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
run("ema", model, teacher_weights="ema", teacher_ema_rate=0.5, method="sdft")
try:
    run("refused", tiny(tokenizer), max_resamples=1, num_generations=8)
except ValueError as error:
    Path(f"{folder}/refused-{rank}.txt").write_text(str(error))
processes.leave()
processes.end(0)
