"""Which rows does a data section name, and which another split of the same data? Looks at paths alone.

A file has no splits, nor has a single dataset that `datasets` saved: its rows are the same whatever split is asked for.
"""

from __future__ import annotations

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
    rows = {_rows(part) for part in first.parts}
    return next((part.source for part in second.parts if _rows(part) in rows), None)


def has_splits(source: str) -> bool:
    path = Path(source).expanduser()
    if source == BUNDLED:
        return True
    if path.is_dir():
        return (path / "dataset_dict.json").is_file() or not (path / "state.json").is_file()
    return not path.is_file() and path.suffix.lower() not in FILE_ENDINGS


def _rows(part: DataConfig) -> tuple[str, str | None, str | None]:
    place = str(Path(part.source).expanduser().resolve())
    return place, part.subset, part.split if has_splits(part.source) else None
