"""Which groups teach nothing, and how do fresh ones take their place? DAPO's dynamic sampling (2503.14476)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Any]
Rows = list[dict[str, Any]]


@dataclass
class DynamicSampling:
    """A trainer's groups whose rewards are all alike give way to groups of fresh problems. `generate` makes a batch of rows.

    draws  how often fresh problems were drawn at a step, by all its generations
    """

    trainer: Any
    generate: Callable[[Rows], Batch]
    pad_token_id: int
    draws: Counter[int] = field(default_factory=Counter)

    def replaced(self, rows: Rows, batch: Batch) -> tuple[Rows, Batch]:
        """The rows and their batch, after at most `max_resamples` rounds."""
        trainer, gather = self.trainer, self.trainer.accelerator.gather
        size, first = trainer.group_size, idle_groups(batch["rewards"], trainer.group_size)
        sampled = 0
        for _ in range(trainer.max_resamples):
            idle = idle_groups(batch["rewards"], size)
            wanted = int(gather(torch.tensor([len(idle)], device=trainer.accelerator.device)).max())
            if wanted == 0:
                break
            sampled += wanted
            fresh_rows = self._fresh(wanted)
            fresh = self.generate(fresh_rows)
            useless = set(idle_groups(fresh["rewards"], size))
            good = [group for group in range(wanted) if group not in useless]
            source = list(range(len(rows)))
            for old, new in zip(idle, good, strict=False):
                for member in range(size):
                    rows[old * size + member] = fresh_rows[new * size + member]
                    source[old * size + member] = len(source) + new * size + member
            batch = merge_rows(batch, fresh, source, self.pad_token_id)
        tokens = gather(trainer.loss_mask(batch).sum()).sum()
        batch["num_items_in_batch"] = tokens.to(batch["num_items_in_batch"].dtype)
        counts = {"groups": len(rows) // size, "idle_first": len(first), "resampled": sampled}
        counts["idle_left"] = len(idle_groups(batch["rewards"], size))
        trainer.add_totals({name: torch.tensor(float(count)) for name, count in counts.items()})
        return rows, batch

    def _fresh(self, count: int) -> Rows:
        """So many problems, each with a row for every member of its group."""
        trainer, step = self.trainer, self.trainer.state.global_step
        place = (trainer.args.seed, step, self.draws[step], trainer.accelerator.process_index)
        self.draws[step] += 1
        return [row for row in other_rows(trainer.train_dataset, count, place) for _ in range(trainer.group_size)]


def idle_groups(rewards: Tensor, size: int) -> list[int]:
    """Groups in which no two known rewards differ."""
    groups = rewards.view(-1, size)
    lowest, highest = groups.nan_to_num(nan=torch.inf).amin(1), groups.nan_to_num(nan=-torch.inf).amax(1)
    return (highest <= lowest).nonzero()[:, 0].tolist()


def merge_rows(batch: Batch, fresh: Batch, source: Sequence[int], pad_token_id: int) -> Batch:
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


def other_rows(dataset: Any, count: int, place: Sequence[int]) -> Rows:
    """Rows of the dataset, with replacement: others at each `place` (seed, step, draw, process), the same in a resumed run."""
    seed = sum(value * factor for value, factor in zip(place, (1, 1_000_003, 7_919, 104_729), strict=True))
    chosen = torch.randint(len(dataset), (count,), generator=torch.Generator().manual_seed(seed))
    return [dataset[int(index)] for index in chosen]
