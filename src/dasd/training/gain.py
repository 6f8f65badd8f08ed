"""What updates would these configs make, each on the same rollouts, if the weights stood still?

The trainer itself makes the steps, at learning rate 0, so an update is whatever its method, teacher, loss and adapter make of
it. The first config samples the rollouts; all others are given those.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from dasd.analysis.first_order import ROLLOUTS_IN_TRL, relative_gains, told_apart_by
from dasd.config import BadInput, RunConfig, RunFailed, filled
from dasd.files import read_json, write_json
from dasd.folders import claim, sole_writer
from dasd.models import weights_digest
from dasd.progress import track
from dasd.training.arguments import trainer_arguments
from dasd.training.batches import policy_moves, whole_batches
from dasd.training.run import build_trainer, method_and_contexts, prepare
from dasd.training.trl_adapter import sample_by

SAMPLED = 2**20  # weights that are looked at, drawn at random where more are trained
# What decides which rollouts there are and which weights are trained; all configs must agree in it.
SHARED = (
    "model", "data", "training.steps", "training.seed", "training.rollouts_per_step", "training.group_size",
    "training.temperature", "training.max_completion_length", "training.sampler", "training.dynamic_sampling",
    "training.lora_rank", "training.lora_alpha", "training.lora_targets", "training.lora_embeddings", "training.num_iterations",
)  # fmt: skip
SUMMARY, ROLLOUTS, UPDATES = "gain.json", "rollouts.json", "updates.npy"


def gains(configs: Mapping[str, RunConfig], reference: str, folder: Path, batches: int) -> dict[str, Any]:
    """Relative gains of the named configs over `batches` batches of rollouts, which `folder/gain.json` keeps.

    A config's updates stay in `folder/NAME`, so a killed command goes on and a config can be added; those of before are given,
    too. Raises BadInput for configs whose updates cannot be compared, and for a folder of other settings or of other weights.
    """
    still = {name: standing_still(configs[name], batches) for name in dict.fromkeys([reference, *configs])}
    first = still[reference]
    for name, config in still.items():
        method, _ = method_and_contexts(config)
        if "evidence" in method.needs:
            raise BadInput(f"{name}: method {config.method.name} finds its direction while it trains, and here nothing moves")
        _refuse_shared_batches(name, config)
        theirs, ours = _shared(config), _shared(first)
        if differs := [key for key, value in theirs.items() if value != ours[key]]:
            key = differs[0]
            raise BadInput(
                f"{name} and {reference} have different {key} ({theirs[key]} and {ours[key]}), and updates are compared on the "
                "same rollouts: give both the same"
            )
        claim(folder / name, config, write=False)
    missing = [name for name in still if not (folder / name / UPDATES).exists()]
    weights_now = weights_digest(first.model)
    _known_rollouts(folder, first, weights_now)
    # Whatever is wrong with model or data is said before a folder is made.
    ready = {name: prepare(still[name]) for name in missing[:1]}
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder / SUMMARY, "wait for it, or give another --output"):
        before = _of_before(folder, still)
        for name in missing:
            _make_updates(folder / name, still[name], ready.pop(name) if name in ready else prepare(still[name]), weights_now)
        # A config's gain depends on its own updates and the reference's alone, so those of before come out as they were.
        found = {name: np.load(folder / name / UPDATES, mmap_mode="r") for name in (*still, *before)}
        try:
            of = relative_gains(found, reference)
        except ValueError as error:
            raise BadInput(str(error)) from None
        weights, rollouts = int(found[reference].shape[1]), batches * first.training.rollouts_per_step
        rollouts //= first.training.num_iterations
        facts = {"reference": reference, "batches": batches, "rollouts": rollouts, "weights": weights}
        settings = {name: said for name, said in before.items() if said is not None}
        settings = {name: told_apart_by(config) for name, config in configs.items()} | settings
        summary = {**facts, "seed": first.training.seed, "gains": of, "settings": settings}
        write_json(folder / SUMMARY, summary)
    return summary


def _of_before(folder: Path, still: Mapping[str, RunConfig]) -> dict[str, Any]:
    """The settings of the configs that `gain.json` has and this call does not ask, None where an older file does not say.

    Raises BadInput where updates of one are gone: its gain would be lost.
    """
    known = read_json(folder / SUMMARY) or {}
    names = [name for name in known.get("gains", {}) if name not in still]
    if gone := [name for name in names if not (folder / name / UPDATES).exists()]:
        raise BadInput(
            f"{folder / SUMMARY} holds a gain of {gone[0]}, whose updates are gone: give {gone[0]}.yaml too, which makes them "
            "anew, or delete that file"
        )
    return {name: known.get("settings", {}).get(name) for name in names}


def standing_still(config: RunConfig, batches: int) -> RunConfig:
    """The config of as many steps that change nothing, write nothing and clip no gradient."""
    training = config.training
    steps = {"steps": batches, "save_steps": 10**9, "eval_steps": 0, "report_steps": 0, "warmup_steps": 0}
    still = {"learning_rate": 0.0, "trl": {**training.trl, "max_grad_norm": 0.0, "weight_decay": 0.0}}
    return config.model_copy(update={"training": training.model_copy(update={**steps, **still})})


def _make_updates(place: Path, config: RunConfig, prepared: tuple[Any, ...], weights: str | None) -> None:
    """Writes (batches, weights) of one config, and samples the rollouts if it is the first."""
    known = _known_rollouts(place.parent, config, weights)
    place.mkdir(exist_ok=True)
    with _quiet(), TemporaryDirectory(dir=place) as work:
        trainer = build_trainer(config.model_copy(update={"output": work}), *prepared)
        written = _share_rollouts(trainer, known, place)
        with track(f"Updates of {place.name}", config.training.steps) as advance:
            keeper = _Keeper(config.training.seed, advance)
            trainer.add_callback(keeper)
            trainer.train()
        if known is None:
            write_json(place.parent / ROLLOUTS, {"settings": _shared(config), "weights": weights, "batches": written})
        np.save(Path(work) / UPDATES, np.stack(keeper.updates))
        claim(place, config)
        (Path(work) / UPDATES).replace(place / UPDATES)


def _refuse_shared_batches(name: str, config: RunConfig) -> None:
    """Raises BadInput where several steps learn from one batch of rollouts: their updates are not independent."""
    arguments, training = trainer_arguments(config), config.training
    if not policy_moves(arguments):
        return
    chosen = [f"training.trl.{key}" for key in ("steps_per_generation", "generation_batch_size") if key in training.trl]
    remedies = ["set training.num_iterations: 1"] if training.num_iterations > 1 else []
    remedies += [f"leave out {key}" for key in chosen]
    raise BadInput(
        f"{name}: a batch of rollouts serves {whole_batches(arguments)} steps, and here each update is of its own rollouts: "
        f"{' and '.join(remedies)}"
    )


def _shared(config: RunConfig) -> dict[str, Any]:
    settings, arguments = config.model_dump(mode="json"), trainer_arguments(config)
    found = {key: reduce(lambda section, name: section[name], key.split("."), settings) for key in SHARED}
    return found | {f"training.trl.{name}": getattr(arguments, name) for name in ROLLOUTS_IN_TRL}


def _known_rollouts(folder: Path, config: RunConfig, weights: str | None) -> list[Any] | None:
    """Those on file, None where there are none. Raises BadInput where they are of other settings or weights of the model."""
    known = read_json(folder / ROLLOUTS)
    if known is None:
        return None
    settings = filled(RunConfig, known["settings"])
    if differs := [key for key, value in _shared(config).items() if settings.get(key) != value]:
        raise BadInput(f"{folder} holds rollouts of another {differs[0]}: give another --output, or delete it")
    if (theirs := known.get("weights")) is not None and theirs != weights:  # an earlier version did not say
        raise BadInput(
            f"{folder} holds updates of other weights than {config.model.path} has now: give another --output, or delete it"
        )
    batches: list[Any] = known["batches"]
    return batches


def _share_rollouts(trainer: Any, known: list[Any] | None, place: Path) -> list[Any]:
    """From now on the trainer takes the known rollouts, or keeps those that it samples in the list that is returned."""
    file = place.parent / ROLLOUTS
    written: list[Any] = []
    left = iter(known or ())

    def write(
        sample: Callable[..., tuple[Any, Any]], prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        if known is None:
            completions, logps = sample(prompt_ids, *args, **kwargs)
            written.append([prompt_ids, completions])
            return completions, logps
        prompts, completions = next(left, (None, None))
        if prompts != [list(ids) for ids in prompt_ids]:
            raise RunFailed(
                f"{place.name} asks other problems than {file} holds, though all settings that choose them agree: its data are "
                "no longer the same; give another --output",
                goes_on=False,
            )
        return completions, None

    sample_by(trainer, write)
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
