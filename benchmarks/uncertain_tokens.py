"""What are a model's most uncertain tokens on Products: choices, or pieces of answers? Reads the rollouts of a probe.

    dasd probe bundled/products --data.task products --max_completion_length 128 --output runs/probe/products
    python benchmarks/uncertain_tokens.py runs/probe/products

Of each rollout the top fifth of tokens by entropy is taken; a choice is an order, a wording or a check (`choices`).
Prints the mean share of choices over rollouts, with its standard error; what else is there; and the mean entropy of each kind.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from dasd.analysis.probe_file import RECORDS
from dasd.analysis.token_classes import classify, token_texts
from dasd.config import ModelConfig
from dasd.files import read_lines
from dasd.models import load_tokenizer
from dasd.tasks.products_author import choices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", type=Path, help="folder that dasd probe has written")
    parser.add_argument("--model", default="bundled/products", help="whose tokenizer")
    args = parser.parse_args()
    tokenizer = load_tokenizer(ModelConfig(path=args.model))
    shares, others, entropies = [], Counter[str](), defaultdict(list)
    for rollout in (line for line in read_lines(args.probe / RECORDS) if line["kind"] == "rollout"):
        texts, values = token_texts(tokenizer, rollout["token_ids"]), np.asarray(rollout["entropies"])
        chosen = np.asarray(choices(texts))
        top = np.argsort(-values, kind="stable")[: max(1, round(len(values) / 5))]
        shares.append(chosen[top].mean())
        others.update(classify(texts[place]) for place in top if not chosen[place])
        for kind, value in zip(chosen.tolist(), values.tolist(), strict=True):
            entropies["choices" if kind else "others"].append(value)
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    print(f"choices among the top fifth by entropy: {np.mean(shares):.3f} (standard error {error:.3f}, {len(shares)} rollouts)")
    print(f"what else is there: {dict(others.most_common())}")
    tokens = sum(map(len, entropies.values()))
    for kind, found in entropies.items():
        print(f"mean entropy of {kind}: {np.mean(found):.3f} nats, {len(found) / tokens:.3f} of the tokens")


if __name__ == "__main__":
    main()
