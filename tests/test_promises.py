"""What does each command say to bad input? Every case is run as typed; `docs/promises.md` is written from what was seen.

    DASD_WRITE_DOCS=1 python -m pytest tests/test_promises.py     writes the table anew

Each case must end with the exit code 2, one message on standard error, no traceback, and nothing written.
"""

import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dasd.cli import COMMANDS, run

LONGEST = 200
TABLE = Path(__file__).parents[1] / "docs" / "promises.md"
GOOD = {"problem": "What is 2 + 2?", "answer": "4", "solution": "2 + 2 = 4"}
HEAD = """# What each command says to bad input

Written by `tests/test_promises.py`, which runs every line: exit code 2, one message, no traceback, nothing is written.
FOLDER stands for a path.

| command | tried with | it says |
|---|---|---|
"""


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def config(**sections: object) -> bytes:
    return json.dumps({"data": {"task": "math", "source": "FOLDER/data.jsonl"}, **sections}).encode()  # JSON is YAML


def study(reference: str) -> bytes:
    given = {"base": "countdown/grpo", "steps": 1, "tasks": {"countdown": {}}, "arms": {"grpo": {}}, "reference": reference}
    return json.dumps(given).encode()


TRAIN = ["train", "FOLDER/config.yaml"]
SMALL = {"steps": 1, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 8, "max_completion_length": 16}


@dataclass(frozen=True)
class Case:
    """`files` lie in FOLDER when `arguments` are given; FOLDER is replaced in both."""

    what: str
    arguments: list[str]
    files: dict[str, bytes]

    @property
    def command(self) -> str:
        return self.arguments[0]


def case(what: str, arguments: list[str], **files: bytes) -> Case:
    return Case(what, arguments, {name.replace("__", "."): content for name, content in files.items()})


def train(what: str, data: bytes = lines(GOOD), *more: str, **sections: object) -> Case:
    return case(what, [*TRAIN, *more], config__yaml=config(training=SMALL, **sections), data__jsonl=data)


CASES = [
    case("a misspelt command", ["trian"]),
    case("a misspelt setting", ["quickstart", "--training.step", "3"]),
    case("a launcher's word", ["quickstart", "now"]),
    case("a recipe that is none", ["init", "qwen3/17b"]),
    case("a file that is there", ["init", "countdown/dasd", "--output", "FOLDER/mine.yaml"], mine__yaml=b"precious"),
    case("no such config", ["doctor", "FOLDER/absent.yaml"]),
    case("no such config", ["train", "FOLDER/absent.yaml"]),
    case("a config that is no YAML", TRAIN, config__yaml=b"training: [1,"),
    case("a config that is a list", TRAIN, config__yaml=b"- 1"),
    train("an unknown section", model={}, trainning={}),
    train("an unknown key", model={"paths": "x"}),
    train("text where a number belongs", lines(GOOD), "--training.steps", "many"),
    train("a rate that is infinite", lines(GOOD), "--training.learning_rate", ".inf"),
    train("a number of TRL's that is none", lines(GOOD), "--training.trl.weight_decay", ".nan"),
    train("an empty output", lines(GOOD), "--output", ""),
    train("groups that do not divide", lines(GOOD), "--training.group_size", "3"),
    train("an unknown method", method={"name": "dads"}),
    train("a method's unknown setting", method={"name": "dasd", "betta": 1}),
    train("a setting out of range", method={"name": "dasd", "rho": 2}),
    train("an unknown field of TRL", lines(GOOD), "--training.trl.num_generation", "4"),
    train("a field of TRL that is ours", lines(GOOD), "--training.trl.max_steps", "4"),
    train("one problem where a step takes two"),
    train("an empty data file", b""),
    train("a broken line", lines(GOOD) + b'{"problem": "x", \n'),
    train("an encoding that is not UTF-8", '{"problem": "café", "answer": "1"}\n'.encode("latin-1")),
    train("a column that is not there", lines({"question": "x", "answer": "1"})),
    train("an empty answer", lines(GOOD, GOOD | {"answer": ""})),
    train("a gold answer that no grader can read", lines(GOOD, GOOD | {"answer": "about forty or so"})),
    train("a model folder that is not there", lines(GOOD, GOOD), model={"path": "./no/such/model"}),
    train("validation on what is trained on", lines(GOOD, GOOD), "--training.eval_steps", "1"),
    case("no such model", ["eval", "FOLDER/absent"]),
    case("an unknown benchmark", ["eval", "bundled", "--benchmarks", "aime42"]),
    case("both a benchmark and data", ["eval", "bundled", "--benchmarks", "countdown/*", "--data.limit", "9"]),
    case("no samples", ["eval", "bundled", "--num_samples", "0"]),
    case("a part beyond the last", ["eval", "bundled", "--shard", "3/2"]),
    case("nothing to grade again", ["eval", "bundled", "--data.limit", "2", "--regrade", "--output", "FOLDER/out"]),
    case("a server that is not named", ["eval", "bundled", "--sampler.backend", "openai"]),
    case("no such run", ["compare", "FOLDER/a", "FOLDER/b"]),
    case("no such model", ["probe", "FOLDER/absent"]),
    case("an unknown context", ["probe", "bundled", "--contexts", "solutions"]),
    case("no such config", ["gain", "FOLDER/grpo.yaml", "FOLDER/dasd.yaml"]),
    case("nothing to compare with", ["gain", "FOLDER/grpo.yaml"]),
    case("no such run", ["tokens", "FOLDER/absent"]),
    case("a checkpoint of what is no run", ["tokens", "bundled", "--checkpoint", "final"]),
    case("no such folder", ["report", "FOLDER/absent"]),
    case("a folder that is no run", ["report", "FOLDER"]),
    case("no such folder", ["runs", "FOLDER/absent"]),
    case("no such study", ["study", "FOLDER/absent.yaml"]),
    case("a reference that is no arm", ["study", "FOLDER/study.yaml", "--plan"], study__yaml=study("gpro")),
    case("a study without a plan", ["study", "FOLDER/study.yaml"], study__yaml=study("grpo")),
    case("no such run", ["merge", "FOLDER/absent", "--output", "FOLDER/out"]),
    case("a type that is none", ["merge", "FOLDER", "--output", "FOLDER/out", "--dtype", "float8"]),
    case("an unknown method", ["methods", "dads"]),
]


