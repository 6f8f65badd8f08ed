"""What is on file of a probe: `probe.jsonl`, one line for each rollout, each reading of it by a teacher, and each branch.

Lines come in the order in which the work ends, so that a kill costs what was under way and nothing else; `assemble` makes
records of them. Imports no torch.

    rollout   problem_id, token_ids, correct, steps_right, steps_checked, epistemic, length, student_logps, entropies,
              positions (index, kinds, rank, entropy), revisions (index, suppressed token)
    reading   problem_id, context, teacher_logps, tv, slope, terms (method -> list), forced (index -> conform, deviate)
    branch    problem_id, index, writer ("student", or the context of the teacher that writes on), token (the first one;
              null: the writer draws), outcomes (a list for each measure, one entry a continuation), tokens (how many were
              sampled)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Record = dict[str, Any]
RECORDS = "probe.jsonl"
STUDENT = "student"
ACTIONS = ("conform", "deviate")


def branch_key(line: Record) -> tuple[str, int, str, int | None]:
    return line["problem_id"], line["index"], line["writer"], line["token"]


def rounded(values: Sequence[float]) -> list[float]:
    """Six figures are more than float32 forward passes agree on."""
    return [float(f"{value:.6g}") for value in values]


def assemble(lines: Iterable[Record], contexts: Sequence[str]) -> list[Record]:
    """One record for each rollout, in the order of the rollouts on file. What is not there yet is left out.

    A position has `control` (outcomes of the student's own draws), and by context `forced` and `outcomes` of each action; a
    revision has `preserve`, `suppress` and by context `teacher`. `readings` holds each context's tokens.
    """
    rollouts: dict[str, Record] = {}
    readings: dict[tuple[str, str], Record] = {}
    branches: dict[tuple[str, int, str, int | None], Record] = {}
    for line in lines:
        if line["kind"] == "rollout":
            rollouts[line["problem_id"]] = line
        elif line["kind"] == "reading":
            readings[line["problem_id"], line["context"]] = line
        else:
            branches[branch_key(line)] = line["outcomes"]
    return [
        _record(rollout, {c: readings[n, c] for c in contexts if (n, c) in readings}, branches)
        for n, rollout in rollouts.items()
    ]


def _record(rollout: Record, readings: dict[str, Record], branches: dict[Any, Record]) -> Record:
    name = rollout["problem_id"]

    def outcomes(index: int, token: int | None, writer: str = STUDENT) -> Record | None:
        return branches.get((name, index, writer, token))

    positions = []
    for position in rollout["positions"]:
        index, by_context = position["index"], {}
        for context, reading in readings.items():
            forced = reading["forced"].get(str(index))
            done = {a: outcomes(index, forced[a]) for a in ACTIONS} if forced else {}
            if forced and all(done.values()):
                by_context[context] = {"forced": forced, "outcomes": done}
        control = outcomes(index, None)
        if control is not None:
            positions.append({**position, "control": control, "contexts": by_context})
    revisions = []
    for revision in rollout["revisions"]:
        index, own = revision["index"], rollout["token_ids"][revision["index"]]
        kept, suppressed = outcomes(index, own), outcomes(index, revision["suppressed"])
        if kept is not None and suppressed is not None:
            taught = {c: told for c in readings if (told := outcomes(index, own, writer=c)) is not None}
            revisions.append({**revision, "preserve": kept, "suppress": suppressed, "teacher": taught})
    return {**rollout, "readings": readings, "positions": positions, "revisions": revisions}
