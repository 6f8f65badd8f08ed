"""What do student, teacher and method make of each token of a rollout? What the token map and the report colour.

Scores completions that are already on file (their token ids, never their text) with plain transformers, student and teacher,
and assigns credit as training would. What it reads is columns, one entry a token; texts are kept once, in one table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dasd.analysis.attention import attention_entropies
from dasd.analysis.scores import hidden_states, score_states, squared_probs, top_tokens
from dasd.analysis.token_classes import shown_texts
from dasd.credit import Method, TokenSignals, assign_credit, has_teacher, without_control
from dasd.data.problems import as_row
from dasd.prompts import Prompt, tokenize_prompt
from dasd.tasks.base import Problem
from dasd.teacher.context import PrivilegedContext, number_of_wrong_hints, wrong_hints

TOP = 5  # likely tokens that are kept of student and teacher
Record = dict[str, Any]


@dataclass
class TokenReader:
    """Reads rollouts of one model under one method and context.

    teacher  the model that plays the teacher; None: the student itself
    others   problems to take another context from
    step     optimisation step of scheduled settings
    """

    model: Any
    tokenizer: Any
    method: Method
    context: PrivilegedContext
    others: Sequence[Problem] = ()
    temperature: float = 1.0
    teacher: Any = None
    template: Mapping[str, Any] = field(default_factory=dict)  # chat template arguments
    teacher_template: Mapping[str, Any] = field(default_factory=dict)  # the teacher's own, over them
    step: int = 0
    _rollouts: list[Record] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)  # token id -> place of its text in the table

    def read(
        self,
        record: Mapping[str, Any],
        problem: Problem,
        advantage: float,
        peers: Sequence[str] = (),
        failed: Sequence[str] = (),
        batch: Sequence[Sequence[int]] = (),
    ) -> Record:
        """Reads a sample (`token_ids`, `status`) and keeps it for `document`. `peers` and `failed` are other rollouts of its
        problem, which the verifier accepts and refuses; `batch` holds the token ids of all of them, this one too, among which
        tokens are counted (signal token_frequency; the rollout alone where there are none).

        Where the context finds nothing there is no teacher: the gap is 0, and "reference" is None. Of a method without any
        teacher neither gap nor teacher is kept.
        """
        row, rows, ids = as_row(problem), [as_row(other) for other in self.others], list(record["token_ids"])
        told, correct = self.context.prompt(row, peers, rows), record["status"] == "correct"
        student = hidden_states(self.model, tokenize_prompt(self.tokenizer, row["prompt"], **self.template), ids)
        teacher = self._as_teacher(told or row["prompt"], ids)
        logps, entropies = score_states(self.model, student, ids, self.temperature)
        teacher_logps, teacher_entropies = score_states(self._teacher, teacher, ids, self.temperature)
        taught, contrast, method = told is not None, None, without_control(self.method)
        if (wrong_context := wrong_hints(self.context, self.method)) is not None:
            choices = range(number_of_wrong_hints(method))
            hints = [hint for i in choices if (hint := wrong_context.prompt(row, failed, rows, i)) is not None]
            taught = taught and bool(hints)
            states = [self._as_teacher(hint, ids) for hint in hints or [row["prompt"]]]
            contrast = torch.stack([score_states(self._teacher, s, ids, self.temperature)[0] for s in states])[:, None]
        signals = TokenSignals(
            logps[None], teacher_logps[None], entropies[None], torch.ones_like(logps[None]), logps.new_tensor([advantage]),
            correct=torch.tensor([correct], device=logps.device), teacher_entropies=teacher_entropies[None],
            contrast_logps=contrast, has_teacher=torch.tensor([taught], device=logps.device),
            teacher_entropy_history=[1.0] * (getattr(method, "warmup_steps", 0) + 1),  # as after a warm-up
            computed_in=self.model.dtype, **self._student_signals(row["prompt"], ids, student, batch),
        )  # fmt: skip
        credit, untaught = assign_credit(signals, self.method, self.step), not has_teacher(self.method)
        rollout = {
            "problem_id": problem.id,
            "problem": problem.problem,
            "reference": None if untaught or self.context.kind == "none" else self.context.context(row, peers, rows),
            "status": str(record["status"]),
            "advantage": round(advantage, 4),
            "tokens": self._texts_of(ids),
            "omega": None if credit.omega is None else _rounded(credit.omega[0]),
            "entropy": _rounded(signals.entropy[0]),
            "gap": None if untaught else _rounded(signals.gap[0]),
            "credit": _rounded(credit.advantages[0]),
            "student": self._likely(self.model, student),
            "teacher": None if untaught else self._likely(self._teacher, teacher),
        }
        self._rollouts.append(rollout)
        return rollout

    def document(self, note: str) -> Record:
        """All that was read, as `rollouts.json` holds it: tokens are places in the table `texts`."""
        return {"note": note, "texts": shown_texts(self.tokenizer, list(self._places)), "rollouts": self._rollouts}

    @property
    def _teacher(self) -> Any:
        return self.model if self.teacher is None else self.teacher

    def _student_signals(
        self, prompt: Prompt, ids: Sequence[int], states: Tensor, batch: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """What the method reads of the student beside its scores, (1, T) each."""
        found, needs = {}, self.method.needs
        if "sum_squared_probs" in needs:
            found["sum_squared_probs"] = squared_probs(self.model, states, self.temperature)
        if "attention_entropies" in needs:
            prompt_ids = tokenize_prompt(self.tokenizer, prompt, **self.template)
            found["attention_entropies"] = attention_entropies(self.model, prompt_ids, ids)
        if "token_frequencies" in needs:
            counts = Counter(token for other in batch or [ids] for token in other)
            found["token_frequencies"] = states.new_tensor([counts[token] / counts.total() for token in ids]).float()
        return {name: values[None] for name, values in found.items()}

    def _as_teacher(self, prompt: Prompt, ids: list[int]) -> Tensor:
        arguments = {**self.template, **self.teacher_template}
        return hidden_states(self._teacher, tokenize_prompt(self.tokenizer, prompt, **arguments), ids)

    def _likely(self, model: Any, states: Tensor) -> Record:
        """The TOP most likely tokens at each place, likeliest first, one after the other."""
        tokens, probabilities = top_tokens(model, states, TOP, self.temperature)
        return {"tokens": self._texts_of(tokens.flatten().tolist()), "probabilities": _rounded(probabilities.flatten())}

    def _texts_of(self, ids: Sequence[int]) -> list[int]:
        return [self._places.setdefault(token, len(self._places)) for token in ids]


def group_advantages(rewards: Sequence[float], scale: bool = True) -> list[float]:
    """Each reward less its group's mean, over the standard deviation unless `scale` is False; as TRL has it."""
    values = torch.tensor(rewards, dtype=torch.float64)
    centred = values - values.mean()
    return (centred / (values.std() + 1e-4) if scale else centred).tolist()


def choose_rollouts(records: Sequence[Mapping[str, Any]], count: int = 3) -> list[tuple[Mapping[str, Any], float]]:
    """Rollouts worth a look, each with its advantage in its problem's group: long ones, right and wrong in turn, of problems
    that are sometimes solved."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["problem_id"], []).append(record)
    chosen: list[tuple[Mapping[str, Any], float]] = []
    for group in sorted(groups.values(), key=lambda g: -max(len(r["token_ids"]) for r in g)):
        rewards = [float(record["status"] == "correct") for record in group]
        want = float(len(chosen) % 2 == 0)
        if 0.25 <= sum(rewards) / len(rewards) <= 0.75 and len(chosen) < count:
            triples = zip(group, group_advantages(rewards), rewards, strict=True)
            fitting = [(record, advantage) for record, advantage, reward in triples if reward == want]
            chosen.append(max(fitting, key=lambda pair: len(pair[0]["token_ids"])))
    return chosen


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
