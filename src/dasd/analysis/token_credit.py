"""The credit of single rollouts, token by token: what a report colours.

Scores completions that are already on file (their token ids, never their text) with plain transformers, student and teacher,
and assigns credit as training would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dasd.analysis.scores import score_completion
from dasd.credit import Method, TokenSignals, assign_credit
from dasd.data.problems import as_row
from dasd.tasks.base import Problem
from dasd.teacher.context import PrivilegedContext, Prompt, tokenize_prompt


def token_credit(
    model: Any, tokenizer: Any, problem: Problem, token_ids: list[int], advantage: float, method: Method,
    context: PrivilegedContext, peers: Sequence[str] = (), others: Sequence[Problem] = (), correct: bool = False,
    temperature: float = 1.0,
) -> list[dict[str, Any]]:  # fmt: skip
    """For each token its text, omega (0 for methods without direction), entropy, gap and advantage.

    `peers` are accepted rollouts of the same problem, `others` problems to take another context from. Where the context finds
    nothing there is no teacher, and the gap is 0.
    """
    row, rows = as_row(problem), [as_row(other) for other in others]

    def teacher(told: Prompt | None) -> tuple[Tensor, Tensor]:
        return score_completion(model, tokenize_prompt(tokenizer, told or row["prompt"]), token_ids, temperature)

    told = context.prompt(row, peers, rows)
    student, entropies = teacher(None)
    logps, teacher_entropies = teacher(told)
    taught, contrast = told is not None, None
    if "contrast_logps" in method.needs:
        wrong = context.wrong().prompt(row, others=rows)
        taught, contrast = taught and wrong is not None, teacher(wrong)[0][None, None]
    signals = TokenSignals(
        student[None], logps[None], entropies[None], torch.ones_like(student[None]), student.new_tensor([advantage]),
        correct=torch.tensor([correct]), teacher_entropies=teacher_entropies[None], contrast_logps=contrast,
        has_teacher=torch.tensor([taught]), teacher_entropy_history=(),
    )  # fmt: skip
    credit = assign_credit(signals, method)
    omega = torch.zeros_like(credit.advantages) if credit.omega is None else credit.omega
    columns = {"omega": omega, "entropy": signals.entropy, "gap": signals.gap, "advantage": credit.advantages}
    values = {name: tensor[0].tolist() for name, tensor in columns.items()}
    return [
        {"text": tokenizer.decode([token]), **{name: round(values[name][i], 5) for name in values}}
        for i, token in enumerate(token_ids)
    ]


def choose_rollouts(records: Sequence[Mapping[str, Any]], count: int = 3) -> list[tuple[Mapping[str, Any], float]]:
    """Rollouts worth a look, each with its advantage in its problem's group: long ones, right and wrong in turn, of problems
    that are sometimes solved."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["problem_id"], []).append(record)
    chosen: list[tuple[Mapping[str, Any], float]] = []
    for group in sorted(groups.values(), key=lambda g: -max(len(r["token_ids"]) for r in g)):
        rewards = [float(record["status"] == "correct") for record in group]
        mean = sum(rewards) / len(rewards)
        want = float(len(chosen) % 2 == 0)
        if 0.25 <= mean <= 0.75 and len(chosen) < count:
            std = (sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) ** 0.5
            fitting = [record for record, reward in zip(group, rewards, strict=True) if reward == want]
            longest = max(fitting, key=lambda record: len(record["token_ids"]))
            chosen.append((longest, (want - mean) / (std + 1e-4)))
    return chosen
