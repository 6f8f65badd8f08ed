"""Which rows does a data section name, and which another split of the same data? Looks at paths alone, reads no row.

A file has no splits, nor has a single dataset that `datasets` saved: its rows are the same whatever split is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from dasd.config.core import BadInput, validate
from dasd.config.parts import BUNDLED, DataConfig

# What ends like this is a file: a name on the hub may have a dot, too.
FILE_ENDINGS = {
    ".jsonl", ".json", ".parquet", ".csv", ".txt", ".tsv", ".gz", ".zip", ".zst", ".xz", ".bz2", ".tar", ".arrow", ".feather",
    ".ndjson", ".xlsx", ".xls", ".pkl", ".npz", ".npy", ".pt", ".md", ".yaml", ".yml", ".xml", ".html", ".db", ".sqlite", ".py",
}  # fmt: skip


class Place(Protocol):
    """Where problems come from that are not trained on. No source: the training data's, of another split."""

    @property
    def source(self) -> str | None: ...
    @property
    def split(self) -> str: ...
    @property
    def limit(self) -> int | None: ...


def of_another_split(data: DataConfig, place: Place, section: str, whose: str, instead: str = "") -> DataConfig:
    """The problems at `place`, which are asked as those of `data` are; of several sources each gives that split and limit.

    Raises BadInput where `data` are trained on these rows: `section` is the place's name in the config, `whose` needs it, and
    `instead` is one more way out.
    """
    values = data.model_dump() | {"split": place.split, "limit": place.limit}
    if place.source:
        values |= {"source": place.source, "sources": ()}
    else:
        values["sources"] = [entry.model_dump(exclude={"split", "limit"}) for entry in data.sources]
    other = validate(DataConfig, values)
    if (source := shared_source(data, other)) is not None:
        ways = [f"{section}.source to another file"]
        if has_splits(source):
            ways.append(f"{section}.split to another split")
        else:
            ways[0] += " (this one has no splits)"
        remedy = f"{', '.join(ways)}, or {instead}" if instead else " or ".join(ways)
        raise BadInput(f"{whose}, and {source} is what is trained on: set {remedy}")
    return other


def shared_source(first: DataConfig, second: DataConfig) -> str | None:
    """A source of which both have the same rows, as `second` names it; None where there is none."""
    return next((part.source for part in second.parts if any(_share_rows(part, other) for other in first.parts)), None)


def has_splits(source: str) -> bool:
    path = Path(source).expanduser()
    if source == BUNDLED:
        return True
    if path.is_dir():
        return (path / "dataset_dict.json").is_file() or not (path / "state.json").is_file()
    return not path.is_file() and path.suffix.lower() not in FILE_ENDINGS


def files_by_split(folder: Path) -> dict[str, list[str]]:
    """Which files of a folder belong to which split, as `datasets` has it. Raises whatever `datasets` raises."""
    import datasets  # seconds

    datasets.disable_progress_bars()  # a command has its own
    files = datasets.load_dataset_builder(str(folder)).config.data_files
    return {str(split): list(paths) for split, paths in (files or {}).items()}


def _share_rows(one: DataConfig, other: DataConfig) -> bool:
    if _named(one) == _named(other):
        return True
    if not (_is_local(one) and _is_local(other)):
        return False
    held = [file for place in {_place(one), _place(other)} for file in _files_under(place)]
    if len(set(held)) == len(held):
        return False  # no file is in both, nor by two names in one: `datasets`, which is slow to load, need not be asked
    return not _files(one).isdisjoint(_files(other))


def _named(part: DataConfig) -> tuple[str, str | None, str | None]:
    return _place(part), None if _is_local(part) else part.subset, part.split if has_splits(part.source) else None


def _is_local(part: DataConfig) -> bool:
    return part.source != BUNDLED and Path(part.source).expanduser().exists()


def _place(part: DataConfig) -> str:
    return str(Path(part.source).expanduser().resolve())


def _files_under(place: str) -> list[str]:
    """A file itself, or where the files of a folder are, whatever links lead there; `datasets` follows no link to a folder."""
    if not os.path.isdir(place):
        return [place]
    return [os.path.realpath(os.path.join(folder, name)) for folder, _, names in os.walk(place) for name in names]


def _files(part: DataConfig) -> set[str]:
    """The files that hold the rows of a local source's split; of what `datasets` saved, the folder that does."""
    place = Path(_place(part))
    if (place / "dataset_dict.json").is_file():
        return {str((place / part.split).resolve())}
    if place.is_file() or not has_splits(part.source):
        return {str(place)}
    try:
        return {os.path.realpath(file) for file in files_by_split(place).get(part.split, ())}
    except Exception:  # datasets raises many kinds; whoever loads it says what is wrong with it
        return set()