def tried(each: Case, folder: Path, capture: Callable) -> str:
    """What the command says, FOLDER in place of the folder."""
    for name, content in each.files.items():
        (folder / name).write_bytes(content.replace(b"FOLDER", str(folder).encode()))
    before = sorted(path for path in folder.rglob("*"))
    kept = {path: path.read_bytes() for path in before if path.is_file()}
    try:
        code = run([argument.replace("FOLDER", str(folder)) for argument in each.arguments])
    except SystemExit as stop:
        code = stop.code
    said = capture().err.replace(str(folder), "FOLDER")
    assert code == 2, said
    assert "Traceback" not in said
    assert said.startswith("dasd: ")
    assert sorted(path for path in folder.rglob("*")) == before
    assert {path: path.read_bytes() for path in kept} == kept
    return said.removeprefix("dasd: ").strip()


@pytest.fixture(scope="module")
def seen():
    """What was seen, for the table."""
    found: dict[int, str] = {}
    yield found
    if os.environ.get("DASD_WRITE_DOCS") and len(found) == len(CASES):
        TABLE.write_text(HEAD + "".join(row(CASES[index], found[index]) for index in sorted(found)))


def row(each: Case, said: str) -> str:
    words = " ".join(said.split())
    if len(words) > LONGEST:  # a list of names, mostly
        words = words[:LONGEST].rpartition(" ")[0] + " \N{HORIZONTAL ELLIPSIS}"
    shown = words.replace("|", "\\|").replace("<", "&lt;")
    return f"| `dasd {shlex.join(each.arguments)}` | {each.what} | {shown} |\n"


@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{each.command}-{each.what}".replace(" ", "-") for each in CASES])
def test_it_is_said_as_the_table_says(index, tmp_path, capsys, seen, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen[index] = tried(CASES[index], tmp_path, capsys.readouterr)
    if not os.environ.get("DASD_WRITE_DOCS"):
        assert row(CASES[index], seen[index]) in TABLE.read_text()


def test_every_command_has_a_line():
    names = {module.__name__.rpartition(".")[2] for module in COMMANDS}
    assert names <= {each.command for each in CASES}
    assert len(re.findall(r"^\| `dasd ", TABLE.read_text(), flags=re.MULTILINE)) == len(CASES)
