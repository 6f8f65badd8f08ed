"""On which kind of token does the teacher press: digits, operators, words, words of doubt, or something else?

Every token of the vocabulary is put into one class by its own text, once. Text alone decides: a word that a tokenizer cuts into
pieces counts as pieces ("hmm" as "h" and "mm" is two words, not one of doubt).

    digits      12, 3.5
    operators   + - * / = < ^ and other mathematical signs
    epistemic   the words of doubt of `evaluation.health`: wait, perhaps, check
    words       whatever else has a letter
    other       white space, punctuation, special tokens
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dasd.credit import Credit, TokenSignals
from dasd.evaluation.health import EPISTEMIC_MARKERS

CLASSES = ("digits", "operators", "epistemic", "words", "other")


def classify(text: str) -> str:
    """The class of one token's text."""
    word = text.strip()
    if re.fullmatch(r"\d[\d.,]*", word):
        return "digits"
    if word and all(unicodedata.category(sign) == "Sm" or sign in "-*/^%" for sign in word):
        return "operators"
    if word.strip(".,:;!?()\"'").lower() in EPISTEMIC_MARKERS:
        return "epistemic"
    return "words" if any(sign.isalpha() for sign in word) else "other"


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to a text, its leading space too, which some tokenizers drop from a token that stands alone."""
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    options = {"clean_up_tokenization_spaces": False}
    start = len(tokenizer.decode(anchor, **options))
    return [text[start:] for text in tokenizer.batch_decode([[*anchor, token] for token in ids], **options)]


def shown_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """`token_texts` for a reader: a token that holds part of a character is its bytes, as in ⟨e286⟩."""
    texts = token_texts(tokenizer, ids)
    return [
        f"⟨{parts.hex()}⟩" if "\ufffd" in text and (parts := _bytes_of(tokenizer, token)) is not None else text
        for text, token in zip(texts, ids, strict=True)
    ]


def _bytes_of(tokenizer: Any, token: int) -> bytes | None:
    """The bytes of a token of a byte-level vocabulary, or of a byte fallback such as <0xE2>; None where it is neither."""
    piece = tokenizer.convert_ids_to_tokens(int(token))
    if (fallback := re.fullmatch("<0x([0-9A-Fa-f]{2})>", piece or "")) is not None:
        return bytes.fromhex(fallback[1])
    of_sign = _byte_of_sign()
    return bytes(of_sign[sign] for sign in piece) if piece and all(sign in of_sign for sign in piece) else None


@cache
def _byte_of_sign() -> dict[str, int]:
    """Byte-level BPE writes a byte as a printable sign: as itself where it is one in Latin-1, the others from U+0100 on."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


@dataclass(frozen=True, eq=False)
class TokenClasses:
    """`of_token` (V + 1,) is the class of each token as a place in CLASSES; the last entry: ids beyond the tokenizer's."""

    of_token: Tensor

    @classmethod
    def of(cls, tokenizer: Any) -> TokenClasses:
        texts, special = token_texts(tokenizer, range(len(tokenizer))), set(tokenizer.all_special_ids)
        names = ["other" if token in special else classify(text) for token, text in enumerate(texts)]
        return cls(torch.tensor([CLASSES.index(name) for name in [*names, "other"]]))

    def totals(self, completion_ids: Tensor, signals: TokenSignals, credit: Credit) -> dict[str, Tensor]:
        """Sums over the valid tokens of each class, to be added up over micro-batches and processes: see `class_ratios`."""
        table, valid = self.of_token.to(completion_ids.device), signals.valid
        classes = table[completion_ids.clamp(max=len(table) - 1)][valid]
        term = (credit.advantages - signals.rollout_advantages).abs()
        columns = {"tokens": torch.ones_like(term), "gap": signals.gap, "term": term}
        sums = {name: term.new_zeros(len(CLASSES)).index_add_(0, classes, column[valid]) for name, column in columns.items()}
        return {f"class_{part}_{name}": sums[part][i] for part in sums for i, name in enumerate(CLASSES)}


def class_ratios(totals: Mapping[str, float]) -> dict[str, float]:
    """Metrics from summed totals; a ratio without anything behind it is left out.

    class/NAME/tokens   share of all tokens
    class/NAME/gap      mean gap, nats
    class/NAME/credit   share of the summed |term|, what the teacher adds to the verifier's advantage
    """
    whole = {part: sum(totals.get(f"class_{part}_{name}", 0.0) for name in CLASSES) for part in ("tokens", "term")}
    metrics: dict[str, float] = {}
    for name in CLASSES:
        tokens, gap, term = (totals.get(f"class_{part}_{name}", 0.0) for part in ("tokens", "gap", "term"))
        pairs = {"tokens": (tokens, whole["tokens"]), "gap": (gap, tokens), "credit": (term, whole["term"])}
        metrics |= {f"class/{name}/{key}": value / total for key, (value, total) in pairs.items() if total}
    return metrics
