"""How much of the verifier's gain does an update under each arm of a study bring, before anything is trained?

    python benchmarks/first_order_gain.py STUDY.yaml --task TASK --output FOLDER [--arms grpo,dasd] [--batches 24] [--seed 0]

The trainer makes `--batches` steps of each arm at learning rate 0 on the same rollouts, which are sampled once, and its
gradients are kept. Of an arm with the update u_b of batch b (minus the gradient) and the reference's updates v_b:

    gain = sum over weights of  mean(v_b)  x  mean(u_b) / rms(u_b)

is the first-order change of the verifier's objective by one step of Adam at learning rate 1: mean(v_b) over one half of the
batches, mean and rms of u_b over the other half, whose problems are different ones, and the mean of both ways. Reported is
gain / gain of the reference - 1: +0.1 is a step that brings a tenth more of the verifier's objective than the reference's, -1
one that brings nothing. Intervals: 95 %, 1,000 bootstrap draws of the batches, the same for all arms.

An arm's gradients stay in FOLDER, so a killed command goes on, and an arm can be added.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from dasd.recipe_files import recipes
from dasd.study.cells import Cell
from dasd.study.config import load_study
from dasd.training.run import build_trainer, prepare

DRAWS = 1_000
WEIGHTS_AT_A_TIME = 4_096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--arms", default="")
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # that nothing was learnt is what is wanted here
    study = load_study(args.study, recipes())
    reference = study.config.reference
    arms = args.arms.split(",") if args.arms else list(study.config.arms)
    folder = args.output / f"seed-{args.seed}"
    for arm in dict.fromkeys([reference, *arms]):
        updates(Cell(study, args.task, arm, args.seed), folder, args.batches)
    found = {arm: np.load(folder / f"{arm}.npy") for arm in dict.fromkeys([reference, *arms])}
    gains = relative_gains(found, reference)
    facts = {"study": args.study.name, "task": args.task, "seed": args.seed, "batches": args.batches, "reference": reference}
    (folder / "gains.json").write_text(json.dumps(facts | {"arms": gains}, indent=1) + "\n")
    for arm, gain in sorted(gains.items(), key=lambda item: -item[1]["mean"]):
        print(f"{arm:28} {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]  cosine {gain['cosine']:+.4f}")


def updates(cell: Cell, folder: Path, batches: int) -> None:
    """Writes (batches, weights) float32 updates of an arm, what Adam would be given with the sign turned, unless they are there."""
    kept = folder / f"{cell.arm}.npy"
    if kept.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    config = cell.run_config({})
    training = config.training.model_copy(
        update={
            "steps": batches, "learning_rate": 0.0, "save_steps": 10 * batches, "eval_steps": 0, "report_steps": 0,
            "trl": {**config.training.trl, "max_grad_norm": 1e9, "weight_decay": 0.0},
        }
    )  # fmt: skip
    config = config.model_copy(update={"training": training, "output": str(work)})
    torch.manual_seed(cell.seed)
    model, tokenizer, problems, task = prepare(config)
    trainer = build_trainer(config, model, tokenizer, problems, task)
    rollouts, known = folder / "rollouts.json", []
    if rollouts.exists():
        known = json.loads(rollouts.read_text())
    sample, written = trainer._generate_single_turn, []

    def replay(prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if known:
            prompts, completions = known[len(written)]
            assert prompts == prompt_ids, "another order of problems"
        else:
            completions = sample(prompt_ids, *args, **kwargs)[0]
        written.append([prompt_ids, completions])
        return completions, None

    trainer._generate_single_turn = replay
    keeper = Keeper()
    trainer.add_callback(keeper)
    trainer.train()
    if not known:
        rollouts.write_text(json.dumps(written))
    np.save(folder / f".{cell.arm}.npy", np.stack(keeper.updates))
    (folder / f".{cell.arm}.npy").rename(kept)
    shutil.rmtree(work, ignore_errors=True)


class Keeper(TrainerCallback):
    """Minus the gradient of every trained weight before each optimisation step."""

    def __init__(self) -> None:
        self.updates: list[np.ndarray] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        parts = [
            torch.zeros_like(weight).flatten() if weight.grad is None else -weight.grad.flatten()
            for weight in model.parameters() if weight.requires_grad
        ]  # fmt: skip
        self.updates.append(torch.cat(parts).float().numpy())


def relative_gains(found: dict[str, np.ndarray], reference: str, seed: int = 0) -> dict[str, dict[str, float]]:
    """`mean`, `low`, `high` of each arm's gain over the reference's, less 1; `cosine` of single updates with the other half's
    mean of the reference's."""
    ours = found[reference]
    halves = np.arange(len(ours)) % 2 == 0, np.arange(len(ours)) % 2 == 1
    chosen = np.random.default_rng(seed)
    draws = [np.stack([half / half.sum(), *chosen.multinomial(half.sum(), half / half.sum(), DRAWS) / half.sum()]) for half in halves]
    base = gains(ours, ours, draws)
    result = {}
    for arm, theirs in found.items():
        relative = gains(theirs, ours, draws) / base - 1
        low, high = np.quantile(relative[1:], [0.025, 0.975])
        result[arm] = {"mean": float(relative[0]), "low": float(low), "high": float(high), "cosine": cosine(theirs, ours, halves)}
    return result


def gains(theirs: np.ndarray, ours: np.ndarray, draws: Sequence[np.ndarray]) -> np.ndarray:
    """(D,) mean over both ways of sum(mean of `ours` in one half x mean of `theirs` over its rms in the other), for each row of
    the (D, batches) weights of the halves' batches in `draws`."""
    total = np.zeros(len(draws[0]))
    for start in range(0, ours.shape[1], WEIGHTS_AT_A_TIME):
        one, two = (updates[:, start : start + WEIGHTS_AT_A_TIME].astype(np.float64) for updates in (theirs, ours))
        for here, there in (draws, draws[::-1]):
            mean, square = here @ one, here @ np.square(one)
            step = np.divide(mean, np.sqrt(square), out=np.zeros_like(mean), where=square > 0)
            total += ((there @ two) * step).sum(1) / 2
    return total


def cosine(theirs: np.ndarray, ours: np.ndarray, halves: Sequence[np.ndarray]) -> float:
    found = []
    for one, other in (halves, halves[::-1]):
        aim = ours[one].mean(0)
        found += [float(u @ aim / (np.linalg.norm(u) * np.linalg.norm(aim))) for u in theirs[other]]
    return float(np.mean(found))


if __name__ == "__main__":
    main()
