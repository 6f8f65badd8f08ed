"""Where do rows come from? A local file, a folder of files, or the hub; always as the table that `files` makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dasd.config import BadInput, DataConfig
from dasd.config.splits import FILE_ENDINGS, files_by_split
from dasd.data.files import READERS, Table, arrow_table, join, read_file
from dasd.hub import check_hub


def load_rows(config: DataConfig) -> Table:
    """The rows of one source's split. Raises BadInput."""
    path = Path(config.source).expanduser()
    if path.is_file():
        if path.suffix not in READERS:
            raise BadInput(f"data.source {config.source}: unknown file type {path.suffix!r}; use {', '.join(READERS)}")
        return read_file(path)
    if path.is_dir():
        return _folder(path, config)
    if path.suffix.lower() in FILE_ENDINGS or config.source.startswith((".", "/", "~")) or config.source.count("/") > 1:
        raise BadInput(f"data.source {config.source} does not exist")
    return _hub(config)


def _folder(path: Path, config: DataConfig) -> Table:
    """Files of a folder, which file belongs to which split as `datasets` has it, or a dataset that it saved."""
    import datasets

    datasets.disable_progress_bars()  # a command has its own
    try:
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            saved = datasets.load_from_disk(str(path))
            splits = saved if isinstance(saved, dict) else {config.split: saved}
            return _arrow(_split_of(splits, config))
        files = files_by_split(path)
    except BadInput:
        raise
    except Exception as error:  # datasets raises many kinds
        raise _unusable(config, error) from None
    paths = [Path(file) for file in _split_of(files, config)]
    unknown = next((file for file in paths if file.suffix not in READERS), None)
    if unknown is not None:
        raise BadInput(f"data.source {config.source}: unknown file type of {unknown.name}; use {', '.join(READERS)}")
    return join([read_file(file) for file in paths])


def _hub(config: DataConfig) -> Table:
    import datasets

    datasets.disable_progress_bars()
    try:
        check_hub("dataset", config.source, config.revision)
    except BadInput as error:
        raise BadInput(f"data.source {config.source}: {error}") from None
    try:
        loaded = datasets.load_dataset(config.source, config.subset, revision=config.revision)
    except Exception as error:  # a subset that is not there, no network, a file that is cut off
        raise _unusable(config, error) from None
    return _arrow(_split_of(loaded, config))


def _split_of(splits: Any, config: DataConfig) -> Any:
    names = {str(name): name for name in splits}
    if config.split not in names:
        raise BadInput(f"{config.source} has no split {config.split!r}; it has {', '.join(names)}")
    return splits[names[config.split]]


def _arrow(dataset: Any) -> Table:
    return arrow_table(dataset.with_format("arrow")[:])


def _unusable(config: DataConfig, error: Exception) -> BadInput:
    reason = " ".join(str(error).split())[:300]
    return BadInput(f"data.source {config.source} cannot be loaded: {type(error).__name__}: {reason}")
