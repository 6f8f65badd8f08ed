"""`dasd train`: from a YAML config to a trained model and its report."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dasd import processes
from dasd.commands.base import Commands, declare, path
from dasd.config import BadInput, RunConfig, load_config
from dasd.files import read_lines


def add(commands: Commands) -> None:
    child = declare(commands, "train", run, "train as a YAML config says", RunConfig, several_processes=True, figures=True)
    child.add_argument("config", type=path, help="YAML file")
    child.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="check the settings and estimate memory; writes nothing"
    )
    plan = child.add_argument_group("with --dry-run", "the GPUs it is planned for, which need not be here, or these CPUs")
    plan.add_argument(
        "--device", choices=["gpu", "cpu"], help="cpu: with this machine's memory, in place of a GPU's (default: gpu)"
    )
    plan.add_argument("--gpu_memory", type=float, metavar="GIB", help="of one GPU (default: this machine's, if it has one)")
    plan.add_argument("--processes", type=int, help="GPUs that train, one process each (default: 1)")
    plan.add_argument("--sharding", choices=["none", "zero2", "zero3", "fsdp2"], help="how they share a model (default: none)")
    plan.add_argument("--prompt_length", type=int, metavar="TOKENS", help="of the longest prompt (default: 512)")


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any] | int:
    config = load_config(RunConfig, known.config, overrides)
    names = ("device", "gpu_memory", "processes", "sharding", "prompt_length")
    planned = {name: value for name in names if (value := getattr(known, name)) is not None}
    if known.dry_run:
        from dasd.training.dry_run import Hardware, dry_run

        return dry_run(config, Hardware(**planned))
    if planned:
        raise BadInput(f"--{next(iter(planned))} belongs to --dry-run; a run takes the GPUs that accelerate launch gives it")
    from dasd.progress import console
    from dasd.report import build_report
    from dasd.training.run import METRICS, Result, train

    final = train(config)
    processes.leave()
    if processes.is_main():
        console.print(f"Report: {build_report(Path(config.output))}", soft_wrap=True)
        result = Result.read(Path(config.output))
        if result is not None and result.weights_changed is False:
            said = f"Nothing was learnt: after {result.steps} steps all weights are those of {result.model}. Saved: {final}"
        else:
            said = f"Trained model: {final}"
        console.print(said, soft_wrap=True)
        figures = {"output": config.output, "final": str(final), **(asdict(result) if result else {})}
        return figures | {"last_step": (read_lines(Path(config.output) / METRICS) or [{}])[-1]}
    return 0
