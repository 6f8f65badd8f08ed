"""`dasd study`: many arms x tasks x seeds at matched budget, and what their difference is worth."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from dasd.commands.base import Commands, declare, no_overrides, path
from dasd.config import BadInput, RunFailed


def add(commands: Commands) -> None:
    child = declare(commands, "study", run, "run and compare methods over tasks and seeds, as a study file says", figures=True)
    child.add_argument("study", type=path, metavar="STUDY.yaml", help="study file: docs/study.md")
    child.add_argument("--workers", type=int, default=1, metavar="N", help="cells that run at once, or tasks of the array [1]")
    what = child.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="print cells, commands and estimated time; nothing is run")
    what.add_argument("--slurm", action="store_true", help="print a Slurm array of N tasks that share the cells")
    what.add_argument("--report", action="store_true", help="table and page of the cells that are done; nothing is run")


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    no_overrides(overrides)
    if known.workers < 1:
        raise BadInput(f"--workers must be at least 1, got {known.workers}")
    from dasd.recipe_files import recipes
    from dasd.study.cells import all_cells, check
    from dasd.study.config import load_study

    study = load_study(known.study, recipes())
    check(all_cells(study))
    if known.slurm:
        return _slurm(study, known.workers)
    if known.plan:
        return _plan(study, known.workers)
    failed: dict[str, str] = {}
    if not known.report:
        from dasd.study.history import record
        from dasd.study.methods import check_methods
        from dasd.study.work import Work

        check_methods(study)
        record(study)
        failed = Work(study, known.workers).go()
    found = _report(study, known.workers)
    if failed:
        raise RunFailed(
            f"{len(failed)} of {found['progress']['cells']} cells failed: {', '.join(failed)} (their log.txt says why)"
        )
    return found


def _slurm(study: Any, tasks: int) -> dict[str, Any]:
    from dasd.progress import print_raw
    from dasd.study.work import slurm_script

    script = slurm_script(study, tasks)
    print_raw(script.rstrip("\n"))
    return {"script": script}


def _plan(study: Any, workers: int) -> dict[str, Any]:
    from dasd.progress import console
    from dasd.study.cells import all_cells
    from dasd.study.results import results
    from dasd.study.work import in_words, waits_for_search

    found = results(study, workers)
    for cell, state in zip(all_cells(study), found["cells"], strict=True):
        waits = " (settings: from its search)" if waits_for_search(cell) else ""
        console.print(f"{cell.name}: {state['state']}{waits}", soft_wrap=True)
        for command in cell.commands() if state["state"] != "done" else ():
            console.print(f"    dasd {shlex.join(command)}", style="dim", soft_wrap=True)
    left = found["progress"]["seconds_left"]
    time = "unknown until a cell is done" if left is None else f"{in_words(left)} with {workers} at once"
    console.print(f"{found['progress']['done']} of {found['progress']['cells']} cells done; time left: {time}", soft_wrap=True)
    for line in effects(found):
        console.print(line, soft_wrap=True)
    return found


def _report(study: Any, workers: int) -> dict[str, Any]:
    from filelock import FileLock
    from rich.markup import escape
    from rich.table import Table

    from dasd.files import write_json, write_text
    from dasd.progress import console, print_table
    from dasd.report import build_study_page
    from dasd.study.results import results
    from dasd.study.sentences import markdown, table

    found = results(study, workers)
    study.output.mkdir(parents=True, exist_ok=True)
    with FileLock(study.output / ".report.lock"):  # the tasks of an array end at the same moment
        write_json(study.output / "study.json", found)
        write_text(study.output / "findings.md", markdown(found))
        page = build_study_page(found, study.output / "study.html")
    heads, lines = table(found)
    if lines:
        shown = Table()
        for head in heads:
            shown.add_column(
                escape(head), justify="right" if head in ("seeds", "value", "p (Holm)") or "minus" in head else "left"
            )
        for line in lines:
            shown.add_row(*map(escape, line))
        print_table(shown)
    for sentence in [*effects(found), *found["findings"]]:
        console.print(sentence, soft_wrap=True)
    console.print(f"Page: {page}\nFigures: {study.output}/study.json", soft_wrap=True)
    return found


def effects(found: dict[str, Any]) -> list[str]:
    """What each task's size can find, in a sentence."""
    lines = []
    for entry in found["minimum_effect"]:
        size = f"{entry['seeds']} seeds, {entry['problems'] or 'unknown'} problems, {entry['comparisons']} comparisons"
        if entry["effect"] is None:
            lines.append(f"{entry['task']}: minimum detectable effect unknown, {entry['why']} ({size})")
        else:
            lines.append(f"{entry['task']}: minimum detectable effect {entry['effect']:.3f} Avg@k at 80 % power ({size})")
    return lines
