"""Did training change anything? A fingerprint of weights, bit for bit, that costs one reading and next to no memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

CHUNK = 2**22  # entries of a weight read at once
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(weights: Iterable[Tensor]) -> list[Tensor]:
    """For each weight two vectors: the sums of its bits, read as integers, along rows and along columns.

    Equal weights have equal ones. Of two that differ in one entry the vectors differ; that many changes cancel in every row and
    in every column, to the last bit, is not seen in training.
    """
    sums = []
    for weight in weights:
        bits = weight.detach().view(_INTEGERS[weight.element_size()])
        table = bits.reshape(-1, bits.shape[-1]) if bits.dim() > 1 else bits.reshape(1, -1)
        parts = table.split(max(1, CHUNK // max(1, table.shape[1])))  # torch adds up a copy, eight bytes an entry
        sums.append(torch.cat([part.sum(1, dtype=torch.int64) for part in parts]).cpu())
        sums.append(torch.stack([part.sum(0, dtype=torch.int64) for part in parts]).sum(0).cpu())
    return sums


def differ(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two fingerprints of the same model are of different weights."""
    return any(not torch.equal(one, other) for one, other in zip(first, second, strict=True))
