"""`dasd probe`: an intervention study before training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dasd.commands.base import Commands, declare, path
from dasd.config import ProbeConfig, load_config
from dasd.config.core import portable
from dasd.trained import as_trained


def add(commands: Commands) -> None:
    child = declare(
        commands, "probe", run, "where would this teacher help this student? an intervention study before training",
        ProbeConfig, figures=True,
    )  # fmt: skip
    child.add_argument("model", help="'bundled', a model folder, a run folder of dasd train, or a hub id")
    child.add_argument("--config", type=path, help="YAML file with the same settings")
    child.add_argument(
        "--output", type=path, help="folder for probe.jsonl, summary.json and probe.html (default: runs/probe/MODEL)"
    )


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    config = as_trained(load_config(ProbeConfig, known.config, ["--model.path", known.model, *overrides]))
    from dasd.analysis.probe import run_probe
    from dasd.analysis.probe_file import assemble
    from dasd.analysis.probe_summary import summarize_probe
    from dasd.analysis.probe_tables import probe_tables, sentences
    from dasd.evaluation.folder import model_slug
    from dasd.files import write_json
    from dasd.progress import console, print_table
    from dasd.report import build_probe_page

    output = known.output or Path("runs/probe") / model_slug(known.model)
    records = assemble(run_probe(config, output), config.contexts)
    of = {"task": config.data.task, "model": portable(config)["model"]["path"]}
    summary = {**of, **summarize_probe(records, config.contexts, config.rho, config.seed)}
    write_json(output / "summary.json", summary)
    page = build_probe_page(output)
    for table in probe_tables(summary):
        print_table(table)
    for line in sentences(summary):
        console.print(line, soft_wrap=True)
    console.print(f"\nPage: {page}", soft_wrap=True)
    return summary
