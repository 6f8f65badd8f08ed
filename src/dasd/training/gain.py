"""What updates would these configs make, each on the same rollouts, if the weights stood still?

The trainer itself makes the steps, at learning rate 0, so an update is whatever its method, teacher, loss and adapter make of
it. The first config samples the rollouts; all others are given those.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from dasd.analysis.first_order import Updates, relative_gains
from dasd.config import BadInput, RunConfig, RunFailed
from dasd.credit import make_method
from dasd.files import write_json, write_text
from dasd.folders import claim, sole_writer
from dasd.progress import track
from dasd.training.run import build_trainer, prepare

SAMPLED = 2**20  # weights that are looked at, drawn at random where more are trained
# What decides which rollouts there are and which weights are trained; all configs must agree in it.
SHARED = (
    "model", "data", "training.steps", "training.seed", "training.rollouts_per_step", "training.group_size",
    "training.temperature", "training.max_completion_length", "training.sampler", "training.dynamic_sampling",
    "training.lora_rank", "training.lora_alpha", "training.lora_targets", "training.lora_embeddings",
)  # fmt: skip
SUMMARY, ROLLOUTS, UPDATES = "gain.json", "rollouts.json", "updates.npy"


def gains(configs: Mapping[str, RunConfig], reference: str, folder: Path, batches: int) -> dict[str, Any]:
    """Relative gains of the named configs over `batches` batches of rollouts, which `folder/gain.json` keeps.

    A config's updates stay in `folder/NAME`, so a killed command goes on and a config can be added. Raises BadInput for configs
    whose updates cannot be compared, and for a folder of other settings.
    """
    still = {name: _standing_still(config, batches) for name, config in configs.items()}
    first = still[reference]
    for name, config in configs.items():
        if "evidence" in make_method(config.method.name, config.method.settings).needs:
            raise BadInput(f"{name}: method {config.method.name} finds its direction while it trains, and here nothing moves")
    for name, config in still.items():
        if differs := [key for key in SHARED if _value(config, key) != _value(first, key)]:
            raise BadInput(f"{name} and {reference} have different {differs[0]}: their updates cannot be compared")
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder / SUMMARY, "wait for it, or give another --output"):
        found = {name: _updates(name, still[name], folder) for name in dict.fromkeys([reference, *still])}
        try:
            of = relative_gains(found, reference)
        except ValueError as error:
            raise BadInput(str(error)) from None
        weights, batch = int(found[reference].shape[1]), first.training.rollouts_per_step
        facts = {"reference": reference, "batches": batches, "rollouts": batch * batches, "weights": weights}
        summary = {**facts, "seed": first.training.seed, "gains": of}
        write_json(folder / SUMMARY, summary)
    return summary


def _standing_still(config: RunConfig, batches: int) -> RunConfig:
    training = config.training
    steps = {"steps": batches, "save_steps": 10**9, "eval_steps": 0, "report_steps": 0, "warmup_steps": 0}
    still = {"learning_rate": 0.0, "trl": {**training.trl, "max_grad_norm": 0.0, "weight_decay": 0.0}}
    return config.model_copy(update={"training": training.model_copy(update={**steps, **still})})


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def _updates(name: str, config: RunConfig, folder: Path) -> Updates:
    """(batches, weights) of one config, from its file where that is there."""
    kept = folder / name / UPDATES
    claim(folder / name, config)
    if not kept.exists():
        rollouts = folder / ROLLOUTS
        with _quiet(), TemporaryDirectory(dir=folder / name) as work:
            at_work = config.model_copy(update={"output": work})
            trainer = build_trainer(at_work, *prepare(at_work))
            known = json.loads(rollouts.read_text(encoding="utf-8")) if rollouts.exists() else None
            written = _share_rollouts(trainer, known)
            with track(f"Updates of {name}", config.training.steps) as advance:
                keeper = _Keeper(config.training.seed, advance)
                trainer.add_callback(keeper)
                trainer.train()
            if known is None:
                write_text(rollouts, json.dumps(written))
            np.save(Path(work) / UPDATES, np.stack(keeper.updates))
            (Path(work) / UPDATES).replace(kept)
    return np.load(kept, mmap_mode="r")


def _share_rollouts(trainer: Any, known: list[Any] | None) -> list[Any]:
    """From now on the trainer takes the known rollouts, or keeps those that it samples in the list that is returned."""
    sample = trainer._generate_single_turn
    written: list[Any] = []

    def generate(prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if known is None:
            completions, logps = sample(prompt_ids, *args, **kwargs)
            written.append([prompt_ids, completions])
            return completions, logps
        prompts, completions = known[len(written)]
        if prompts != [list(ids) for ids in prompt_ids]:
            raise RunFailed("other prompts than those of the rollouts on file: delete the folder, and begin again")
        written.append(None)
        return completions, None

    trainer._generate_single_turn = generate
    return written


class _Keeper(TrainerCallback):
    """Keeps each optimisation step's update, minus the gradient: of all trained weights, or of SAMPLED ones."""

    def __init__(self, seed: int, advance: Callable[..., None]) -> None:
        self.updates: list[np.ndarray] = []
        self._seed, self._advance = seed, advance
        self._chosen: Tensor | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        update = torch.cat([_update(weight) for weight in model.parameters() if weight.requires_grad])
        if self._chosen is None and len(update) > SAMPLED:
            rng = np.random.default_rng(self._seed)
            self._chosen = torch.from_numpy(np.sort(rng.choice(len(update), SAMPLED, replace=False))).to(update.device)
        self.updates.append((update if self._chosen is None else update[self._chosen]).float().cpu().numpy())
        self._advance()


def _update(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight).flatten() if weight.grad is None else -weight.grad.detach().flatten()


@contextmanager
def _quiet() -> Iterator[None]:
    """Weights that do not move are what is wanted: no word of a run that learnt nothing."""
    logger = logging.getLogger("dasd")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
