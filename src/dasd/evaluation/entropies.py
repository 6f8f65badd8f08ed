"""How uncertain was the model at each token of its samples? What `dasd eval --entropies` has put beside them, and its figures.

`entropies.jsonl` holds for each sample the full-vocabulary entropies in nats, as base64 of little-endian float16 (three
figures), 2.7 bytes a token. A sample is found by problem and number; entropies of another length are another sample's and
left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dasd.evaluation.health import POSITION_BINS, count_entropies
from dasd.files import read_lines

ENTROPIES = "entropies.jsonl"
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99)
EDGES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.672, 1.0, 1.5, 2.0, 3.0, 5.0)  # nats; the last bin is open
Record = dict[str, Any]
Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def encode(entropies: ArrayLike) -> str:
    return base64.b64encode(np.asarray(entropies, dtype="<f2").tobytes()).decode()


def decode(text: str) -> NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(float)


def read_entropies(folder: Path) -> dict[tuple[str, int], NDArray[np.float64]]:
    """(problem id, sample) -> (T,) nats."""
    return {(line["problem_id"], line["sample"]): decode(line["entropies"]) for line in read_lines(folder / ENTROPIES)}


def entropy_sums(groups: Sequence[Sequence[Record]]) -> dict[str, Pair]:
    """Figures over the entropies of each problem's samples, (numerators, denominators) by problem; docs/metrics.md."""
    counted = [[count_entropies(record["entropies"]) for record in group] for group in groups]

    def total(value: Any) -> NDArray[np.float64]:
        return np.array([sum(value(each) for each in group) for group in counted], dtype=float)

    tokens, written = total(lambda each: each.tokens), total(lambda each: each.tokens > 0)
    return {
        "entropy_mean": (total(lambda each: each.total), tokens),
        "entropy_top_fifth": (total(lambda each: each.top_fifth if each.tokens else 0.0), written),
        "entropy_end": (total(lambda each: each.tenth_sums[-1]), total(lambda each: each.tenth_tokens[-1])),
        "fork_rate": (total(lambda each: each.forks), tokens),
    }


def entropy_distribution(records: Iterable[Record]) -> Record:
    """Over all tokens: quantiles, shares between EDGES (the last bin open), and the mean of each tenth of the responses."""
    known = [record["entropies"] for record in records]
    values = np.concatenate([*known, np.zeros(0)])
    counts = [count_entropies(each) for each in known]
    sums, sizes = (np.sum([getattr(c, name) for c in counts], axis=0) for name in ("tenth_sums", "tenth_tokens"))
    shares = np.histogram(values, [*EDGES, np.inf])[0] / max(values.size, 1)
    return {
        "tokens": int(values.size),
        "quantiles": {str(q): float(np.quantile(values, q)) if values.size else None for q in QUANTILES},
        "edges": list(EDGES),
        "shares": shares.tolist(),
        "by_tenth": [float(sums[i] / sizes[i]) if counts and sizes[i] else None for i in range(POSITION_BINS)],
    }
