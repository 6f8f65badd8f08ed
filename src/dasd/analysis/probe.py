"""Would this teacher help this student, token by token? An intervention study, before anything is trained.

The student writes one rollout for each problem; student and teacher read it (`shift`); at chosen tokens (`positions`) the
student writes on, by itself and from forced tokens (`branches`). What ends is put on file at once (`probe_file`), so that a
killed probe goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dasd.analysis.branches import write_branches
from dasd.analysis.positions import begins_marker, choose_positions, interventions, revision_tokens, suppressed
from dasd.analysis.probe_file import RECORDS, Record, rounded
from dasd.analysis.scores import score_states
from dasd.analysis.shift import compare, teacher_terms
from dasd.analysis.token_classes import token_texts
from dasd.analysis.workbench import Workbench
from dasd.config import ProbeConfig
from dasd.data.problems import load_problems, task_of
from dasd.files import append_lines, repair_lines
from dasd.folders import claim, sole_writer
from dasd.models import load_model
from dasd.progress import track

Keep = Callable[[Record], None]


def run_probe(config: ProbeConfig, output: Path) -> list[Record]:
    """Probes with progress bars and returns the lines of RECORDS. Raises BadInput."""
    problems, task = load_problems(config.data), task_of(config.data)
    model, tokenizer = load_model(config.model)
    claim(output, config)
    path = output / RECORDS
    with sole_writer(path, "wait for it, or give another --output"):
        lines: list[Record] = repair_lines(path)

        def keep(line: Record) -> None:
            append_lines(path, [line])
            lines.append(line)

        bench = Workbench(model, tokenizer, task, problems, config)
        sample_rollouts(bench, lines, keep)
        read_rollouts(bench, lines, keep)
        write_branches(bench, list(lines), keep)
    return lines


def sample_rollouts(bench: Workbench, lines: Sequence[Record], keep: Keep) -> None:
    """One completion of the student for each problem."""
    done = {line["problem_id"] for line in lines if line["kind"] == "rollout"}
    left, size = [name for name in bench.problems if name not in done], bench.config.batch_size
    markers = marker_tokens(bench.tokenizer) if bench.config.revisions and left else torch.zeros(0, dtype=torch.bool)
    written = 0
    with track("Rollouts", len(left)) as advance:

        def tokens(more: int) -> None:
            nonlocal written
            written += more
            advance(0, note=f"{written:,} tokens")

        for start in range(0, len(left), size):
            batch = left[start : start + size]

            def finished(row: int, ids: list[int], batch: list[str] = batch) -> None:
                keep(_rollout(bench, batch[row], ids, markers))
                advance()

            prompts, seeds = [bench.prompt(name) or [] for name in batch], [bench.seed(name, "rollout") for name in batch]
            bench.write(prompts, range(len(batch)), seeds, finished, tokens)


def marker_tokens(tokenizer: Any) -> Tensor:
    """(V,) bool: the tokens of the vocabulary that begin a marker of revision."""
    return torch.tensor([begins_marker(text) for text in token_texts(tokenizer, range(len(tokenizer)))])


def _rollout(bench: Workbench, name: str, ids: list[int], markers: Tensor) -> Record:
    config, states = bench.config, bench.states(name, ids)
    logps, entropies = score_states(bench.model, states, ids, config.temperature)
    seed = bench.seed(name, "positions")
    positions = choose_positions(entropies.tolist(), config.positions, config.rho, seed)
    revisions = revision_tokens(token_texts(bench.tokenizer, ids)) if config.revisions else []
    chosen = sorted(np.random.default_rng(seed).permutation(revisions)[: config.revisions].astype(int).tolist())
    student = bench.head(states[chosen]).log_softmax(-1)
    return {
        "kind": "rollout",
        "problem_id": name,
        "token_ids": ids,
        **bench.grade(name, [ids])[0],
        "student_logps": rounded(logps.tolist()),
        "entropies": rounded(entropies.tolist()),
        "positions": [{**asdict(position), "kinds": list(position.kinds)} for position in positions],
        "revisions": [
            {"index": index, "suppressed": suppressed(row, ids[index], markers)}
            for index, row in zip(chosen, student, strict=True)
        ],
    }


def read_rollouts(bench: Workbench, lines: Sequence[Record], keep: Keep) -> None:
    """Each rollout as the teacher sees it in each context; nothing where a context finds nothing for the problem."""
    done = {(line["problem_id"], line["context"]) for line in lines if line["kind"] == "reading"}
    rollouts = [line for line in lines if line["kind"] == "rollout"]
    with track("Teacher", len(rollouts)) as advance:
        for rollout in rollouts:
            name = rollout["problem_id"]
            left = [context for context in bench.config.contexts if (name, context) not in done]
            told = [context for context in left if bench.prompt(name, context) is not None]
            if told:
                student = bench.states(name, rollout["token_ids"])
                for context in told:
                    keep(_reading(bench, rollout, context, student))
            advance()


def _reading(bench: Workbench, rollout: Record, context: str, student: Tensor) -> Record:
    name, ids = rollout["problem_id"], rollout["token_ids"]
    teacher = bench.states(name, ids, context)
    found = compare(bench.head, student, teacher, torch.tensor(ids, device=student.device))
    logps, entropies = (torch.tensor(rollout[key]) for key in ("student_logps", "entropies"))
    terms = teacher_terms(logps, found["teacher_logps"].cpu(), entropies, bench.model.dtype)
    index = [position["index"] for position in rollout["positions"]]
    pairs = zip(bench.head(student[index]).log_softmax(-1), bench.head(teacher[index]).log_softmax(-1), strict=True)
    return {
        "kind": "reading",
        "problem_id": name,
        "context": context,
        **{key: rounded(row.tolist()) for key, row in found.items()},
        "terms": {method: rounded(row.tolist()) for method, row in terms.items()},
        "forced": {str(place): interventions(*pair) for place, pair in zip(index, pairs, strict=True)},
    }
