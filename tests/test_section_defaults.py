"""Does setting one key leave every other default of its command alone, in every section of every command?"""

from collections.abc import Iterator
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from dasd.assets import QUICKSTART
from dasd.cli import build_parser
from dasd.config import (
    BadInput,
    DataConfig,
    EvalConfig,
    ProbeConfig,
    RunConfig,
    Section,
    TokensConfig,
    load_config,
    make_config,
)

COMMANDS = [RunConfig, EvalConfig, ProbeConfig, TokensConfig]


def keys(values: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every setting below `values`, with its default there."""
    for name in type(values).model_fields:
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            yield from keys(value, (*path, name))
        else:
            yield (*path, name), value


def nested(path, value):
    for part in reversed(path):
        value = {part: value}
    return value


def test_every_command_is_walked():
    """A config that is no section of another is a command's own, and stands in COMMANDS."""
    known = {kind for kind in _subclasses(Section) if kind.__module__.startswith("dasd.config")}
    parts = {part for kind in known for field in kind.model_fields.values() for part in _sections(field.annotation)}
    assert known - parts == set(COMMANDS)
    assert sum(1 for kind in COMMANDS for _ in keys(kind())) > 120


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_key_set_to_its_default_changes_nothing(kind):
    """In YAML and as an override: whichever key is set, all the others keep what the command says."""
    defaults = kind()
    for path, value in keys(defaults):
        assert make_config(kind, nested(path, value)) == defaults, path
        text = yaml.safe_dump(value).removesuffix("...\n").strip() if not isinstance(value, str) else value
        if not isinstance(value, (tuple, list, dict)):
            assert load_config(kind, None, [f"--{'.'.join(path)}", text]) == defaults, path


@pytest.mark.parametrize(
    ("kind", "split"), [(EvalConfig, "test"), (ProbeConfig, "validation"), (TokensConfig, "validation"), (RunConfig, "train")]
)
def test_the_split_is_the_commands_own(kind, split, tmp_path):
    assert load_config(kind, None, ["--data.seed", "5"]).data == kind().data.model_copy(update={"seed": 5})
    assert load_config(kind, None, ["--data.columns.problem", "question"]).data.split == split
    path = tmp_path / "config.yaml"
    path.write_text("data:\n  source: mine.jsonl\n  columns:\n")
    assert load_config(kind, path, ["--data.limit", "4"]).data.split == split
    path.write_text("data: {split: other}\n")
    assert load_config(kind, path).data.split == "other"


@pytest.mark.parametrize("kind", [ProbeConfig, TokensConfig])
def test_a_count_holds_against_a_default_limit(kind):
    """These commands look at the first 50 or 64 problems by default: `--data.count 100` was 50 of them, in silence."""
    assert load_config(kind, None, ["--data.count", "100"]).data.limit == 100
    assert load_config(kind, None, ["--data.count", "100", "--data.limit", "7"]).data.limit == 7


class Inner(Section):
    first: int = 1
    second: int = 2


class Middle(Section):
    inner: Inner = Inner(second=20)
    third: int = 3


class Outer(Section):
    middle: Middle = Middle.model_validate({"inner": {"first": 100}, "third": 30})


def test_defaults_of_defaults():
    """The outermost default wins, then the one below it: 100 of Outer, 20 of Middle."""
    assert Outer().middle == Middle(inner=Inner(first=100, second=20), third=30)
    assert make_config(Outer, {"middle": {"third": 7}}).middle == Outer().middle.model_copy(update={"third": 7})
    assert make_config(Outer, {"middle": {"inner": {"second": 9}}}).middle.inner == Inner(first=100, second=9)
    assert make_config(Outer, {"middle": {"inner": {"first": 8}}}).middle.inner == Inner(first=8, second=20)
    assert make_config(Middle, {"inner": {"first": 5}}).inner == Inner(first=5, second=20)


def test_a_section_given_as_an_object_is_taken_as_it_is():
    assert EvalConfig(data=DataConfig(limit=3)).data == DataConfig(limit=3)


def test_a_mistake_is_still_named():
    with pytest.raises(BadInput, match=r"unknown key 'data\.splt', did you mean 'split'\?"):
        load_config(EvalConfig, None, ["--data.splt", "test"])


def _sections(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


@pytest.mark.parametrize(
    ("command", "kind"), [("train", RunConfig), ("eval", EvalConfig), ("probe", ProbeConfig), ("tokens", TokensConfig)]
)
def test_help_shows_what_holds(command, kind, capsys):
    """Each default as help shows it, typed as an override, is the default; quickstart's are its own config's."""
    shown = settings_in_help(command, capsys)
    assert set(shown) == {".".join(path) for path, _ in keys(kind())}
    for key, text in shown.items():
        assert load_config(kind, None, [f"--{key}", text]) == kind(), key


def test_help_of_the_quickstart_shows_its_own_config(capsys):
    config = load_config(RunConfig, QUICKSTART)
    assert config != RunConfig()
    for key, text in settings_in_help("quickstart", capsys).items():
        assert load_config(RunConfig, QUICKSTART, [f"--{key}", text]) == config, key


def settings_in_help(command, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    lines = capsys.readouterr().out.partition("settings, given as")[2].splitlines()[1:]
    return {line.split()[0].removeprefix("--"): line.rpartition(" [")[2].removesuffix("]") for line in lines}
