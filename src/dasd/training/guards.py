"""When do numbers that are not finite end a run? Before they reach the weights, and before weights reach a file.

One NaN in a gradient makes every weight NaN in the step that follows: clipping divides all gradients by their common norm. An
update can overflow where its gradient does not; no later gradient tells of the last one, so weights are looked at themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback

from dasd.config import BadInput, RunFailed
from dasd.credit.signals import NotFinite
from dasd.training.checkpoints import last_checkpoint


class StopWhenNotFinite(TrainerCallback):
    """Raises RunFailed before an update whose gradient is NaN or infinite, and where the loss of a step is."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.accelerator.scaler is not None:  # float16: the scaler leaves out steps whose gradient overflowed
            return
        local = [_local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        norm = get_total_norm(local) if local else torch.zeros(())
        everywhere = self.accelerator.reduce(norm.float().to(self.accelerator.device), reduction="mean")  # all stop, or none
        if not math.isfinite(everywhere):
            what = f"the norm of its gradient is {float(everywhere)}, so it was not made"
            raise _stopped(f"stopped at the update of step {state.global_step + 1}: {what}", args.output_dir)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and not math.isfinite(loss := logs.get("loss", 0.0)):  # of all processes
            raise _stopped(f"stopped after step {state.global_step}: its loss is {loss}", args.output_dir)


def refuse_broken_weights(parameters: Iterable[Tensor], accelerator: Any, step: int, checkpoints: str) -> None:
    """Raises RunFailed where a trained weight, on any process, is NaN or infinite."""
    broken = any(not bool(_local(weights).isfinite().all()) for weights in parameters)
    count = accelerator.reduce(torch.tensor(float(broken), device=accelerator.device), reduction="sum")
    if float(count):
        raise _stopped(
            f"stopped after step {step}: its update made weights that are not finite; they are not saved", checkpoints
        )


def _local(tensor: Any) -> Tensor:
    """This process's part of a tensor that may be sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()


@contextmanager
def stopping(step: int, checkpoints: str) -> Iterator[None]:
    """Inside, logits of the trained policy and signals of the method that are not finite end the run with RunFailed.

    `step` counts from 1; a model that is broken before that is BadInput.
    """
    try:
        yield
    except BadInput as error:
        if step == 1:
            raise
        raise _stopped(f"stopped while the rollouts of step {step} were sampled: {error}", checkpoints) from error
    except NotFinite as error:
        raise _stopped(f"stopped before the update of step {step}: {error}", checkpoints) from error


def _stopped(what: str, checkpoints: str) -> RunFailed:
    last = last_checkpoint(Path(checkpoints))
    saved = f"the last checkpoint, {last}, is good" if last else "no checkpoint had been written yet"
    return RunFailed(
        f"{what}; {saved}. The same settings meet the same numbers again: try a lower training.learning_rate, a lower "
        "training.trl.max_grad_norm or model.dtype float32, in a run of its own (--output)",
        goes_on=False,
    )
