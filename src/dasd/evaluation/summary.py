"""Which figures does a finished evaluation have, and how does another one differ from it on the same problems?

Records are the lines of `samples.jsonl`. Every figure is a ratio of sums over problems, in the order of their ids.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dasd.evaluation.estimators import (
    Estimate,
    differences_of_ratios,
    majority_at_k,
    pass_at_k,
    ratios_of_sums,
)
from dasd.evaluation.health import BACKTRACKS, EPISTEMIC_MARKERS, count_phrases
from dasd.tasks.base import GradeStatus

Record = dict[str, Any]
Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # figure -> (numerators, denominators), one entry a problem


def summarize(ids: Sequence[str], records: Iterable[Record], num_samples: int) -> Record:
    """Every figure of finished samples, with 95 % intervals clustered by problem under `ci95`."""
    records = list(records)
    figures = summarize_sums(metric_sums(ids, records, num_samples), num_samples)
    return {**figures, "statuses": dict(Counter(record["status"] for record in records))}


def summarize_sums(sums: Sums, num_samples: int) -> Record:
    estimates = ratios_of_sums(sums)
    shown = {name: estimates[name] for name in headline(estimates, num_samples)}
    return {
        "num_problems": len(next(iter(sums.values()))[0]),
        "num_samples": num_samples,
        **{name: estimate.mean for name, estimate in shown.items()},
        "ci95": {name: estimate.ci95 for name, estimate in shown.items()},
        **curve(estimates, "pass_at_"),
        **curve(estimates, "maj_at_"),
    }


def compare(ids: Sequence[str], before: Iterable[Record], after: Iterable[Record], num_samples: int) -> dict[str, Estimate]:
    """`after` minus `before` for every figure, paired by problem."""
    first, second = (metric_sums(ids, records, num_samples) for records in (before, after))
    differences = differences_of_ratios(first, second)
    return {name: differences[name] for name in headline(differences, num_samples)}


def metric_sums(ids: Sequence[str], records: Iterable[Record], num_samples: int) -> Sums:
    """Numerators and denominators of every figure, one entry a problem, in the order of `ids`.

    avg_at_N share of samples that are right; pass_at_k unbiased, for every k up to N; maj_at_k share of the most frequent
    answer that is right, for powers of two and N; step_accuracy right over checkable steps; epistemic_per_response,
    epistemic_per_100_words, backtracks_per_response counts in the text; mean_length in tokens, NaN where they are not known;
    truncated share of samples that ran out of tokens; claims_true share of the samples with an answer that are right.
    """
    by_problem: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_problem[record["problem_id"]].append(record)
    groups = [by_problem[name] for name in ids]

    def total(value: Callable[[Record], float]) -> np.ndarray:
        return np.array([sum(map(value, group)) for group in groups], dtype=float)

    samples = total(lambda r: 1)
    correct = total(lambda r: r["status"] == GradeStatus.CORRECT)
    answered = total(lambda r: r["status"] in (GradeStatus.CORRECT, GradeStatus.INCORRECT))
    epistemic = total(lambda r: count_phrases(r["text"], EPISTEMIC_MARKERS))
    ones = np.ones(len(groups))
    ballots = [votes(group) for group in groups]
    return {
        f"avg_at_{num_samples}": (correct, samples),
        **{f"pass_at_{k}": (pass_at_k(samples, correct, k), ones) for k in range(1, num_samples + 1)},
        **{
            f"maj_at_{k}": (np.array([majority_at_k(*ballot, k) for ballot in ballots]), ones)
            for k in range(1, num_samples + 1)
            if _is_shown(k, num_samples)
        },
        "step_accuracy": (total(lambda r: r["steps_right"]), total(lambda r: r["steps_checked"])),
        "epistemic_per_response": (epistemic, samples),
        "epistemic_per_100_words": (100 * epistemic, total(lambda r: len(r["text"].split()))),
        "mean_length": (total(lambda r: np.nan if r["token_ids"] is None else len(r["token_ids"])), samples),
        "backtracks_per_response": (total(lambda r: count_phrases(r["text"], BACKTRACKS)), samples),
        "truncated": (total(lambda r: r["finish_reason"] == "length"), samples),
        "claims_true": (correct, answered),
    }


def votes(records: Iterable[Record]) -> tuple[list[tuple[int, int]], int]:
    """For each answer of one problem: how often it was given and judged right; and how many samples gave none."""
    given: Counter[str] = Counter()
    right: Counter[str] = Counter()
    silent = 0
    for record in records:
        if record["extracted"] is None:
            silent += 1
        else:
            given[record["extracted"]] += 1
            right[record["extracted"]] += record["status"] == GradeStatus.CORRECT
    return [(count, right[answer]) for answer, count in given.items()], silent


def headline(names: Iterable[str], num_samples: int) -> list[str]:
    """The figures without the points that only a curve needs."""
    return [n for n in names if not n.startswith("pass_at_") or _is_shown(int(n.removeprefix("pass_at_")), num_samples)]


def curve(estimates: dict[str, Estimate], prefix: str) -> Record:
    """The figures over k as `{prefix}k` and `{prefix}k_ci95`, with k as text."""
    points = {name.removeprefix(prefix): estimate for name, estimate in estimates.items() if name.startswith(prefix)}
    return {
        f"{prefix}k": {k: estimate.mean for k, estimate in points.items()},
        f"{prefix}k_ci95": {k: estimate.ci95 for k, estimate in points.items()},
    }


def _is_shown(k: int, num_samples: int) -> bool:
    return k & (k - 1) == 0 or k == num_samples
