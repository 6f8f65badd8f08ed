"""What was this run? Versions, revisions and hardware, as `run.json` keeps them."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dasd.config import RunConfig
from dasd.models import model_path


def provenance(config: RunConfig, tokenizer: Any) -> dict[str, Any]:
    """What a reader needs to make the run again."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "command": " ".join(["dasd", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.training.seed,
        "model": model_path(config.model),
        "model_revision": config.model.revision,
        "chat_template_sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest()[:16],
        "hardware": f"{device}, {torch.get_num_threads()} threads",
        **software(),
    }


def software() -> dict[str, Any]:
    packages = ("dasd", "torch", "trl", "transformers", "accelerate", "datasets", "numpy")
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Revision of dasd's own source tree; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
