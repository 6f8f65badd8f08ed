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
Row = tuple[float, float, float]  # phi, steps wrong so far, right


def gold_text(task: Task, problem: Problem, cue: str) -> str:
    """What a completion says from the cue on where it is right."""
    gold = task.gold_completion(problem)
    return cue + gold.rpartition(cue.strip())[2] if cue.strip() in gold else f"{cue} {gold}"


@torch.no_grad()
def mean_logps(model: object, pad: int, heads: list[list[int]], tail: list[int], size: int = 64) -> list[float]:
    """Mean log-prob of `tail`'s tokens behind each of `heads`, nats."""
    found = []
    for start in range(0, len(heads), size):
        rows = [head + tail for head in heads[start : start + size]]
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=len(tail) + 1).logits
        logps = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -len(tail) :, None])
        found += logps.mean((1, 2)).tolist()
    return found


def squared_correlation(rows: np.ndarray, column: int) -> float:
    """Of a column of (n, 3) deviations with right or wrong; signed, 0 where either does not vary."""
    x, y = rows[:, column], rows[:, 2]
    scale = (x @ x) * (y @ y)
    return float((x @ y) * abs(x @ y) / scale) if scale > 0 else 0.0


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
    by_share: dict[float, list[np.ndarray]] = {share: [] for share in SHARES}
    for row in list(read_lines(args.evaluation / PROBLEMS))[: args.problems]:
        problem = Problem(id=row["id"], problem=row["problem"], answer=row["answer"])
        prompt = tokenize_prompt(tokenizer, as_row(problem)["prompt"])
        tail = tokenizer(gold_text(task, problem, args.cue), add_special_tokens=False)["input_ids"]
        rows: dict[float, list[Row]] = {share: [] for share in SHARES}
        for sample in sorted(rollouts[row["id"]], key=lambda line: line["sample"])[: args.samples]:
            text = sample["text"]
            ends = [0, *(match.end() for match in _STEP_END.finditer(text))]
            places = [max(end for end in ends if end <= share * len(text)) for share in SHARES]
            heads = [prompt + tokenizer(text[:place], add_special_tokens=False)["input_ids"] for place in places]
            for share, place, phi in zip(SHARES, places, mean_logps(model, tokenizer.pad_token_id, heads, tail), strict=True):
                steps = task.check_steps(problem, text[:place])
                rows[share].append((phi, steps.checked - steps.right, float(sample["status"] == "correct")))
        for share, found in rows.items():
            by_share[share].append(np.asarray(found) - np.mean(found, axis=0))
    generator, result = np.random.default_rng(0), {}
    for share, groups in by_share.items():
        for column, name in enumerate(("phi", "wrong_steps")):
            draws = [
                squared_correlation(
                    np.concatenate([groups[i] for i in generator.integers(len(groups), size=len(groups))]), column
                )
                for _ in range(2000)
            ]
            value, (low, high) = squared_correlation(np.concatenate(groups), column), np.quantile(draws, (0.025, 0.975))
            result[f"{name}_at_{share}"] = [round(float(part), 4) for part in (value, low, high)]
            print(f"{name} at {share:.0%}: {value:+.3f} [{low:+.3f}, {high:+.3f}] (r squared with r's sign)")
    print(f"{len(groups)} problems, {sum(map(len, groups))} rollouts")
    if args.save:
        made = {
            "model": args.model,
            "task": args.task,
            "cue": args.cue,
            "problems": len(groups),
            "rollouts": sum(map(len, groups)),
        }
        args.save.write_text(json.dumps(made | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
