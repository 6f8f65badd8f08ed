"""How a config is read: YAML and `--dotted.key value` in, typed models out, one message for each fault. Imports no torch.

An unknown key is an error that names the nearest valid one. `BadInput` is what the command line turns into one message and
exit code 2.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import to_jsonable_python

from dasd.presets import PRESETS

T = TypeVar("T", bound=BaseModel)


class BadInput(ValueError):
    """The user gave something unusable; the message says what, why and what to do instead."""


class RunFailed(RuntimeError):
    """The run cannot go on, and not for what the user gave; what was written before is intact. Exit code 1.

    goes_on  the same command may end otherwise if it is given again
    """

    def __init__(self, message: str, goes_on: bool = True) -> None:
        super().__init__(message)
        self.goes_on = goes_on


def home_expanded(path: str) -> str:
    """`~` at the beginning is the home folder. Raises ValueError for a path of nothing."""
    if not path.strip():
        raise ValueError("an empty path names no folder")
    return str(Path(path).expanduser()) if path == "~" or path.startswith("~/") else path


LocalPath = Annotated[str, AfterValidator(home_expanded)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, values: Any) -> Any:
        """What is given of a section goes over the defaults that this config has for it, which may differ from its own."""
        if not isinstance(values, Mapping):
            return values
        merged = dict(values)
        for name, field in cls.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if name in merged and merged[name] is None and isinstance(default, BaseModel | dict):
                del merged[name]  # `columns:` with nothing under it
            elif isinstance(merged.get(name), Mapping) and isinstance(default, Section):
                merged[name] = default.overlaid(merged[name])
        return merged

    def overlaid(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a section for which this one is a config's default: what is given, over what this one sets."""
        return _merge(self.model_dump(exclude_unset=True), dict(given))

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"input should not be true or false, got {value!r}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _commas_make_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and get_origin(cls.model_fields[info.field_name or ""].annotation) in (list, tuple):
            return [part for part in (part.strip() for part in value.split(",")) if part]
        return value


Overrides = Sequence[str] | Mapping[str, Any]  # `--dotted.key value` as words, or dotted key -> value


def load_config(kind: type[T], path: Path | None, overrides: Overrides = ()) -> T:
    """A config from a YAML file and overrides. Raises BadInput naming key, value and remedy."""
    return make_config(kind, read_values(kind, path) if path is not None else {}, overrides)


def make_config(kind: type[T], values: dict[str, Any], overrides: Overrides = ()) -> T:
    """As `load_config`, from a mapping of sections."""
    pairs = [*deepcopy(dict(overrides)).items()] if isinstance(overrides, Mapping) else _pairs(kind, overrides)
    values = _for_method(kind, values, dict(pairs).get("method.name"))
    for key, value in pairs:
        if value or not _is_section(_annotation(kind, key.split("."))):  # `training:` with nothing under it changes nothing
            _set(values, key.split("."), value, key)
    return validate(kind, _with_preset(kind, values) if "method" in kind.model_fields else values)


def read_values(kind: type[BaseModel], path: Path) -> dict[str, Any]:
    """A config file's values, over those of the file it `extends` (a path relative to its own folder). Raises BadInput."""
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"config {path} does not exist") from None
    except IsADirectoryError:
        raise BadInput(
            f"config {path} is a folder: give a YAML file; a model's folder is given as --model.path {path}"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"config {path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInput(f"config {path} must be a mapping of sections, got {type(values).__name__}")
    values = {key: value for key, value in values.items() if value is not None}  # `teacher:` with nothing under it
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str) or (path.parent / parent).resolve() == path.resolve():
        raise BadInput(f"config {path}: extends must be the path of another file, got {parent!r}")
    return _merge(_for_method(kind, read_values(kind, path.parent / parent), _method_in(values)), values)


def _with_preset(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over what the preset of their method says of this kind's sections."""
    name = _method_in(values)
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    return _merge({section: preset[section] for section in preset if section in kind.model_fields}, values)


def _for_method(kind: type[BaseModel], values: dict[str, Any], chosen: Any) -> dict[str, Any]:
    """`values` without settings of another method than the chosen one; None chooses none."""
    if chosen is None or "method" not in kind.model_fields or not isinstance(values.get("method"), dict):
        return values
    default = kind.model_fields["method"].get_default(call_default_factory=True)
    return values if chosen == (_method_in(values) or default.name) else values | {"method": {}}


def _method_in(values: Mapping[str, Any]) -> Any:
    """Name of the method as it is given, None where it is left at its default."""
    method = values.get("method")
    return method.get("name") if isinstance(method, dict) else None


def _merge(under: Any, over: Any) -> Any:
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{key: _merge(under.get(key), value) for key, value in over.items()}}
    return over


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """`values` as a config of this kind. Raises BadInput with one line for each fault."""
    if endless := list(_not_finite(values)):
        raise BadInput("\n".join(f"{key}: must be a finite number, got {value}" for key, value in endless))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput("\n".join(_explain(kind, fault) for fault in error.errors())) from None


