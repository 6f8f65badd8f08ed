"""Does long work show signs of life, and say nothing that it does not know?"""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import dasd
from dasd import progress
from dasd.progress import print_table, track


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


def test_what_was_done_before_says_nothing_of_the_rest(said, monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with track("Training", 8, each=True, before=4) as advance:
        advance()
        advance()
    assert said() == ["Training: 5/8, 10 s, 30 s left", "Training: 6/8, 20 s, 20 s left"]


def test_a_long_line_is_one_line(said):
    with track("a" * 80, 1) as advance:
        advance()
    assert len(said()) == 1


def test_notes_after_the_end_say_nothing_again(said):
    with track("Sampling", 1) as advance:
        advance()
        advance(0, note="late")
    assert len(said()) == 1


NAME = "[/x] countdown:train: [bold]"


@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_printed_as_they_are(terminal, monkeypatch):
    """The package's own console, in a bar, in a table and in a line."""
    text = io.StringIO()
    monkeypatch.setattr(progress.console, "_file", text)
    monkeypatch.setattr(progress.console, "_force_terminal", terminal)
    monkeypatch.setattr(progress.console, "_width", 200)
    with track(NAME, 1) as advance:
        advance(note=NAME)
    table = Table(NAME, title=NAME)
    table.add_row(NAME)
    progress.console.print(table)
    progress.console.print(f"Report: {NAME}", style="bold")
    assert text.getvalue().count("[/x] countdown:train: [bold]") >= 6


def test_a_prompt_is_shown_to_the_letter(monkeypatch):
    text, prompt = io.StringIO(), "[/b] :train: " + "word " * 40 + "\ta\x0bb\r\n \u2028end"
    monkeypatch.setattr(progress.console, "_file", text)
    progress.print_raw(prompt)
    assert text.getvalue() == prompt + "\n"


def test_no_other_console_is_made():
    """Names would be taken for markup there."""
    root = Path(dasd.__file__).parent
    for path in root.rglob("*.py"):
        if path.name != "progress.py":
            assert "Console(" not in path.read_text(), path
            assert "markup=" not in path.read_text(), path


def test_a_table_in_a_file_is_wide_enough_to_be_read(capsys, monkeypatch):
    """80 columns would fold a path over several lines."""
    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table()
    table.add_column("run")
    table.add_column("reward")
    table.add_row("runs/" + "a-long-name/" * 8, "0.5")
    print_table(table)
    assert "runs/" + "a-long-name/" * 8 in capsys.readouterr().out
