"""How does the student write on from a place, once by itself and once from each token that is forced there?

All branches of a place draw with the same random numbers, token by token, and the text before it is read once for all of
them. A continuation whose own draw was the forced token is that branch's continuation too, and is not sampled again; what two
contexts force alike is one branch. Differences between branches so have little noise, and where teacher and student agree,
none.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dasd.analysis.probe_file import STUDENT, Record, branch_key
from dasd.analysis.workbench import Workbench
from dasd.progress import Advance, console, track

Place = tuple[int, str, int | None]  # token, who writes on, the first token (None: drawn)


@dataclass
class Branch:
    """One way to write on from token `index` of a rollout, and what came out so far."""

    problem_id: str
    index: int
    writer: str  # the student, or the context of the teacher that writes on
    token: int | None  # the first one; None: the writer draws
    prefix: list[int]  # of the rollout, before the place
    seeds: list[int]
    tails: dict[int, list[int]] = field(default_factory=dict)  # by place in `seeds`, with the first token
    sampled: int = 0  # tokens

    @property
    def done(self) -> bool:
        return len(self.tails) == len(self.seeds)

    def share(self, control: Branch | None) -> None:
        """Takes over the control's continuations that drew this branch's token by themselves."""
        if control is not None and self.writer == STUDENT:
            self.tails |= {i: tail for i, tail in control.tails.items() if tail[0] == self.token}


def places(rollout: Record, readings: Sequence[Record]) -> list[Place]:
    """The branches of one rollout, each once."""
    found: list[Place] = []
    for position in rollout["positions"]:
        index = position["index"]
        found.append((index, STUDENT, None))
        found += [(index, STUDENT, token) for reading in readings for token in reading["forced"][str(index)].values()]
    for revision in rollout["revisions"]:
        index, own = revision["index"], rollout["token_ids"][revision["index"]]
        found += [(index, STUDENT, own), (index, STUDENT, revision["suppressed"])]
        found += [(index, reading["context"], own) for reading in readings]
    return list(dict.fromkeys(found))


def write_branches(bench: Workbench, lines: Sequence[Record], keep: Callable[[Record], None]) -> None:
    """Samples and grades the branches that are not among `lines`; each is kept as soon as its last continuation ends."""
    left = _missing(bench, lines)
    count = bench.config.continuations
    most = sum(len(branch.seeds) for branch in left)
    lengths = {line["problem_id"]: line["length"] for line in lines if line["kind"] == "rollout"}
    expected = sum(count * (lengths[branch.problem_id] - branch.index) for branch in left)
    if left:
        console.print(
            f"At most {most:,} continuations in {len(left):,} branches, about {expected:,} tokens if they are as long as the "
            "rollouts; those that branches share are sampled once",
            soft_wrap=True,
        )
    written, started = 0, time.monotonic()
    with track("Branches", len(left)) as advance:

        def tokens(more: int) -> None:
            nonlocal written
            written += more
            advance(0, note=f"{written:,} tokens, {written / max(time.monotonic() - started, 1e-9):,.0f}/s")

        for group in _groups(left, max(1, bench.config.batch_size // count)):
            controls = {(branch.problem_id, branch.index): branch for branch in group if branch.token is None}
            _continue(bench, list(controls.values()), keep, tokens, advance)
            forced = [branch for branch in group if branch.token is not None]
            for branch in forced:
                branch.share(controls.get((branch.problem_id, branch.index)))
            _continue(bench, forced, keep, tokens, advance)


def _missing(bench: Workbench, lines: Sequence[Record]) -> list[Branch]:
    done = {branch_key(line) for line in lines if line["kind"] == "branch"}
    readings = [line for line in lines if line["kind"] == "reading"]
    found = []
    for rollout in (line for line in lines if line["kind"] == "rollout"):
        name = rollout["problem_id"]
        mine = [reading for reading in readings if reading["problem_id"] == name]
        for index, writer, token in places(rollout, mine):
            if (name, index, writer, token) not in done:
                seeds = [bench.seed(name, index, i) for i in range(bench.config.continuations)]
                found.append(Branch(name, index, writer, token, rollout["token_ids"][:index], seeds))
    return found


def _groups(branches: Sequence[Branch], size: int) -> Iterator[list[Branch]]:
    """Whole problems, at least `size` branches together but in the last."""
    group: list[Branch] = []
    for _, of_problem in itertools.groupby(branches, key=lambda branch: branch.problem_id):
        group += of_problem
        if len(group) >= size:
            yield group
            group = []
    if group:
        yield group


def _continue(
    bench: Workbench, branches: Sequence[Branch], keep: Callable[[Record], None], tokens: Callable[[int], None],
    advance: Advance,
) -> None:  # fmt: skip
    """Samples what is missing of each branch."""

    def finish(branch: Branch) -> None:
        if branch.done:
            keep(_outcomes(bench, branch))
            advance()

    for branch in branches:
        finish(branch)  # all of it was shared
    rows = [(branch, i) for branch in branches for i in range(len(branch.seeds)) if i not in branch.tails]
    rows.sort(key=lambda row: len(row[0].prefix))  # of like length: little padding
    for start in range(0, len(rows), bench.config.batch_size):
        batch = rows[start : start + bench.config.batch_size]
        texts = [(bench.prompt(branch.problem_id, branch.writer) or []) + branch.prefix for branch, _ in batch]
        distinct = {tuple(text): place for place, text in enumerate(dict.fromkeys(map(tuple, texts)))}

        def finished(row: int, ids: list[int], batch: Sequence[tuple[Branch, int]] = batch) -> None:
            branch, i = batch[row]
            branch.tails[i] = ids
            branch.sampled += len(ids)
            finish(branch)

        bench.write(
            [list(text) for text in distinct],
            [distinct[tuple(text)] for text in texts],
            [branch.seeds[i] for branch, i in batch],
            finished,
            tokens,
            first=[branch.token for branch, _ in batch],
            limits=[bench.room - branch.index for branch, _ in batch],
        )


def _outcomes(bench: Workbench, branch: Branch) -> dict[str, Any]:
    grades = bench.grade(branch.problem_id, [branch.prefix + branch.tails[i] for i in range(len(branch.seeds))])
    return {
        "kind": "branch",
        "problem_id": branch.problem_id,
        "index": branch.index,
        "writer": branch.writer,
        "token": branch.token,
        "outcomes": {name: [grade[name] for grade in grades] for name in grades[0]},
        "tokens": branch.sampled,
    }
