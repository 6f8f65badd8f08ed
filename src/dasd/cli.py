"""The `dasd` command: its parser, its exit codes, what is said when something is wrong. `commands/` has what each one does.

Exit codes: 0 done, 1 the run failed, 2 bad input. Bad input gets one message and no traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from dasd import processes
from dasd.commands import (
    compare,
    doctor,
    eval,
    gain,
    init,
    merge,
    methods,
    probe,
    quickstart,
    report,
    runs,
    study,
    tokens,
    train,
)
from dasd.config import BadInput, RunFailed, nearest
from dasd.files import finite

# In the order of the help.
COMMANDS = (quickstart, init, doctor, train, eval, compare, probe, gain, tokens, report, runs, study, merge, methods)
SECONDS_FOR_MAIN = 20.0  # other processes wait this long for process 0 to fail of the same cause, which it then says


def main(arguments: Sequence[str] | None = None) -> None:
    processes.end(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code."""
    try:
        parser = build_parser()
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(parser)
        known, overrides = parser.parse_known_args(arguments)
        if not hasattr(known, "command"):
            parser.print_help()
            return 2
        _quiet_libraries()
        if processes.count() > 1 and not known.several_processes:
            raise BadInput(
                f"a launcher started {processes.count()} processes, and only dasd train runs on several: leave it out"
            )
        with _only_figures() if getattr(known, "json", False) else nullcontext():
            done = known.command(known, overrides)
        if not isinstance(done, Mapping):
            return done or 0
        if known.json and processes.is_main():
            print(json.dumps(finite(done), ensure_ascii=False, default=asdict))
        return int(done.get("exit_code", 0))
    except BadInput as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        again = "; give the same command again to go on from where it was" if error.goes_on else ""
        return _fail(f"{error}{again}", 1)
    except KeyboardInterrupt as stopped:
        return _fail(str(stopped) or "stopped; what was written before is intact", 1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return _fail(f"{error.strerror}: {error.filename or ''}; what was written before is intact", 1)


@contextmanager
def _only_figures() -> Iterator[None]:
    """Tables, progress, messages and what a user's own file prints go to standard error, so that what is printed after it
    stands alone on standard output."""
    from dasd.progress import console

    console.file = sys.stderr
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        console.file = None  # type: ignore[assignment]  # standard output again, whatever it is by then


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dasd",
        description="Direction-adaptive self-distillation for reasoning models.",
        epilog="Any setting can be given as --dotted.key VALUE, e.g. dasd train config.yaml --method.beta 0.2",
    )
    parser.add_argument("--version", action="version", version=f"dasd {version('dasd')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser


def _quiet_libraries() -> None:
    """Our progress and warnings are what a user should see, not the libraries' bars and notices."""
    import logging
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(trl|transformers|accelerate|datasets|torch|peft)\b")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it counts every retry
    logging.getLogger("dasd").setLevel(logging.INFO if processes.is_main() else logging.ERROR)


def _fail(message: str, code: int) -> int:
    """Says once why a run ends: what stops one process mostly stops all, and the launcher ends the others with the first."""
    if processes.is_main():
        print(f"dasd: {message}", file=sys.stderr)
    else:
        time.sleep(SECONDS_FOR_MAIN)  # ended here where process 0 fails too
        print(f"dasd (process {processes.rank()}): {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Names the nearest choice for a misspelt one, be it a command or an option's value. A setting keeps its value wherever it
    stands."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse does not know the settings: it would take the 3 of `train --training.steps 3 CONFIG` for the config."""
        if args is None or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        words, settings = self._split(args)
        known, unknown = super().parse_known_args(words, namespace)
        return known, [*unknown, *settings]

    def _split(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """(the command's own words, `--key value` or `--key=value` of what are none of its options)."""
        words: list[str] = []
        settings: list[str] = []
        left = list(args)
        while left:
            word = left.pop(0)
            key, equals, _ = word.partition("=")
            own = any(option.startswith(key) for option in self._option_string_actions)  # abbreviations and a lone -- too
            if own or not key.startswith("--"):
                words.append(word)
                continue
            settings.append(word)
            if not equals and left and not left[0].startswith("--"):
                settings.append(left.pop(0))
        return words, settings

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        names = list(map(str, action.choices))
        guess = nearest(str(value), names)
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"unknown command {value!r}{guess} Commands: {', '.join(names)}")
        what = "/".join(action.option_strings) or action.dest
        self.error(f"{what} must be one of {', '.join(names)}, got {value!r}{guess}")

    def error(self, message: str) -> Any:
        sys.exit(_fail(message, 2))


if __name__ == "__main__":
    main()
