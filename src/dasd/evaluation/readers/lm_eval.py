"""What has lm-eval written? `samples_TASK_DATE.jsonl` (`--log_samples`), and `results_DATE.json` beside it for the settings.

One line a document and filter: `doc_id`, `doc_hash`, `filter`, `metrics` and each metric's value, `resps` (what the model
wrote, or log-likelihoods of choices). Read as lm-eval 0.4 writes it; in earlier versions without `metrics` every number is one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dasd.config import BadInput
from dasd.evaluation.readers.base import OnFile
from dasd.evaluation.readers.scores import Scored, evaluation
from dasd.evaluation.summary import Record
from dasd.files import read_lines

_NAME = re.compile(r"samples_(?P<task>.+?)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
_NOT_METRICS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}


def finds(path: Path) -> list[Path]:
    """The newest samples of each task in each folder."""
    listed = [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl"))
    newest: dict[tuple[Path, str], Path] = {}
    for place in listed:
        if (named := _NAME.fullmatch(place.name)) is not None:
            newest[place.parent, named["task"]] = place  # dates sort as text
    return list(newest.values())


def read(place: Path) -> OnFile:
    """Raises BadInput where the file is none of lm-eval's."""
    named = _NAME.fullmatch(place.name)
    assert named is not None
    by_document: dict[str, list[Record]] = {}
    records = read_lines(place)
    try:
        for line in records:
            by_document.setdefault(str(line["doc_id"]), []).append(line)
        filters = {line["filter"] for lines in by_document.values() for line in lines}
        samples = [_scored(document, lines, len(filters) > 1) for document, lines in by_document.items()]
        asked = sorted(
            (document, lines[0].get("doc_hash") or json.dumps(lines[0]["doc"])) for document, lines in by_document.items()
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{place} is not what lm-eval writes with --log_samples: {type(error).__name__}: {error}") from None
    if not samples:
        raise BadInput(f"{place} holds no sample")
    return evaluation(place, named["task"], _settings(place, named["task"], named["date"], by_document), samples, asked)


def _scored(document: str, lines: list[Record], several: bool) -> Scored:
    first, scores = lines[0], {}
    for line in lines:
        for metric in line.get("metrics") or [name for name in line if name not in _NOT_METRICS and not name.endswith("_hash")]:
            if (score := _points(line[metric])) is not None:
                scores[f"{metric},{line['filter']}" if several else metric] = score
    written = first["resps"][0][0] if isinstance(first["resps"][0], list) else first["resps"][0]
    text = written if isinstance(written, str) else None  # of choices there are log-likelihoods
    answer = first["filtered_resps"][0] if text is not None else None
    question = next((value for value in first["doc"].values() if isinstance(value, str)), None)
    argument: Record = next(iter(first["arguments"].values()), {}) if isinstance(first["arguments"], dict) else {}
    return Scored(
        document, scores, text, answer if isinstance(answer, str) else None, problem=argument.get("arg_0") or question,
        gold=str(first["target"]),
    )  # fmt: skip


def _points(value: Any) -> tuple[float, float] | None:
    """Won and possible: a number counts once, a list each of its parts; None for what is no score."""
    if isinstance(value, bool | int | float):
        return float(value), 1.0
    if isinstance(value, list) and value and all(isinstance(part, bool | int | float) for part in value):
        return float(sum(value)), float(len(value))
    return None


def _settings(place: Path, task: str, date: str, by_document: dict[str, list[Record]]) -> Record:
    """What decides the samples, as far as `results_DATE.json` tells."""
    beside = place.with_name(f"results_{date}.json")
    results = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    config = results.get("config") or {}
    arguments: Any = next(iter(next(iter(by_document.values()))[0]["arguments"].values()), {})
    generation = arguments.get("arg_1") if isinstance(arguments, dict) else None
    return {
        "model": {"path": str(results.get("model_name") or place.parent.name)},
        "num_fewshot": (results.get("n-shot") or {}).get(task),
        "generation": generation if isinstance(generation, dict) else None,
        "chat_template": results.get("chat_template_sha"),
        "limit": config.get("limit"),
    }
