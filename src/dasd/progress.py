"""Long work shows that it moves: a bar with rate and time left on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dasd import processes

# Names are printed as they are: no `[/x]` is markup, no `:train:` a picture. Several processes speak with one voice.
console = Console(highlight=False, markup=False, emoji=False, quiet=not processes.is_main())
Advance = Callable[..., None]  # advance(count=1, note=None)
SECONDS_BETWEEN_LINES = 60.0
COLUMNS_OF_A_FILE = 140


def print_table(table: Any) -> None:
    """A table as wide as the terminal; in a file or a pipe, which have no width, wide enough to be read."""
    if console.is_terminal or "COLUMNS" in os.environ:
        console.print(table)
    elif not console.quiet:
        Console(file=console.file, width=COLUMNS_OF_A_FILE, highlight=False, markup=False, emoji=False).print(table)


def print_raw(text: str) -> None:
    """Text to the letter: not wrapped, no tab or control character changed, as a model gets it."""
    if not console.quiet:
        console.file.write(f"{text}\n")


@contextmanager
def track(description: str, total: int, each: bool = False, before: int = 0) -> Iterator[Advance]:
    """Yields `advance(count=1, note=None)`; the note is a short figure shown beside the bar, e.g. the reward, and stays until
    another comes. A count of 0 with a note is a sign of life within a unit of work.

    each    without a terminal: a line for each advance in place of one a minute
    before  what was done earlier, and says nothing of how long the rest takes
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<28}", markup=False), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, completed=before, note="")
            yield lambda count=1, note=None: bar.update(task, advance=count, **({} if note is None else {"note": note}))
        return

    started = last = time.monotonic()
    done, shown = before, ""

    def advance(count: int = 1, note: str | None = None) -> None:
        nonlocal done, last, shown
        done, shown = done + count, shown if note is None else note
        now = time.monotonic()
        if (count and (each or done >= total)) or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = f", {(now - started) / (done - before) * (total - done):.0f} s left" if done > before else ""
            console.print(f"{description}: {done}/{total}, {now - started:.0f} s{left}  {shown}".rstrip(), soft_wrap=True)

    yield advance
