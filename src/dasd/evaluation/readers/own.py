"""What has `dasd eval` written? `eval.json`, `summary.json` and the samples of each benchmark."""

from __future__ import annotations

from pathlib import Path

from dasd.config import BadInput
from dasd.evaluation.folder import IDENTITY, PROBLEMS, SUMMARY, read_identity, read_samples
from dasd.evaluation.readers.base import OnFile
from dasd.files import read_json, read_lines


def finds(path: Path) -> list[Path]:
    return sorted(path.rglob(IDENTITY)) if path.is_dir() else []


def read(place: Path) -> OnFile:
    """Raises BadInput where the evaluation is unfinished or from another version."""
    folder, facts = place.parent, read_identity(place)
    if "identity" not in facts:
        raise BadInput(f"{place} was not written by this version of dasd eval: evaluate again into a new folder")
    summary_path, ids, found = folder / SUMMARY, facts["problems"], read_samples(folder)
    if not summary_path.exists():
        needed = len(ids) * facts["num_samples"]
        raise BadInput(f"{folder} is not finished ({len(found)} of {needed} samples): give its dasd eval command again")
    num_samples = read_json(summary_path)["num_samples"]
    records = [found[name, sample] for name in ids for sample in range(num_samples) if (name, sample) in found]
    if len(records) < len(ids) * num_samples:
        raise BadInput(f"{folder} has lost samples since its {SUMMARY} was written: give its dasd eval command again")
    asked = {row["id"]: row for row in read_lines(folder / PROBLEMS)}
    return OnFile(folder, facts["identity"], ids, num_samples, records, asked)
