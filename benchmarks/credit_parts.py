"""Which parts of the teacher's opinion point uphill? The verifier's first-order gain, class of tokens by class.

    python benchmarks/credit_parts.py STUDY.yaml --task TASK --output FOLDER [--context solution] [--batches 24] [--seed 0]

The teacher's normalised gap (median scale, no gate, no router) is split by entropy (four classes of the rollout's tokens:
below its 0.7, 0.8 and 0.9 quantile, above), by the verifier (right, wrong, or a group that is all the same) and by sign (the
teacher likes the token more, or less). Each part is taken for the credit of its tokens, and its update's slope

    slope = mean(v) / rms(v) x mean(part's update),  in units of the reference's own mean(v) / rms(v) x mean(v)

says what adding a little of the part to GRPO's credit does to the verifier's objective of other problems, at Adam's scale; > 0
attract there, < 0 repel. Beside it the part's size: rms of the part's update in the same units, which is noise that it adds.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from first_order_gain import parser_of
from torch import Tensor

from dasd.analysis.first_order import DRAWS, WEIGHTS_AT_A_TIME, draws_of_halves
from dasd.credit import TokenSignals
from dasd.credit.direction import DirectionAdaptive
from dasd.credit.signals import masked_quantile
from dasd.recipe_files import recipes
from dasd.study.cells import Cell
from dasd.study.config import load_study
from dasd.training.gain import standing_still
from dasd.training.run import build_trainer, prepare

EDGES = (0.7, 0.8, 0.9)
VERDICTS = {"right": lambda a: a > 0, "wrong": lambda a: a < 0, "same": lambda a: a == 0}


def parts_of(signals: TokenSignals) -> dict[str, Tensor]:
    """(B, T) credits that add up to the whole teacher's gap_bar; and the verifier's own, by entropy."""
    _, gap = DirectionAdaptive(map="attract", gate="none").direction(signals)
    taus = [masked_quantile(signals.entropy, signals.valid, edge)[:, None] for edge in EDGES]
    bands = torch.stack([signals.entropy > tau for tau in taus]).sum(0)
    found = {}
    for band in range(len(taus) + 1):
        here = signals.valid & (bands == band)
        found[f"verifier/{band}"] = signals.rollout_advantages * here
        for verdict, of in VERDICTS.items():
            chosen = here & of(signals.advantages)[:, None]
            found[f"teacher/{band}/{verdict}/more"] = gap.clamp(min=0.0) * chosen
            found[f"teacher/{band}/{verdict}/less"] = gap.clamp(max=0.0) * chosen
    return found


def main() -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--context", default="solution")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    study = load_study(args.study, recipes())
    folder = args.output / f"seed-{args.seed}-{args.context}"
    if not (folder / "names.json").exists():
        measure(Cell(study, args.task, "conformity", args.seed), folder, args)
    names, whole = json.loads((folder / "names.json").read_text()), np.load(folder / "updates.npy", mmap_mode="r")
    facts = {"study": args.study.name, "task": args.task, "seed": args.seed, "context": args.context, "batches": args.batches}
    found = slopes({name: whole[:, place] for place, name in enumerate(names)})
    (folder / "parts.json").write_text(json.dumps(facts | {"parts": found}, indent=1) + "\n")
    for name, part in found.items():
        print(f"{name:28} {part['mean']:+.4f} [{part['low']:+.4f}, {part['high']:+.4f}]  size {part['size']:.3f}")


def measure(cell: Cell, folder: Path, args: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = standing_still(cell.run_config({}), args.batches)
    teacher = config.teacher.model_copy(update={"context": args.context})
    config = config.model_copy(update={"teacher": teacher, "output": str(folder / "work")})
    shutil.rmtree(folder / "work", ignore_errors=True)
    trainer = build_trainer(config, *prepare(config))
    kept: dict[str, Any] = {}
    rows: list[np.ndarray] = []
    names: list[str] = []
    scored, credit = trainer._get_per_token_logps_and_entropies, trainer.credit

    def keeping(*given: Any, **more: Any) -> Any:
        scores = scored(*given, **more)
        kept["logps"] = scores[0]
        return scores

    def crediting(batch: Any, logps: Tensor, entropies: Tensor) -> Any:
        kept["signals"] = trainer._signals(batch, logps.float(), entropies)
        return credit(batch, logps, entropies)

    trainer.credit = crediting
    trainer._get_per_token_logps_and_entropies = keeping
    computing = trainer._compute_loss

    def computed(model: Any, inputs: Any) -> Tensor:
        loss = computing(model, inputs)
        signals = kept["signals"]
        parts = {"reference": signals.rollout_advantages, **parts_of(signals)}
        names[:] = list(parts)
        weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        row = []
        for part in parts.values():
            objective = (part * kept["logps"]).sum() / signals.valid.sum()
            slopes = torch.autograd.grad(objective, weights, retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(w).flatten() if s is None else s.flatten() for w, s in zip(weights, slopes, strict=True)]
            row.append(torch.cat(flat).numpy())
        rows.append(np.stack(row))
        return loss

    trainer._compute_loss = computed
    trainer.train()
    np.save(folder / "updates.npy", np.stack(rows))  # (batches, parts, weights)
    (folder / "names.json").write_text(json.dumps(names))
    shutil.rmtree(folder / "work", ignore_errors=True)


def slopes(found: dict[str, np.ndarray], seed: int = 0) -> dict[str, dict[str, float]]:
    ours = found["reference"]
    draws = draws_of_halves(len(ours), seed)
    sums = {name: np.zeros(DRAWS + 1) for name in found}
    sizes = dict.fromkeys(found, 0.0)
    for start in range(0, ours.shape[1], WEIGHTS_AT_A_TIME):
        v = ours[:, start : start + WEIGHTS_AT_A_TIME].astype(np.float64)
        rms = np.sqrt(np.square(v).mean(0))
        scale = np.divide(1.0, rms, out=np.zeros_like(rms), where=rms > 0)
        aims = [draw @ v * scale for draw in draws]
        for name, updates in found.items():
            u = updates[:, start : start + WEIGHTS_AT_A_TIME].astype(np.float64)
            sizes[name] += float((np.square(u).mean(0) * scale).sum())
            for aim, there in zip(aims, draws[::-1], strict=True):
                sums[name] += (aim * (there @ u)).sum(1) / 2
    base = sums["reference"]
    result = {}
    for name in found:
        relative = sums[name] / base
        low, high = np.quantile(relative[1:], [0.025, 0.975])
        size = (sizes[name] / sizes["reference"]) ** 0.5
        result[name] = {"mean": float(relative[0]), "low": float(low), "high": float(high), "size": size}
    return result


if __name__ == "__main__":
    main()
