"""Does a model's own probability of the gold answer, asked at the ends of steps, tell right rollouts from wrong ones?

    dasd eval bundled --max_completion_length 128 --output runs/eval/countdown
    python benchmarks/answer_value.py runs/eval/countdown --cue " answer:"
    dasd eval bundled --data.task products --max_completion_length 128 --output runs/eval/products
    python benchmarks/answer_value.py runs/eval/products --model bundled/products --task products --cue " so a"

Of 3,200 rollouts of each base model: results/answer-value-countdown.json and -products.json.

If it does, it could stand for a value in the credit of tokens. After each step (a full stop or a line's end) the cue and the
gold answer are put behind the rollout; phi is the mean log-prob of the answer's tokens, nats. At a quarter, half and three
quarters of a completion phi is taken where the last step before ended, and less its problem's mean correlated with right or
wrong, less its mean: the squared correlation is the share of the rollouts' variance that such a baseline could take away.
Beside it the same of steps found wrong so far, which a checker of steps would know. 95 % intervals by 2,000 draws of problems.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dasd.config import ModelConfig
from dasd.data.problems import as_row
from dasd.evaluation.folder import PROBLEMS, SAMPLES
from dasd.files import read_lines
from dasd.models import load_model
from dasd.prompts import tokenize_prompt
from dasd.tasks import make_task
from dasd.tasks.base import Problem, Task

SHARES = (0.25, 0.5, 0.75)
_STEP_END = re.compile(r"\.(?= |$)|\n")
DRAWS = 2000


def gold_text(task: Task, problem: Problem, cue: str) -> str:
    """What a completion says from the cue on where it is right."""
    gold = task.gold_completion(problem)
    return cue + gold.rpartition(cue.strip())[2] if cue.strip() in gold else f"{cue} {gold}"


def started(text: str, share: float) -> str:
    """A completion up to the end of the last step within this share of its characters."""
    return text[: max((match.end() for match in _STEP_END.finditer(text) if match.end() <= share * len(text)), default=0)]


@torch.no_grad()
def mean_logps(model: Any, pad: int, heads: list[list[int]], tail: list[int]) -> list[float]:
    """Mean log-prob of `tail`'s tokens behind each of `heads`, nats."""
    rows = [head + tail for head in heads]
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=len(tail) + 1).logits
    logps = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -len(tail) :, None])
    return logps.mean((1, 2)).tolist()


def squared_correlation(products: np.ndarray) -> np.ndarray:
    """From (..., 3) sums of x^2, xy and y^2 of deviations; with the sign of r, 0 where x or y does not vary."""
    xx, xy, yy = np.moveaxis(products, -1, 0)
    scale = np.where(xx * yy > 0, xx * yy, 1.0)
    return np.where(xx * yy > 0, xy * np.abs(xy) / scale, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="folder that dasd eval has written")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--task", default="countdown")
    parser.add_argument("--cue", required=True, help="what stands before the answer, with its space in front")
    parser.add_argument("--problems", type=int, default=None, help="only the first ones")
    parser.add_argument("--samples", type=int, default=None, help="only the first ones of each")
    parser.add_argument("--save", type=Path, default=None)
    args = parser.parse_args()
    model, tokenizer = load_model(ModelConfig(path=args.model))
    model.eval()
    task, rollouts = make_task(args.task), defaultdict(list)
    for line in read_lines(args.evaluation / SAMPLES):
        rollouts[line["problem_id"]].append(line)
    if not rollouts:
        parser.error(f"{args.evaluation} holds no samples of dasd eval")
    found = []  # (problems, shares, 2, 3): sums of x^2, xy, y^2 within a problem; x is phi or steps wrong so far, y right
    rollouts_read = 0
    for row in read_lines(args.evaluation / PROBLEMS)[: args.problems]:
        problem = Problem(id=row["id"], problem=row["problem"], answer=row["answer"])
        prompt = tokenize_prompt(tokenizer, as_row(problem)["prompt"])
        tail = tokenizer(gold_text(task, problem, args.cue), add_special_tokens=False)["input_ids"]
        samples = sorted(rollouts[row["id"]], key=lambda line: line["sample"])[: args.samples]
        texts = [started(sample["text"], share) for sample in samples for share in SHARES]
        heads = [prompt + tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        steps = [task.check_steps(problem, text) for text in texts]
        seen = [mean_logps(model, tokenizer.pad_token_id, heads, tail), [each.checked - each.right for each in steps]]
        x = np.reshape(seen, (2, len(samples), len(SHARES))).transpose(2, 0, 1)
        y = np.array([sample["status"] == "correct" for sample in samples], dtype=float)
        x, y = x - x.mean(-1, keepdims=True), y - y.mean()
        found.append(np.stack([(x * x).sum(-1), (x * y).sum(-1), np.broadcast_to((y * y).sum(), x.shape[:2])], axis=-1))
        rollouts_read += len(samples)
    counts = np.random.default_rng(0).multinomial(len(found), np.full(len(found), 1 / len(found)), size=DRAWS)
    value = squared_correlation(np.sum(found, axis=0))
    low, high = np.quantile(squared_correlation(np.tensordot(counts, found, 1)), (0.025, 0.975), axis=0)
    result: dict[str, Any] = {"problems": len(found), "rollouts": rollouts_read}
    for place, share in enumerate(SHARES):
        for column, name in enumerate(("phi", "wrong_steps")):
            mean, *ends = (float(each[place, column]) for each in (value, low, high))
            result[f"{name}_at_{share}"] = [round(each, 4) for each in (mean, *ends)]
            print(f"{name} at {share:.0%}: {mean:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}] (r squared with r's sign)")
    print(f"{len(found)} problems, {rollouts_read} rollouts")
    if args.save:
        made = {"model": args.model, "task": args.task, "cue": args.cue}
        args.save.write_text(json.dumps(made | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
