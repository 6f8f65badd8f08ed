"""Which split does a problem belong to? A hash of its text decides: the same whatever the seed, so splits never overlap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def bucket(text: str, count: int = 100) -> int:
    """A number below `count` that a text has for ever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % count


def split_of(text: str, shares: Mapping[str, int]) -> str:
    """The split of a text; `shares` are percent and add up to 100."""
    place = bucket(text)
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("split shares add up to 100")
