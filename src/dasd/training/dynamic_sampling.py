"""Which groups teach nothing, and how do fresh ones take their place? DAPO's dynamic sampling (2503.14476), by tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def idle_groups(rewards: Tensor, size: int) -> list[int]:
    """Groups in which no two known rewards differ."""
    groups = rewards.view(-1, size)
    lowest, highest = groups.nan_to_num(nan=torch.inf).amin(1), groups.nan_to_num(nan=-torch.inf).amax(1)
    return (highest <= lowest).nonzero()[:, 0].tolist()


def merge_rows(batch: dict[str, Any], fresh: dict[str, Any], source: Sequence[int], pad_token_id: int) -> dict[str, Any]:
    """The rows `source` of `batch` followed by `fresh`; columns are padded alike, prompts on the left."""
    merged = dict(batch)
    index = torch.tensor(source, device=batch["rewards"].device)
    for name, old in batch.items():
        new = fresh[name]
        if not isinstance(old, Tensor) or old.dim() == 0:
            continue
        if old.dim() == 2 and old.size(1) != new.size(1):
            width, value = max(old.size(1), new.size(1)), pad_token_id if name.endswith("_ids") else 0
            left = name.startswith("prompt_")
            old, new = (
                nn.functional.pad(x, (width - x.size(1), 0) if left else (0, width - x.size(1)), value=value)
                for x in (old, new)
            )
        merged[name] = torch.cat([old, new])[index]
    return merged


def other_rows(dataset: Any, count: int, place: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of the dataset, with replacement: others at each `place` (seed, step, draw, process), the same in a resumed run."""
    seed = sum(value * factor for value, factor in zip(place, (1, 1_000_003, 7_919, 104_729), strict=True))
    chosen = torch.randint(len(dataset), (count,), generator=torch.Generator().manual_seed(seed))
    return [dataset[int(index)] for index in chosen]
