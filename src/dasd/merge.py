"""How does a trained LoRA adapter become a plain model? W + (alpha / rank) * B A, in the base's dtype, as a folder of its own.

The folder is there complete or not at all. It is what vLLM, other trainers and the hub take: weights, tokenizer, chat
template and generation config.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from dasd.adapters import base_of, is_adapter
from dasd.config import BadInput, ModelConfig
from dasd.models import load_tokenizer, load_weights, refuse_changed_head
from dasd.report import write_card
from dasd.report.data.inputs import RunFiles, read_run
from dasd.trained import Trained, is_run
from dasd.training.cards import license_of
from dasd.training.checkpoints import last_checkpoint, saving

logger = logging.getLogger("dasd")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ENOUGH = 0.9  # of what was trained: below, a merge says how much the rounding of its type has cost


def merge(source: Path, output: Path, dtype: Dtype = "auto") -> Path:
    """Writes the model that `source` (a run folder, or a folder with an adapter) is an adapter of, merged, to `output`.

    dtype  of the merged weights; auto: the base's. What the adapter added is rounded to it, and where less than `ENOUGH` of
           it is left, that is said: a few small steps may vanish in bfloat16

    Raises BadInput where there is no adapter, no base, or something in `output` already; RunFailed where the disk is full.
    """
    folder = find_adapter(source)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise BadInput(f"{output} is there already and not an empty folder: give another --output, or delete it")
    tokenizer, model = load_tokenizer(ModelConfig(path=str(folder))), merged_model(folder, dtype)
    unfinished = output.with_name(output.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a merge that was killed
    with saving(unfinished):
        unfinished.mkdir(parents=True)
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        _write_card(folder, unfinished)
        if (facts := Trained.of(str(folder))) is not None:
            facts.write(unfinished)
        os.replace(unfinished, output)
    return output


def _write_card(adapter: Path, merged: Path) -> None:
    """The merged model's card: from the run that the adapter is of, else one that names adapter and base."""
    base, _ = base_of(adapter)
    run = next((folder for folder in adapter.absolute().parents[:2] if is_run(folder)), None)
    files = read_run(run) if run is not None else RunFiles(run={"model": base})
    write_card(merged, files, base=base, license=license_of(base), merged=True)


def share_kept(adapted: Any) -> float:
    """How much of what the adapter adds is left when the sum is rounded to the weights' type: 1 all of it, 0 nothing.

    The rounded change projected on the change, <round(W + D) - W, D> / <D, D>, over all adapted weights.
    """
    kept = total = 0.0
    for module in adapted.modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "get_delta_weight"):
            weight = module.get_base_layer().weight.detach()
            for name in module.active_adapters:
                change = module.get_delta_weight(name).detach().float()
                rounded = (weight.float() + change).to(weight.dtype).float() - weight.float()
                kept += float((rounded * change).sum(dtype=torch.float64))
                total += float(change.square().sum(dtype=torch.float64))
    return kept / total if total > 0 else 1.0


def find_adapter(source: Path) -> Path:
    """The folder of the adapter: `source`, or the final one of a run. Raises BadInput that says what `source` is instead."""
    if is_adapter(source):
        return source
    final = source / "checkpoints" / "final"
    if is_adapter(final):
        return final
    if not source.exists():
        raise BadInput(f"{source} does not exist: give a run folder, or a folder with adapter_config.json")
    for folder in (source, final):
        if (folder / "config.json").exists():
            raise BadInput(f"{folder} is a plain model, all its weights were trained: it needs no merging")
    last = last_checkpoint(source / "checkpoints") or last_checkpoint(source)
    if last is not None and is_adapter(last):
        raise BadInput(f"{source} is a run that has not ended: end it first, or give its last checkpoint, {last}")
    raise BadInput(f"{source} is neither a run folder nor an adapter: it has no adapter_config.json")


def merged_model(folder: Path, dtype: Dtype = "auto") -> Any:
    """The base with the adapter's matrices added to its weights."""
    base, revision = base_of(folder)
    model = load_weights(ModelConfig(path=base, revision=revision, dtype=dtype))
    if getattr(model, "is_quantized", False):
        raise BadInput(
            f"{base}, the base of {folder}, is stored in few bits, which would round the adapter away: write the folder or "
            "hub id of the same model in full as base_model_name_or_path into adapter_config.json"
        )
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(folder))
    except Exception as error:  # a torn file, a missing one, another model's shapes: each library raises its own kind
        raise BadInput(f"{folder} does not fit its base {base}: {' '.join(str(error).split())[:400]}") from None
    refuse_changed_head(model)
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise BadInput(f"{folder} is an adapter of type {adapted.active_peft_config.peft_type.value}, which cannot be merged")
    kept = share_kept(adapted)
    if kept < ENOUGH:
        logger.warning(
            "Rounding to %s keeps %.0f %% of what the adapter adds to the weights: merge with --dtype float32 to keep it all.",
            str(model.dtype).removeprefix("torch."), 100 * max(kept, 0.0),
        )  # fmt: skip
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # NaN in the adapter
        raise BadInput(f"{folder} cannot be merged: {error}") from None
