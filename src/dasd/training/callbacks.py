"""What happens beside the optimisation: metrics to their file, and no step too many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from dasd.files import append_lines
from dasd.models import without_adapter
from dasd.progress import Advance, track
from dasd.report import build_report


class MetricsWriter(TrainerCallback):
    """One line a step (or every `logging_steps`), and the progress bar moved."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self.path, self.advance, self.tokens, self.step = path, advance, 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        metrics = {"step": state.global_step, **{key: value for key, value in logs.items() if key != "epoch"}}
        read, seconds = metrics.get("num_tokens", math.nan), metrics.get("step_time", math.nan)
        if seconds > 0 and self.tokens:  # the first step of a resumed run counts from before
            metrics["tokens_per_second"] = (read - self.tokens) / seconds
        self.tokens = read
        append_lines(self.path, [metrics])
        self.advance(state.global_step - self.step, headline(metrics))
        self.step = state.global_step


class StepLines(TrainerCallback):
    """The progress of a trainer that is used from Python: a bar on a terminal, a line a step elsewhere, as in a notebook."""

    def __init__(self) -> None:
        self.shown = ExitStack()
        self.advance: Advance | None = None
        self.note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.advance = self.shown.enter_context(track(f"Training with {args.method}", state.max_steps, each=True))
            self.advance(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.note = headline(logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.advance is not None:
            self.advance(1, self.note)  # of the last step that was logged

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.shown.close()
        self.advance = None


def headline(metrics: Mapping[str, Any]) -> str:
    """A step in a line: what a person watches while it trains. Leaves out what was not logged."""
    known = {
        "reward {:.2f}": metrics.get("reward"),
        "entropy {:.2f}": metrics.get("entropy"),
        "{:.0f} tokens each": metrics.get("completions/mean_length"),
        "{:,.0f} tokens/s": metrics.get("tokens_per_second"),
        "teacher {:.1%} of credit": metrics.get("credit/teacher"),
    }
    return ", ".join(form.format(value) for form, value in known.items() if value is not None and math.isfinite(value))


class ReportWriter(TrainerCallback):
    """Rewrites the run's page every few steps; an open page reloads itself while the run goes on."""

    def __init__(self, output: Path, every: int) -> None:
        self.output, self.every = output, every

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A step is logged after its end: the page of step n is drawn when the next one ends, and the last by the command.
        if (
            state.is_world_process_zero
            and state.global_step % self.every == 1 % self.every
            and state.global_step < state.max_steps
        ):
            build_report(self.output, live=True)


class SignsOfLife(TrainerCallback):
    """Says what a step is at while it is made: the token that its rollouts are at, that they are scored, then learnt from."""

    def __init__(self, trainer: Any, advance: Advance) -> None:
        self.trainer, self.advance, self.written = trainer, advance, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        model = without_adapter(self.trainer.accelerator.unwrap_model(self.trainer.model))
        model.register_forward_pre_hook(self._forward, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.written = 0
        self._say("begins")

    def _forward(self, model: Any, args: Any, given: Mapping[str, Any]) -> None:
        if given.get("fused_lm_head"):
            self._say("learns" if torch.is_grad_enabled() else "scores rollouts")
        elif (ids := given.get("input_ids")) is not None and ids.shape[1] == 1:
            self.written += 1
            self._say(f"writes {len(ids)} rollouts, token {self.written}")

    def _say(self, what: str) -> None:
        self.advance(0, f"step {self.trainer.state.global_step + 1} {what}")


class Done(Exception):
    """Nothing is left to train: the run was killed between its last checkpoint and its final model."""


class StopWhenDone(TrainerCallback):
    """transformers looks at the number of steps after a step only, and would make one too many. Weights are loaded by now."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise Done


class DataPasses(TrainerCallback):
    """Did training begin at step 0, and did its last pass over the data give anything?"""

    started_at, found_nothing, _before = 0, False, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started_at = state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._before = state.global_step

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.found_nothing = state.global_step == self._before
