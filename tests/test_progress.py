"""Does long work show signs of life, and say nothing that it does not know?"""

import io

import pytest
from rich.console import Console

from dasd import progress
from dasd.progress import track


@pytest.fixture
def said(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, force_terminal=False, width=60))
    return lambda: text.getvalue().splitlines()


def test_a_unit_of_work_that_takes_long_shows_its_notes(said, monkeypatch):
    now = iter(range(0, 1000, 40))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with track("Sampling", 2) as advance:
        for tokens in (10, 20, 30, 40):
            advance(0, note=f"{tokens} tokens")
        advance(1)
        advance(1)
    assert said() == [
        "Sampling: 0/2, 80 s  20 tokens",
        "Sampling: 0/2, 160 s  40 tokens",
        "Sampling: 2/2, 240 s, 0 s left  40 tokens",
    ]


def test_a_long_line_is_one_line(said):
    with track("a" * 80, 1) as advance:
        advance()
    assert len(said()) == 1


def test_notes_after_the_end_say_nothing_again(said):
    with track("Sampling", 1) as advance:
        advance()
        advance(0, note="late")
    assert len(said()) == 1
