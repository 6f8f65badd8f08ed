"""Which tokens carry the teacher's credit? Shares of attraction and repulsion under many routers, on the same rollouts.

    python benchmarks/router_share.py EVALUATION [settings of dasd tokens: --model.path, --data.source, --teacher.context ...]

EVALUATION is a folder of `dasd eval` on one dataset that has solutions. The two of LOG.md:

    DATA="--data.split validation --data.limit 16"
    dasd eval bundled $DATA --num_samples 2 --max_completion_length 128 --output runs/bundled
    python benchmarks/router_share.py runs/bundled $DATA

    DATA="--data.task math --data.source benchmarks/word_problems.jsonl --data.split train"
    dasd eval MODEL $DATA --num_samples 3 --max_completion_length 200 --output runs/words
    python benchmarks/router_share.py runs/words --model.path MODEL --model.dtype float32 $DATA

A folder of `dasd probe` will do, too: its rollouts were scored already, and routers by other signals are left out.

    python benchmarks/router_share.py PROBE --teacher.context solution

Student and teacher score the sampled token ids once; the scores are kept in EVALUATION/scores.pt, so that the table can be made
again. Each router then gives credit without any reward.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.nn.utils.rnn import pad_sequence

from dasd.analysis.scores import hidden_states, score_states, squared_probs
from dasd.config import TokensConfig, load_config
from dasd.credit import DirectionAdaptive, TokenSignals, assign_credit
from dasd.data.problems import as_row, load_problems
from dasd.models import load_model
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import PrivilegedContext

ROUTERS: dict[str, dict[str, Any]] = {
    "`rho` 0.20, median: as printed (`dasd_paper`)": {"rho": 0.2},
    "`rho` 0.50, median": {"rho": 0.5},
    "**`rho` 0.80, median: the default**": {},
    "`rho` 0.80, mean: the default of 0.1.0": {"gap_scale": "mean_abs"},
    "`rho` 0.80, std": {"gap_scale": "std"},
    "`rho` 0.80, none (nats)": {"gap_scale": "none"},
    "`rho` 0.20, median, `sigma: side`": {"rho": 0.2, "sigma": "side"},
    "`rho` 0.80, median, `sigma: side`": {"sigma": "side"},
    "`rho` 0.20, median, `rank`": {"rho": 0.2, "rank": True},
    "`rho` 0.80, median, `rank`": {"rank": True},
    "`rho` 0.20, median, `gap_units: side`": {"rho": 0.2, "gap_units": "side"},
    "`rho` 0.80, median, `gap_units: side`": {"gap_units": "side"},
    "`rho` 0.80, mean, `gap_units: side`": {"gap_scale": "mean_abs", "gap_units": "side"},
    "`rho` 0.20, median, `sigma` and `gap_units: side`": {"rho": 0.2, "sigma": "side", "gap_units": "side"},
    "`rho` 0.20, mean, `rank`, `gap_units: side`": {"rho": 0.2, "gap_scale": "mean_abs", "rank": True, "gap_units": "side"},
    "`rho` 0.80, median, `signal: gradient_norm`": {"signal": "gradient_norm"},
    "`rho` 0.80, median, `signal: teacher_entropy`": {"signal": "teacher_entropy"},
    "`rho` 0.80, median, `signal: token_frequency`": {"signal": "token_frequency"},
    "`rho` 0.80, median, `signal: position`": {"signal": "position"},
    "`rho` 0.80, median, `map: linear`": {"map": "linear"},
    "`rho` 0.80, median, `map: hard`": {"map": "hard"},
}

NEEDS = {"gradient_norm": "sum_squared_probs", "teacher_entropy": "teacher_entropies"}
COLUMNS = (
    "router", "tokens attracted, repelled", "credit that attracts", "that repels", "clipped",
    r"\|gap_bar\| at 50, 90, 99 %", r"\|term\| / beta",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluation", type=Path)
    args, overrides = parser.parse_known_args()
    scores = args.evaluation / "scores.pt"
    config = load_config(TokensConfig, None, overrides)
    if (args.evaluation / "probe.jsonl").exists():
        print(table(signals_of(scores_of_probe(args.evaluation, config.teacher.context))))
        return
    if not scores.exists():
        torch.save(score(args.evaluation, config), scores)
    print(table(signals_of(torch.load(scores))))


def scores_of_probe(folder: Path, context: str) -> dict[str, Any]:
    """What a probe has on file of its rollouts and of the teacher that sees `context`; two of the signals are not there."""
    kinds: dict[str, dict[str, Any]] = {"rollout": {}, "reading": {}}
    for line in map(json.loads, (folder / "probe.jsonl").read_text().splitlines()):
        if line["kind"] == "rollout" or (line["kind"] == "reading" and line["context"] == context):
            kinds[line["kind"]][line["problem_id"]] = line
    if not kinds["reading"]:
        raise SystemExit(f"{folder} was not probed with the context {context!r}: give --teacher.context one that it was")
    found = [
        {
            **{name: torch.tensor(rollout[name]) for name in ("student_logps", "entropies")},
            "teacher_logps": torch.tensor(kinds["reading"][problem]["teacher_logps"]),
            "ids": torch.tensor(rollout["token_ids"]),
        }
        for problem, rollout in kinds["rollout"].items()
    ]
    dtype = yaml.safe_load((folder / "config.yaml").read_text())["model"]["dtype"]
    return {"rollouts": found, "computed_in": getattr(torch, dtype)}


def score(evaluation: Path, config: TokensConfig) -> dict[str, Any]:
    """Scores of every sample on file: one tensor a rollout under each name, and the dtype they were computed in."""
    model, tokenizer = load_model(config.model)
    problems = {problem.id: problem for problem in load_problems(config.data)}
    told, found = PrivilegedContext(config.teacher.context), []
    for sample in map(json.loads, (evaluation / "samples.jsonl").read_text().splitlines()):
        row, ids = as_row(problems[sample["problem_id"]]), sample["token_ids"]
        prompt = told.prompt(row)
        if prompt is None or not ids:
            continue
        student = hidden_states(model, tokenize_prompt(tokenizer, row["prompt"]), ids)
        teacher = hidden_states(model, tokenize_prompt(tokenizer, prompt), ids)
        logps, entropies = score_states(model, student, ids)
        teacher_logps, teacher_entropies = score_states(model, teacher, ids)
        found.append(
            {
                "student_logps": logps, "teacher_logps": teacher_logps, "entropies": entropies, "ids": torch.tensor(ids),
                "teacher_entropies": teacher_entropies, "sum_squared_probs": squared_probs(model, student),
            }
        )  # fmt: skip
        print(f"scored {len(found)}", end="\r", flush=True)
    return {"rollouts": found, "computed_in": model.dtype}


def signals_of(scores: dict[str, Any]) -> TokenSignals:
    """All rollouts as one batch, without any reward."""
    rollouts = scores["rollouts"]
    columns = {name: pad_sequence([one[name] for one in rollouts], batch_first=True) for name in rollouts[0]}
    mask = pad_sequence([torch.ones(len(one["ids"])) for one in rollouts], batch_first=True)
    ids = columns.pop("ids")
    counts = torch.bincount(ids[mask.bool()]).double()
    frequencies = (counts / counts.sum())[ids].float()
    return TokenSignals(
        completion_mask=mask, advantages=torch.zeros(len(rollouts)), token_frequencies=frequencies,
        computed_in=scores["computed_in"], **columns,
    )  # fmt: skip


def table(signals: TokenSignals) -> str:
    lines = [
        f"{len(signals.valid)} rollouts, {int(signals.valid.sum())} tokens, scored in {signals.computed_in}; "
        f"{float((signals.gap != 0)[signals.valid].float().mean()):.2f} of the tokens have a gap above rounding.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, settings in ROUTERS.items():
        needed = NEEDS.get(settings.get("signal", ""))
        if needed and getattr(signals, needed) is None:
            continue
        credit = assign_credit(signals, DirectionAdaptive(beta=1.0, **settings))
        _, unclipped = DirectionAdaptive(**settings, gap_clip=float("inf")).direction(signals)
        sizes = unclipped[signals.valid].abs()
        clipped = float((sizes > 5.0).float().mean())
        places = ", ".join(f"{value:.3g}" for value in torch.quantile(sizes, torch.tensor([0.5, 0.9, 0.99])).tolist())
        shares = [credit.metrics.get(key, 0.0) for key in ("tokens/attracted", "tokens/repelled")]
        sides = [credit.metrics.get(key, 0.0) for key in ("credit/attracted", "credit/repelled")]
        term = float(credit.advantages[signals.valid].abs().mean())
        numbers = f"{shares[0]:.2f}, {shares[1]:.2f} | {sides[0]:.4f} | {sides[1]:.4f} | {clipped:.2f} | {places} | {term:.2f}"
        lines.append(f"| {name} | {numbers} |")
    printed = assign_credit(signals, DirectionAdaptive(beta=1.0, rho=0.2, gap_clip=float("inf"))).advantages
    size = float(printed[signals.valid].abs().mean())
    return "\n".join([*lines, "", f"As printed and without a clip the mean |term| is {size:.0f} times beta.", *asides(signals)])


def asides(signals: TokenSignals) -> list[str]:
    """What the default's repulsion does, and how the tokens' entropies are spread."""
    default = DirectionAdaptive(beta=1.0)
    omega, _ = default.direction(signals)
    repels = assign_credit(signals, default).advantages[signals.valid & (omega < 0)]
    rewards = float(repels.clamp(min=0).sum() / repels.abs().sum())
    middle, high = torch.quantile(signals.entropies[signals.valid], torch.tensor([0.5, 0.9])).tolist()
    return [
        f"Of the credit that the default repels with, {rewards:.2f} rewards a token that the teacher finds less likely, "
        "the rest punishes one that it finds more likely.",
        f"Half of the tokens have an entropy below {middle:.3f} nats, a tenth above {high:.2f}.",
    ]


if __name__ == "__main__":
    main()
