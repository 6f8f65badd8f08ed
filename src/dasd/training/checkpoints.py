"""Which checkpoints are whole, and what happens when one cannot be written?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from dasd import processes
from dasd.config import RunFailed


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """While files are written into `folder`: what cannot be written whole is removed. Raises RunFailed with the reason."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors do not raise OSError on a full disk
        if processes.is_main():  # else the cause would be lost behind what process 0 says when its folder disappears
            shutil.rmtree(folder, ignore_errors=True)
        reason = " ".join(str(error).split())[:200]
        free = shutil.disk_usage(next(parent for parent in folder.parents if parent.exists())).free
        raise RunFailed(
            f"{folder} could not be written ({reason}; {free / 2**20:.0f} MiB free there). What was saved before is intact: "
            "make room first"
        ) from error


def is_complete(folder: Path) -> bool:
    """Whether a saved model or adapter is whole: TRL writes training_args.bin last."""
    return (folder / "training_args.bin").exists() and any(folder.glob("*config.json"))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose state was written to the end; a save that was cut off is passed over."""

    def step(path: Path) -> int:
        return int(path.name.rpartition("-")[2])

    for path in sorted(folder.glob("checkpoint-*"), key=step, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None
