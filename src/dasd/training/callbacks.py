"""What happens beside the optimisation: metrics to their file, and no step too many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dasd.files import append_lines
from dasd.progress import Advance


class MetricsWriter(TrainerCallback):
    """One line a step, and the progress bar moved."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self.path, self.advance = path, advance

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        metrics = {"step": state.global_step, **{key: value for key, value in logs.items() if key != "epoch"}}
        append_lines(self.path, [metrics])
        self.advance(1, f"reward {metrics.get('reward') or 0:.2f}")


class Done(Exception):
    """Nothing is left to train: the run was killed between its last checkpoint and its final model."""


class StopWhenDone(TrainerCallback):
    """transformers looks at the number of steps after a step only, and would make one too many. Weights are loaded by now."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise Done
