"""How often does each problem occur in training where several sources have weights? Deterministic, by the seed of the data."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from dasd.config import DataConfig
from dasd.data.problems import source_names
from dasd.tasks.base import Problem

T = TypeVar("T")


def describe(problems: Sequence[Problem], config: DataConfig) -> list[dict[str, Any]]:
    """What each source was, for the record of a run: where from, how many problems, how often they occur, and their hash."""
    drawn, weights = Counter(problem.id for problem in mixed(problems, config)), [entry.weight for entry in config.sources]
    record = []
    for group, part, weight in zip(_groups(problems, config), config.parts, weights or [None], strict=True):
        texts = "\0".join(f"{json.dumps(p.messages)}\1{p.answer}\1{p.solution}\1{p.hint}" for p in group)
        record.append(
            part.model_dump(include={"source", "split", "subset", "revision"})
            | {"problems": len(group), "weight": weight, "occurrences": sum(drawn[p.id] for p in group)}
            | {"sha256": hashlib.sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()}
        )
    return record


def mixed(problems: Sequence[Problem], config: DataConfig) -> list[Problem]:
    """The problems of all sources as often as the weights say; each once, in their order, where there are no weights."""
    weights = [entry.weight for entry in config.sources if entry.weight is not None]
    if not weights:
        return list(problems)
    return mix(_groups(problems, config), weights, config.seed)


def _groups(problems: Sequence[Problem], config: DataConfig) -> list[list[Problem]]:
    names = source_names(config)
    return [[p for p in problems if p.id.startswith(f"{name}/") or len(names) == 1] for name in names]


def mix(groups: Sequence[Sequence[T]], weights: Sequence[float], seed: int) -> list[T]:
    """As many entries as the groups have together, group i's share of them `weights[i] / sum(weights)`, shuffled.

    Within a group each entry occurs floor or ceil of its mean number of times; which ones occur once more is drawn by the seed.
    """
    generator, mixture = random.Random(seed), list[T]()
    for group, count in zip(groups, shares(sum(map(len, groups)), weights), strict=True):
        whole, rest = divmod(count, len(group))
        mixture += [*list(group) * whole, *generator.sample(list(group), rest)]
    generator.shuffle(mixture)
    return mixture


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """`total` divided in these proportions: whole numbers of 1 or more that sum to it, by largest remainder."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [max(1, int(value)) for value in exact]
    order = sorted(range(len(weights)), key=lambda i: exact[i] - counts[i], reverse=True)
    for index in order[: max(0, total - sum(counts))]:
        counts[index] += 1
    while sum(counts) > total:  # the least ones were given more than their share
        counts[counts.index(max(counts))] -= 1
    return counts
