"""Is every command of docs/paper.md one that this version takes?"""

import re
import shlex
from pathlib import Path

import pytest

from dasd.cli import build_parser
from dasd.config import EvalConfig, ProbeConfig, RunConfig, load_config
from dasd.evaluation.benchmarks import choose
from dasd.training.run import method_and_contexts

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
RECIPE = re.search(r"`PAPER` stands for `(.*?)`", PAGE)[1]
LINES = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
COMMANDS = [*LINES, *re.findall(r"`(dasd [a-z]+ [^`]+)`", PAGE)]


def test_there_are_commands():
    assert len(COMMANDS) > 25
    assert all(command.startswith("dasd ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_taken(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [RECIPE if word == "PAPER" else word for word in shlex.split(command)[1:]]
    known, overrides = build_parser().parse_known_args(words)
    if words[0] == "train":
        config = load_config(RunConfig, known.config, overrides)
        method_and_contexts(config)  # refuses settings that the method does not have
        expected = words[words.index("--method.name") + 1] if "--method.name" in words else "dasd_paper"
        assert config.method.name == expected
    elif words[0] == "eval":
        assert choose(load_config(EvalConfig, known.config, overrides).benchmarks)
    elif words[0] == "probe":
        load_config(ProbeConfig, None, overrides)
    else:
        assert overrides == []
