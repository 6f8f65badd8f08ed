"""What has inspect_ai written? A log of one task and model, as `.eval` (a zip) or `.json`.

A zip holds `header.json` and `samples/ID_epoch_N.json`; the JSON log holds the same in one object. A sample has `id`, `epoch`
and `scores`: scorer -> `value`, which is C, I, P or N, a number, a bool, or a mapping or list of them.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

from dasd.config import BadInput
from dasd.evaluation.readers.base import OnFile
from dasd.evaluation.readers.scores import Scored, evaluation
from dasd.evaluation.summary import Record

LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # correct, incorrect, partial, no answer
ZSTANDARD = 93  # the compression of a zip's member


def finds(path: Path) -> list[Path]:
    listed = [path] if path.is_file() else sorted(path.rglob("*"))
    return [place for place in listed if place.suffix == ".eval" or (place.suffix == ".json" and _is_log(place))]


def read(place: Path) -> OnFile:
    """Raises BadInput for a broken or unfinished log."""
    try:
        header, samples = _from_zip(place) if place.suffix == ".eval" else _from_json(place)
        if header["status"] != "success":
            raise BadInput(f"{place} is not finished (status {header['status']}): give it to inspect eval-retry")
        task, config = header["eval"], header["eval"].get("model_generate_config") or {}
        ordered = sorted(samples, key=lambda sample: sample["epoch"])
        settings = {"model": {"path": task["model"]}, "task_args": task.get("task_args_passed") or {}, **config}
        asked = sorted((str(sample["id"]), _text(sample["input"]), repr(sample["target"])) for sample in samples)
        return evaluation(place, task["task"], settings, [_scored(sample) for sample in ordered], dict.fromkeys(asked))
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BadInput(f"{place} is no log of inspect_ai that can be read: {type(error).__name__}: {error}") from None


def _is_log(place: Path) -> bool:
    """By its first bytes, so that other JSON files are not read whole."""
    with place.open("rb") as file:
        start = b"".join(file.read(400).split())
    return start.startswith(b'{"version":') and b'"status":' in start and b'"eval":{' in start


def _from_json(place: Path) -> tuple[Record, list[Record]]:
    log = json.loads(place.read_text(encoding="utf-8"))
    return log, log.get("samples") or []


def _from_zip(place: Path) -> tuple[Record, list[Record]]:
    with zipfile.ZipFile(place) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if "header.json" not in members:
            raise BadInput(f"{place} is not finished (no header.json): give it to inspect eval-retry")
        names = [name for name in members if name.startswith("samples/") and name.endswith(".json")]
        read = [json.loads(_member(archive, members[name], place)) for name in ("header.json", *names)]
    return read[0], read[1:]


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> bytes:
    """A member's content; zstandard, which inspect_ai uses, is not in Python's zipfile before 3.14."""
    if info.compress_type != ZSTANDARD:
        return archive.read(info)
    try:
        import zstandard
    except ImportError:
        raise BadInput(
            f"{place} is compressed with zstandard: pip install zstandard, or convert it with inspect log convert --to json"
        ) from None
    assert archive.fp is not None
    archive.fp.seek(info.header_offset)
    name, extra = struct.unpack("<26x2H", archive.fp.read(30))  # lengths of what stands between header and content
    archive.fp.seek(name + extra, 1)
    return zstandard.ZstdDecompressor().decompressobj().decompress(archive.fp.read(info.compress_size))


def _scored(sample: Record) -> Scored:
    scores: dict[str, tuple[float, float]] = {}
    for name, score in (sample.get("scores") or {}).items():
        scores |= _points(name, score["value"])
    output = sample.get("output") or {}
    choice: Record = next(iter(output.get("choices") or []), {})
    text = output.get("completion") or _text(choice.get("message", {}).get("content") or "")
    attached = sample.get("attachments") or {}
    answers = [score.get("answer") for score in (sample.get("scores") or {}).values()]
    return Scored(
        str(sample["id"]), scores, attached.get(text.removeprefix("attachment://"), text),
        next((answer for answer in answers if isinstance(answer, str)), None), (output.get("usage") or {}).get("output_tokens"),
        {"max_tokens": True, "model_length": True, "stop": False}.get(choice.get("stop_reason", "")), _text(sample["input"]),
        _text(sample["target"]),
    )  # fmt: skip


def _points(name: str, value: Any) -> dict[str, tuple[float, float]]:
    """Won and possible points of a score and of its parts."""
    if isinstance(value, dict) and isinstance(parts := value.get("num_instructions"), int):  # IFEval: so many were followed
        counted = {key: won for key, won in value.items() if key.startswith("inst_level")}
        whole = _points(name, {key: won for key, won in value.items() if key != "num_instructions" and key not in counted})
        return whole | {f"{name}/{key}": (float(won), float(parts)) for key, won in counted.items()}
    if isinstance(value, dict):
        return {key: points for part, inner in value.items() for key, points in _points(f"{name}/{part}", inner).items()}
    if isinstance(value, list):
        parts = [points for inner in value for points in _points(name, inner).values()]
        return {name: (sum(won for won, _ in parts), sum(possible for _, possible in parts))} if parts else {}
    number = LETTERS.get(value) if isinstance(value, str) else float(value) if isinstance(value, bool | int | float) else None
    return {} if number is None or not math.isfinite(number) else {name: (number, 1.0)}


def _text(value: Any) -> str:
    """Text of a string, of content parts, or of a conversation."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        return _text(value.get("text") or value.get("content") or "")
    return str(value)
