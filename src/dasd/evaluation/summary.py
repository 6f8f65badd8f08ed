"""Which figures does a finished evaluation have, and how does another one differ from it on the same problems?

Records are the lines of `samples.jsonl`. Every figure is a ratio of sums over problems, in the order of
their ids; `dasd.report.data.metrics` says what each is called.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dasd.evaluation.entropies import entropy_sums
from dasd.evaluation.estimators import (
    Estimate,
    differences_of_ratios,
    majority_at_k,
    pass_at_k,
    ratios_of_sums,
    swap_p_value,
)
from dasd.evaluation.health import (
    BACKTRACKS,
    EPISTEMIC_MARKERS,
    LEAKAGE_PHRASES,
    count_phrases,
    count_trigrams,
    find_loop,
)
from dasd.evaluation.revisions import find_revisions
from dasd.evaluation.verdicts import verdict_sums
from dasd.tasks.base import GradeStatus

Record = dict[str, Any]
Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # figure -> (numerators, denominators), one entry a problem


def summarize(sums: Sums, num_samples: int) -> Record:
    """Every figure of finished samples, with 95 % intervals clustered by problem under `ci95`."""
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


def compare(before: Sums, after: Sums) -> Record:
    """`after` minus `before` for every figure, those over each k too, paired by problem: `mean`, `ci95` and `p_value`."""
    return {
        name: {"mean": difference.mean, "ci95": difference.ci95, "p_value": swap_p_value([before[name]], [after[name]])}
        for name, difference in differences_of_ratios(before, after).items()
    }


def metric_sums(ids: Sequence[str], records: Iterable[Record], num_samples: int) -> Sums:
    """Numerators and denominators of every figure, one entry a problem, in the order of `ids`. Formulas: docs/metrics.md.

    Figures over text and tokens are counted once a record. `mean_length` is NaN where token ids are not known; the number of
    distinct solutions is left out where the task cannot tell them apart.
    """
    by_problem: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_problem[record["problem_id"]].append(record)
    groups = [by_problem[name] for name in ids]
    counted = [[_counts(record) for record in group] for group in groups]
    total = {name: np.array([sum(c[name] for c in group) for group in counted], dtype=float) for name in COUNTED}
    samples, correct, ones = total["samples"], total["correct"], np.ones(len(groups))
    ballots = [votes(group) for group in groups]
    sums = {
        f"avg_at_{num_samples}": (correct, samples),
        **{f"pass_at_{k}": (pass_at_k(samples, correct, k), ones) for k in range(1, num_samples + 1)},
        **{
            f"maj_at_{k}": (np.array([majority_at_k(*ballot, k) for ballot in ballots]), ones)
            for k in range(1, num_samples + 1)
            if _is_shown(k, num_samples)
        },
        "step_accuracy": (total["steps_right"], total["steps_checked"]),
        "correct_step_rate": (total["step_share"], total["with_steps"]),
        "no_wrong_step": (total["flawless"], total["with_steps"]),
        "first_wrong_step": (total["first_wrong"], total["with_steps"] - total["flawless"]),
        "epistemic_per_response": (total["epistemic"], samples),
        "epistemic_per_100_words": (100 * total["epistemic"], total["words"]),
        "epistemic_substrings_per_response": (total["epistemic_substrings"], samples),
        "mean_length": (total["tokens"], samples),
        "backtracks_per_response": (total["backtracks"], samples),
        "revision_rate": (total["revised"], samples),
        "truncated": (total["truncated"], samples),
        "loops": (total["loops"], samples),
        "leakage": (total["leakage"], samples),
        "no_answer": (total["no_answer"], total["graded"]),
        "undecided": (total["undecided"], total["graded"]),
        "claims_true": (correct, correct + total["incorrect"]),
    }
    if groups:
        trigrams = np.array([count_trigrams(record["text"] for record in group) for group in groups], dtype=float)
        sums[f"distinct_trigrams_at_{num_samples}"] = _mean_of_ratios(*trigrams.T)
    if any("score" in record for group in groups for record in group):  # no answer, no credit; failures are left out
        credit = [sum(record.get("score", 0.0) for record in group) for group in groups]
        sums["partial_credit"] = (np.array(credit), total["graded"])
    if groups and all("solution_key" in record for group in groups for record in group):
        ways = [len({record["solution_key"] for record in group} - {None}) for group in groups]
        sums[f"distinct_at_{num_samples}"] = (np.array(ways, dtype=float), ones)
    if groups and all("entropies" in record for group in groups for record in group):
        sums |= entropy_sums(groups)
    if any("verdict" in record for group in groups for record in group):
        sums |= verdict_sums(groups)
    return sums


COUNTED = (
    "samples", "correct", "incorrect", "no_answer", "undecided", "graded", "steps_right", "steps_checked", "with_steps",
    "step_share", "flawless", "first_wrong", "epistemic", "epistemic_substrings", "backtracks", "revised", "leakage", "words",
    "tokens", "truncated", "loops",
)  # fmt: skip


def _counts(record: Record) -> dict[str, float]:
    """What one sample adds to each of COUNTED."""
    text, tokens, status = record["text"], record["token_ids"], record["status"]
    words = text.split()
    right, checked = record["steps_right"], record["steps_checked"]
    return {
        "samples": 1,
        **{name: status == name for name in ("correct", "incorrect", "no_answer", "undecided")},
        "graded": status != GradeStatus.GRADER_ERROR,
        "steps_right": right,
        "steps_checked": checked,
        "with_steps": checked > 0,
        "step_share": right / checked if checked else 0.0,
        "flawless": 0 < checked == right,
        # NaN where a wrong step's place is not on file
        "first_wrong": 0 if right == checked else np.nan if (place := record.get("first_wrong_step")) is None else place,
        "epistemic": count_phrases(text, EPISTEMIC_MARKERS),
        "epistemic_substrings": count_phrases(text, EPISTEMIC_MARKERS, "substrings"),
        "backtracks": count_phrases(text, BACKTRACKS),
        "revised": bool(find_revisions(text)),
        "leakage": count_phrases(text, LEAKAGE_PHRASES) > 0,
        "words": len(words),
        "tokens": np.nan if tokens is None else len(tokens),
        "truncated": record["finish_reason"] == "length",
        "loops": find_loop(words if tokens is None else tokens) is not None,
    }


def _mean_of_ratios(tops: np.ndarray, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators of the mean of each problem's own ratio; a problem without one is left out."""
    known = bottoms > 0
    return np.divide(tops, bottoms, out=np.zeros_like(tops), where=known), known.astype(float)


def votes(records: Iterable[Record]) -> tuple[list[tuple[int, int]], int]:
    """For each answer of one problem: how often it was given and judged right; and how many samples gave none.

    An answer is the class that `record["answer"]` names (`dasd.evaluation.answers`), without it the extracted text.
    """
    given: Counter[str] = Counter()
    right: Counter[str] = Counter()
    silent = 0
    for record in records:
        extracted: str | None = record["extracted"]
        if extracted is None:
            silent += 1
            continue
        answer: str = record.get("answer") or extracted
        given[answer] += 1
        right[answer] += record["status"] == GradeStatus.CORRECT
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