def _not_finite(values: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every infinity and NaN in it, with its key: also where settings are not typed, as under training.trl."""
    if isinstance(values, float) and not math.isfinite(values):
        yield path, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _not_finite(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _not_finite(value, f"{path}[{index}]")


def filled(kind: Any, said: Any, default: Any = None) -> Any:
    """What was written down of a `kind` by an earlier version, with the defaults of the settings that came since.

    `said` is not checked, and what it says stays as it is. Only what `kind` declares can have come since: a mapping of free
    keys, such as `training.trl`, is the same only if it is the same.

    default  the section's values where they are not its own; as JSON has them
    """
    fields = getattr(_section_in(kind), "model_fields", {})
    if isinstance(said, list):
        return [filled(kind, entry) for entry in said]
    if not fields or not isinstance(said, Mapping):
        return said
    values = dict(said)
    for name, field in fields.items():
        ours = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
        if name in said:
            values[name] = filled(field.annotation, said[name], ours if isinstance(ours, BaseModel) else None)
        elif default is not None or not field.is_required():
            values[name] = to_jsonable_python(ours)
    return values


def dump_config(config: BaseModel) -> str:
    return as_yaml(config.model_dump())


def portable(config: BaseModel) -> dict[str, Any]:
    """A config's values as JSON has them, the home folder as ~: for what is read on other machines, too."""
    dumped = json.dumps(config.model_dump(mode="json"), ensure_ascii=False)
    values: dict[str, Any] = json.loads(dumped.replace(f'"{Path.home()}/', '"~/'))
    return values


def as_yaml(value: Any, **how: Any) -> str:
    """YAML that a config's reader takes back as it was; `how`: options of yaml.dump."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **how)


def nearest(word: str, choices: Sequence[str]) -> str:
    """', did you mean X?' or a full stop."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f", did you mean {close[0]!r}?" if close else "."


class KeyTwice(yaml.YAMLError):
    """A mapping has a key twice, of which YAML's reader would keep the last in silence."""


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 5e-5 is a number, a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as it was: the text 1e3 in quotation marks."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def read_yaml(text: str) -> Any:
    """What a YAML text says. Raises yaml.YAMLError: it is none, or (KeyTwice) a mapping has a key twice."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _refuse_twice(loader, node, "", set())
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_twice(loader: yaml.SafeLoader, node: yaml.Node | None, path: str, seen: set[int]) -> None:
    """Looks at what is written, before `<<` is resolved: what is merged in may be said again.

    seen  nodes that were looked at, by identity: an alias stands for the same node, and may stand for one that it is in
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_twice(loader, item, f"{path}{index}.", seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key, item in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                name, line = loader.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    where = f"line {line}" if lines[name] == line else f"lines {lines[name]} and {line}"
                    raise KeyTwice(f"the key '{path}{name}' is there twice, in {where}: keep one of them")
                lines[name] = line
            _refuse_twice(loader, item, f"{path}{key.value}." if isinstance(key, yaml.ScalarNode) else path, seen)


def _read_value(text: str, annotation: Any, key: str) -> Any:
    """An override's text as its setting's type wants it: text settings take any text, the rest is YAML.

    Raises BadInput where a mapping has a key twice: as a text it would be no better.
    """
    if annotation in (str, str | None):
        return None if text == "null" and annotation is not str else text
    if not text.strip() and get_origin(annotation) in (list, tuple):
        return ()
    try:
        return read_yaml(text)
    except KeyTwice as error:
        raise BadInput(f"--{key}: {error}") from None
    except (ValueError, yaml.YAMLError):
        return text


def _annotation(kind: Any, path: Sequence[str]) -> Any:
    """Declared type of the setting at `path`, None where there is none."""
    for part in path:
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return None
        kind = fields[part].annotation
    return kind


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _pairs(kind: Any, overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Dotted keys and their values, of the words of a command line."""
    pairs: list[tuple[str, Any]] = []
    rest = list(overrides)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise BadInput(f"unexpected argument {word!r}; overrides look like --training.steps 20")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest:
                raise BadInput(f"{word} needs a value")
            text = rest.pop(0)
        key = key.replace("-", "_")
        pairs.append((key, _read_value(text, _annotation(kind, key.split(".")), key)))
    return pairs


def _set(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise BadInput(f"--{key}: {part!r} is not a section")
    values[path[-1]] = value


def _section_in(annotation: Any) -> Any:
    """The section of a setting's type: its own, or that of its entries or alternatives."""
    inner = [_section_in(part) for part in get_args(annotation)]
    return annotation if not inner else next((part for part in inner if hasattr(part, "model_fields")), annotation)


def _explain(kind: type[BaseModel], fault: Any) -> str:
    where = [str(part) for part in fault["loc"]]
    key = ".".join(where)
    if fault["type"] == "extra_forbidden":
        section: Any = kind
        for part in where[:-1]:
            section = section if part.isdigit() else _section_in(section.model_fields[part].annotation)
        names = list(section.model_fields)
        return f"unknown key {key!r}{nearest(where[-1], names)} Valid here: {', '.join(names)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{key}: {message}" if key else message
    message = f"{key}: {message[:1].lower()}{message[1:]}, got {fault['input']!r}"
    if fault["type"] == "literal_error":
        message += nearest(str(fault["input"]), re.findall("'([^']+)'", fault["ctx"]["expected"]))
    return message
