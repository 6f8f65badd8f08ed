"""What is the teacher told of verl's samples? verl's columns as rows of `dasd.teacher.context`, and their prompts.

A privileged column (`solution`, `answer`, `hint`) is looked for as a column of its own, in `extra_info`, and an `answer` in
`reward_model.ground_truth`, where verl's datasets have it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dasd.prompts import Prompt
from dasd.teacher.context import PrivilegedContext, choose_peers

Sample = Mapping[str, Any]  # verl's columns of one rollout; `raw_prompt` are the student's messages


def as_row(sample: Sample, context: PrivilegedContext) -> dict[str, Any]:
    """A sample as a dataset's row: `prompt`, and the context's column. Raises KeyError where the sample has it nowhere."""
    row: dict[str, Any] = {"prompt": list(sample["raw_prompt"])}
    name = context.column
    if name is None:
        return row
    extra, reward = sample.get("extra_info") or {}, sample.get("reward_model") or {}
    places = {name: sample, f"extra_info.{name}": extra} | ({"reward_model.ground_truth": reward} if name == "answer" else {})
    for place, values in places.items():
        key = place.rpartition(".")[2]
        if key in values:
            row[name] = values[key]
            return row
    raise KeyError(f"the teacher needs a column {name!r}: looked for {', '.join(places)} in {', '.join(map(str, sample))}")


def teacher_prompts(
    samples: Sequence[Sample], context: PrivilegedContext, uids: Sequence[Any], texts: Sequence[str], correct: Sequence[bool],
    others: Sequence[Mapping[str, Any]] = (),
) -> list[Prompt | None]:  # fmt: skip
    """The teacher's prompt for each rollout, None where there is no context for it.

    uids, texts, correct    of each rollout: its prompt's id, what it says, whether the verifier accepts it; peers are its uid's
    others                  rows whose context controls may show

    Raises KeyError where the data lacks the context's column.
    """
    rows = [as_row(sample, context) for sample in samples]
    if not context.needs_peers:
        return [context.prompt(row, others=others) for row in rows]
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for index, uid in enumerate(uids):
        groups[uid].append(index)
    prompts: list[Prompt | None] = [None] * len(rows)
    for members in groups.values():
        said, accepted = [texts[i] for i in members], [correct[i] for i in members]
        for place, index in enumerate(members):
            prompts[index] = context.prompt(rows[index], peers=choose_peers(said, accepted, place, range(len(members))))
    return prompts
