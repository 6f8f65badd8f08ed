"""Training with token credit: score with student and teacher, assign credit, hand over to TRL.

Used like any TRL trainer. Knows no method by name: `dasd.credit` decides what each token gets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from trl import GRPOConfig

from dasd.credit import Method, TokenSignals, assign_credit, make_method, ratios
from dasd.teacher.context import PrivilegedContext, tokenize_prompt
from dasd.training.trl_adapter import Batch, TokenCreditTrainer

logger = logging.getLogger("dasd")


@dataclass
class SelfDistillationConfig(GRPOConfig):
    """`GRPOConfig` plus the method and the teacher's context."""

    method: str = field(default="dasd", metadata={"help": "A name of dasd.credit.METHODS."})
    method_settings: dict[str, Any] | None = field(
        default=None, metadata={"help": "Settings of the method in place of its defaults, e.g. {'beta': 0.2}."}
    )
    context: str = field(default="solution", metadata={"help": "What the teacher sees: a column of the dataset."})
    context_template: str | None = field(
        default=None, metadata={"help": "The teacher's wording, with {problem} and {context}; None takes the default."}
    )
    disable_dropout: bool = field(
        default=True,
        metadata={"help": "Student and teacher must be scored alike, or dropout noise is taken for the teacher's opinion."},
    )


class SelfDistillationTrainer(TokenCreditTrainer):
    """`trl.GRPOTrainer` with token credit from a privileged self-teacher.

    The dataset has TRL's `prompt` and a column named like the context (`solution`). Rows whose context is empty get the
    verifier's advantage alone and are counted (`teacher/skipped`). `method` takes any callable from `TokenSignals` to `Credit`
    with `needs_teacher`, in place of `args.method`.

    Raises ValueError for unknown methods or settings, and for a model with active dropout.
    """

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: SelfDistillationConfig | None = None, *,
        method: Method | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        args = args or SelfDistillationConfig()
        self.method = method or make_method(args.method, args.method_settings)
        self.context = PrivilegedContext(args.context, args.context_template)
        self._warned: set[str] = set()
        super().__init__(model, reward_funcs, args, **kwargs)
        dropout = [name for name, module in self.model.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
        if dropout and self.method.needs_teacher:
            raise ValueError(
                f"{dropout[0]} and {len(dropout) - 1} more modules drop out: the student would be scored with noise that the "
                "teacher, in evaluation mode, does not have. Set disable_dropout=True (and lora_dropout=0)."
            )

    def score_rollouts(self, rows: Sequence[Mapping[str, Any]], batch: Batch) -> Batch:
        """Teacher log-probs of the student's own completion ids, and which rollouts have a teacher."""
        completion_ids, completion_mask = batch["completion_ids"], batch["completion_mask"]
        teacher_logps = torch.zeros_like(completion_ids, dtype=torch.float32)
        has_teacher = torch.zeros(len(rows), dtype=torch.bool, device=completion_ids.device)
        if self.method.needs_teacher:
            prompts = {i: prompt for i, row in enumerate(rows) if (prompt := self.context.prompt(row)) is not None}
            chosen = list(prompts)
            has_teacher[chosen] = True
            if chosen:
                ids = [tokenize_prompt(self.tokenizer, prompt, **self.chat_template_kwargs) for prompt in prompts.values()]
                teacher_logps[chosen] = self.score(ids, completion_ids[chosen], completion_mask[chosen]).float()
            self.add_totals({"rollouts": torch.tensor(len(rows)), "skipped": (~has_teacher).sum()})
        return {"teacher_logps": teacher_logps, "has_teacher": has_teacher}

    def token_advantages(self, batch: Batch, student_logps: Tensor, entropies: Tensor) -> Tensor:
        """Credit of every token under the method; where there is no teacher the gap is 0."""
        signals = TokenSignals(
            student_logps=student_logps,
            teacher_logps=torch.where(batch["has_teacher"][:, None], batch["teacher_logps"], student_logps.float()),
            entropies=entropies,
            completion_mask=self.loss_mask(batch),
            advantages=batch["advantages"],
        )
        credit = assign_credit(signals, self.method)
        self.add_totals(credit.totals)
        return credit.advantages

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processing_class, "tokenizer", self.processing_class)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        totals = self.take_totals()
        metrics = ratios(totals)
        if totals.get("rollouts"):
            metrics["teacher/skipped"] = totals["skipped"] / totals["rollouts"]
        logs.update(metrics)
        super().log(logs, start_time)
        self._warn_when_idle({**logs, **metrics})

    def _warn_when_idle(self, logs: Mapping[str, float]) -> None:
        """Says once when nothing is learnt from the teacher or from the verifier, and what to do."""
        causes = {
            "no reward varies inside its group, so the verifier says nothing; take easier or harder problems, a larger group "
            "or a higher temperature": logs.get("frac_reward_zero_std") == 1.0,
            "no rollout has a teacher: the column of the privileged context is empty": logs.get("teacher/skipped") == 1.0,
            "teacher and student agree on every token (gap 0); see whether the teacher's prompt shows the reference, with "
            "`dasd doctor`": self.method.needs_teacher and logs.get("gap/abs") == 0.0 and logs.get("teacher/skipped") != 1.0,
            "no token is repelled: the entropies of each rollout are all equal, or the method only attracts": (
                logs.get("tokens/repelled") == 0.0 and logs.get("tokens/attracted", 0.0) == 0.0 and logs.get("gap/abs", 0.0) > 0
            ),
        }
        for cause, holds in causes.items():
            if holds and cause not in self._warned:
                self._warned.add(cause)
                logger.warning("The method is idle: %s.", cause)
