"""Which checkpoints are whole, what happens when one cannot be written, and which are kept?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from dasd import processes
from dasd.config import RunFailed

STATE = "trainer_state.json"  # transformers writes it last


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """While files are written into `folder`: what cannot be written whole is removed. Raises RunFailed with the reason."""
    try:
        yield
    except RunFailed:  # it is not the disk
        if processes.is_main():
            shutil.rmtree(folder, ignore_errors=True)
        raise
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
    """The newest whole checkpoint; a save or a deletion that was cut off is passed over."""
    return next(filter(_is_whole, _newest_first(folder)), None)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


@contextmanager
def telling_where_it_stands(folder: Path, save_steps: int) -> Iterator[None]:
    """A KeyboardInterrupt inside says from which step the same command would go on."""
    try:
        yield
    except KeyboardInterrupt:
        last = last_checkpoint(folder)
        raise KeyboardInterrupt(
            f"stopped; the same command goes on from step {step_of(last)}, the last checkpoint"
            if last
            else f"stopped before the first checkpoint (training.save_steps: {save_steps}): the same command begins again"
        ) from None


def keep_newest(folder: Path, limit: int, best: str | None = None) -> None:
    """Deletes all but the newest `limit` whole checkpoints, and `best`.

    Their state goes first: what a kill leaves of a checkpoint must not pass for one. (transformers deletes in the order of the
    file system, and takes what was half deleted for the newest, by its time.)
    """
    found = [path for path in _newest_first(folder) if str(path) != best]
    kept = list(filter(_is_whole, found))[:limit]
    for path in found:
        if path not in kept:
            (path / STATE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    return sorted((path for path in steps if steps[path].isdigit()), key=lambda path: int(steps[path]), reverse=True)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
