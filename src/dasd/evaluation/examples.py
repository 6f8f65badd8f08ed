"""Which samples should a reader see? A few of every outcome, evenly over the problems, in the order of the files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from dasd.evaluation.readers import OnFile, Run
from dasd.evaluation.summary import Record
from dasd.tasks.base import GradeStatus

MOST = 240  # on one page, over all benchmarks and outcomes


def examples(*runs: Run, most: int = MOST) -> dict[str, Any]:
    """Samples of one run, or of several with the same number side by side, from the benchmarks that all of them have.

    `shown`   `benchmark`, `problem_id`, `problem` and `answer` (null where the folder does not tell), `sample`, `outcome`, and
              for each run in `sides`: `status`, `extracted`, `text`, `tokens`, `finish_reason`, and of the problem how many
              `samples` there are and how many are `correct`
    `counts`  benchmark -> outcome -> how many there are on file
    An outcome is a status of one run; of two it is all, none, gained (only the second is right) or lost (only the first is); of
    more it is all, none or some.
    """
    names = [name for name in runs[0].benchmarks if all(name in run.benchmarks for run in runs)]
    shown, counts = [], {}
    for name in names:
        by_outcome = _by_outcome([run.benchmarks[name] for run in runs])
        counts[name] = {outcome: len(pairs) for outcome, pairs in by_outcome.items()}
        room = max(1, most // (len(names) * len(runs) // min(2, len(runs)) * len(by_outcome)))
        chosen = [(outcome, pair) for outcome, pairs in by_outcome.items() for pair in _evenly(pairs, room)]
        shown += _described(name, [run.benchmarks[name] for run in runs], chosen)
    return {"shown": shown, "counts": counts}


def _by_outcome(files: Sequence[OnFile]) -> dict[str, list[tuple[Record, ...]]]:
    keyed = [{(record["problem_id"], record["sample"]): record for record in file.records} for file in files]
    found: dict[str, list[tuple[Record, ...]]] = defaultdict(list)
    for key in keyed[0]:
        if all(key in records for records in keyed):
            pair = tuple(records[key] for records in keyed)
            found[_outcome(pair)].append(pair)
    return found


def _outcome(pair: Sequence[Record]) -> str:
    if len(pair) == 1:
        return pair[0]["status"]
    right = [record["status"] == GradeStatus.CORRECT for record in pair]
    if all(right) or not any(right):
        return "all" if right[0] else "none"
    return "some" if len(pair) > 2 else "gained" if right[1] else "lost"


def _evenly(pairs: list[tuple[Record, ...]], room: int) -> list[tuple[Record, ...]]:
    step = max(1.0, len(pairs) / room)
    return [pairs[int(index * step)] for index in range(min(room, len(pairs)))]


def _described(name: str, files: Sequence[OnFile], chosen: Sequence[tuple[str, tuple[Record, ...]]]) -> list[Record]:
    asked = files[0].asked
    right = [Counter(r["problem_id"] for r in file.records if r["status"] == GradeStatus.CORRECT) for file in files]
    place = {problem_id: index for index, problem_id in enumerate(files[0].ids)}

    def side(file: OnFile, correct: Counter[str], record: Record) -> Record:
        kept = {key: record[key] for key in ("status", "extracted", "text", "finish_reason")}
        tokens = record.get("num_tokens") if record["token_ids"] is None else len(record["token_ids"])
        return {**kept, "tokens": tokens, "correct": correct[record["problem_id"]], "samples": file.num_samples}

    described = []
    for outcome, pair in sorted(chosen, key=lambda each: (place[each[1][0]["problem_id"]], each[1][0]["sample"])):
        problem_id = pair[0]["problem_id"]
        described.append({
            "benchmark": name,
            "problem_id": problem_id,
            "problem": asked.get(problem_id, {}).get("problem"),
            "answer": asked.get(problem_id, {}).get("answer"),
            "sample": pair[0]["sample"],
            "outcome": outcome,
            "sides": [side(*parts) for parts in zip(files, right, pair, strict=True)],
        })  # fmt: skip
    return described
