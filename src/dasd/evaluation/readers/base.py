"""What is an evaluation, whoever made it? Problems, samples, and figures as sums over problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dasd.evaluation.summary import Record, Sums, metric_sums


@dataclass(frozen=True)
class OnFile:
    """One finished evaluation as it was read.

    identity  `suite`; `settings`, of which `model` has a `path`; `fingerprint`, equal where the same problems were asked
    asked     problem id -> `problem` and `answer`, where they are known
    scores    figures that the samples' maker worked out; None: `metric_sums` of the records
    """

    folder: Path
    identity: Record
    ids: list[str]
    num_samples: int
    records: list[Record]
    asked: Mapping[str, Record]
    scores: Sums | None = None

    @property
    def name(self) -> str:
        return self.identity["suite"]

    @property
    def model(self) -> str:
        return self.identity["settings"]["model"]["path"]

    @cached_property
    def sums(self) -> Sums:
        return metric_sums(self.ids, self.records, self.num_samples) if self.scores is None else self.scores


@dataclass(frozen=True)
class Run:
    """The evaluations of one model, by benchmark."""

    path: Path
    benchmarks: dict[str, OnFile]

    @property
    def model(self) -> str:
        return ", ".join(sorted({evaluation.model for evaluation in self.benchmarks.values()}))
