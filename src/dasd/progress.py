"""Long work shows that it moves: a bar with rate and time left on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dasd import processes

console = Console(highlight=False, quiet=not processes.is_main())  # several processes speak with one voice
Advance = Callable[..., None]  # advance(count=1, note="")
SECONDS_BETWEEN_LINES = 60.0


@contextmanager
def track(description: str, total: int, each: bool = False) -> Iterator[Advance]:
    """Yields `advance(count=1, note="")`; the note is a short figure shown beside the bar, e.g. the reward.

    each  without a terminal: a line for each advance in place of one a minute
    """
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<28}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, note="")
            yield lambda count=1, note="": bar.update(task, advance=count, note=note)
        return

    started = last = time.monotonic()
    done = 0

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if (each and count) or done >= total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = (now - started) / max(done, 1) * (total - done)
            console.print(
                f"{description}: {done}/{total}, {now - started:.0f} s, {left:.0f} s left  {note}".rstrip(), soft_wrap=True
            )

    yield advance
