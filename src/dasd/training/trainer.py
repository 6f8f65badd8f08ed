"""Training with token credit: score with student and teacher, assign credit, hand over to TRL.

Used like any TRL trainer. Knows no method by name: `dasd.credit` decides what each token gets, and a method's `needs` say what
has to be computed for it.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from trl import GRPOConfig

from dasd.analysis.attention import attention_entropies
from dasd.analysis.token_classes import TokenClasses, class_ratios
from dasd.credit import (
    Credit,
    Method,
    TokenSignals,
    assign_credit,
    at_step,
    has_teacher,
    make_method,
    needs_of,
    ratios,
    without_control,
)
from dasd.credit.signals import high_entropy
from dasd.prompts import Prompt, tokenize_prompt, without_answer
from dasd.teacher.context import PrivilegedContext, choose_peers, number_of_wrong_hints, wrong_hints
from dasd.teacher.weights import TeacherWeights
from dasd.training.callbacks import StepLines
from dasd.training.cards import write_trainer_card
from dasd.training.contradictions import refuse_contradictions, refuse_to_cast
from dasd.training.lookahead import LooksAhead
from dasd.training.passes import has_learned_positions
from dasd.training.silence import silences
from dasd.training.student_signals import token_frequencies
from dasd.training.trl_adapter import Batch, Scores, TokenCreditTrainer

logger = logging.getLogger("dasd")
# Names that these libraries use of each other and will rename: nothing that whoever trains can do anything about.
warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accelerator is found")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|accelerate|peft|torch)\.")
TEACHER_FILE, STATE_FILE = "teacher.safetensors", "credit_state.json"
SAMPLERS = ("auto", "dasd", "trl")
_TOTAL = "batch_total/"  # a batch's numbers for `TokenSignals.batch_totals`


@dataclass
class SelfDistillationConfig(GRPOConfig):
    """`GRPOConfig` plus the method and the teacher."""

    method: str = field(default="dasd", metadata={"help": "A name of dasd.credit.METHODS."})
    method_settings: dict[str, Any] | None = field(
        default=None, metadata={"help": "Settings of the method in place of its defaults, e.g. {'beta': 0.2}."}
    )
    context: str = field(default="solution", metadata={"help": "What the teacher sees: a kind of dasd.teacher.context."})
    context_template: str | None = field(
        default=None, metadata={"help": "The teacher's wording, with {problem} and {context}; None takes the kind's own."}
    )
    context_fraction: float = field(default=0.5, metadata={"help": "Context 'truncated': share of the solution's words."})
    teacher_chat_template_kwargs: dict[str, Any] | None = field(
        default=None, metadata={"help": "Chat template arguments of the teacher, over those of the student."}
    )
    teacher_weights: str = field(default="live", metadata={"help": "live, frozen, ema, snapshot or adapter_off."})
    teacher_ema_rate: float = field(default=0.05, metadata={"help": "The student's share of each update of an ema teacher."})
    teacher_sync_steps: int = field(default=10, metadata={"help": "Steps between the updates of a snapshot teacher."})
    success_threshold: float = field(
        default=1.0, metadata={"help": "A rollout is correct if the first reward function gives it at least this."}
    )
    sampler: str = field(
        default="auto",
        metadata={
            "help": "Who writes rollouts where vLLM does not: dasd (our own sampler), trl (its generate), auto (ours where it "
            "can)."
        },
    )
    max_resamples: int = field(
        default=0, metadata={"help": "Dynamic sampling: rounds in which groups of equal rewards are replaced; 0 is off."}
    )
    # TRL's default, sequence_mask, drops a completion by the product of its tokens' ratios, which leaves any bound within some
    # thousand tokens. Each token's truncated ratio: Yao et al. 2025, https://fengyao.notion.site/off-policy-rl
    vllm_importance_sampling_mode: str = field(
        default="token_truncate",
        metadata={"help": "How vLLM's log-probs are corrected: token_truncate, token_mask, sequence_truncate, sequence_mask."},
    )
    disable_dropout: bool = field(
        default=True,
        metadata={"help": "Student and teacher must be scored alike, or dropout noise is taken for the teacher's opinion."},
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log a running mean in place of a loss that is not finite, and train on: off."}
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{one.name} must be a finite number, got {value}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}")
        super().__post_init__()


class SelfDistillationTrainer(TokenCreditTrainer):
    """`trl.GRPOTrainer` with token credit from a privileged self-teacher.

    The dataset has TRL's `prompt`, or `messages`, and the column that the context is made of (`solution`); what an assistant
    says after the last user message is never shown. The first reward function is the verifier. Rows without context get no
    teacher's term and are counted (`teacher/skipped`). `method` takes any callable from `TokenSignals` to `Credit`, in place of
    `args.method`; its `needs` name the signals that it reads.

    Raises ValueError for unknown methods or settings, for settings that contradict, and for a model with active dropout.
    """

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: SelfDistillationConfig | None = None, *,
        method: Method | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        args = args or SelfDistillationConfig()
        self.method = method or make_method(args.method, args.method_settings)
        self.needs = needs_of(self.method)
        self.context = PrivilegedContext(args.context, args.context_template, args.context_fraction)
        self.wrong_context = wrong_hints(self.context, self.method) if "contrast_logps" in self.needs else None
        self.compares_distributions = "teacher_distribution" in self.needs
        self.reads_squares = "sum_squared_probs" in self.needs
        self.max_resamples, self.sampler = args.max_resamples, args.sampler
        if args.cast_lm_head_to_fp32 and not isinstance(model, str):
            refuse_to_cast(model)
        self._teacher_entropy_history: list[float] = []
        self._warned: set[str] = set()
        kwargs |= {name: _questions(kwargs[name]) for name in ("train_dataset", "eval_dataset") if kwargs.get(name) is not None}
        super().__init__(model, reward_funcs, args, **kwargs)
        for printing in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
            self.remove_callback(printing)  # they print every metric of every step
        if not args.disable_tqdm:
            self.add_callback(StepLines())
        refuse_contradictions(self)
        self.token_classes = TokenClasses.of(self.tokenizer) if self.has_teacher else None
        self.teacher = TeacherWeights(
            self.accelerator.unwrap_model(self.model), args.teacher_weights if self.has_teacher else "live",
            args.teacher_ema_rate, args.teacher_sync_steps, deferred=self.is_fsdp_enabled,
        )  # fmt: skip
        if self.teacher.keeps_copy and not self.teacher.deferred:
            # As the students will be: fresh adapters differ until training starts.
            self.teacher.load_state_dict(broadcast(self.teacher.state_dict()))
        self.add_callback(_TeacherFollows(self.teacher))
        if "evidence" in self.needs:
            self.lookahead = LooksAhead(self)
            self.add_callback(self.lookahead)
        if self.has_teacher and args.context != "none" and has_learned_positions(self._language_model()):
            logger.warning(
                "This model has learned absolute positions, and the teacher's longer prompt moves the completion to others: "
                "part of the gap is the place, not what the teacher knows. Context length_matched shows how much."
            )

    @property
    def has_teacher(self) -> bool:
        return has_teacher(self.method)

    @property
    def method_now(self) -> Any:
        """The method with scheduled settings at their values of this step, whatever control it is under."""
        return without_control(at_step(self.method, self.state.global_step))

    def score_rollouts(self, rows: Sequence[Mapping[str, Any]], batch: Batch) -> Batch:
        """The teacher's prompts and scores of the student's own completion ids, and which rollouts have a teacher."""
        device = batch["completion_ids"].device
        correct = batch["rewards"] >= self.args.success_threshold  # False where the grader failed (NaN)
        extra: Batch = {"correct": correct, **self._student_signals(batch)}
        if not self.has_teacher:
            return extra
        prompts = self._prompts(self.context, rows, batch, correct)
        failed = batch["rewards"] < self.args.success_threshold
        wrong = [self._prompts(told, rows, batch, failed, choice) for told, choice in self._wrong_hints]
        known = torch.tensor([[prompt is not None for prompt in column] for column in (prompts, *wrong)], device=device)
        has_contrast = known[0] & known[1:]  # (W, B)
        has_teacher = has_contrast.any(0) if wrong else known[0]
        self.add_totals({"rollouts": torch.tensor(len(rows)), "skipped": (~has_teacher).sum()})

        def padded(column: Sequence[Prompt | None]) -> tuple[Tensor, Tensor]:
            # A rollout without teacher is not scored; the student's prompt only fills its place.
            known = [row["prompt"] if prompt is None else prompt for prompt, row in zip(column, rows, strict=True)]
            return self.pad_prompts([tokenize_prompt(self.tokenizer, p, **self._teacher_template) for p in known], device)

        prompt_ids, prompt_mask = padded(prompts)
        extra["has_teacher"] = has_teacher
        if self.compares_distributions:
            taught = self.loss_mask(batch) * has_teacher[:, None]
            extra |= self._summed({"taught_tokens": taught.sum(), "taught_rollouts": taught.any(1).sum()})
            if "batch_totals" in self.needs:  # of all rollouts, before the first of them is learnt from
                scores = self._as_teacher(prompt_ids, prompt_mask, batch | extra)
                extra |= self._batch_totals(batch | extra | _teachers(scores))
            return extra | {"teacher_prompt_ids": prompt_ids, "teacher_prompt_mask": prompt_mask}
        scores = self._as_teacher(prompt_ids, prompt_mask, batch | extra)
        extra |= _teachers(scores)
        if wrong:
            wanted = [batch | {"has_teacher": row} for row in has_contrast]
            others = [self._as_teacher(*padded(column), part).logps for column, part in zip(wrong, wanted, strict=True)]
            extra["contrast_logps"] = torch.stack(others, dim=1)  # (B, W, T): rows first, for TRL's shuffling
            extra["has_contrast"] = has_contrast.T
        if "batch_totals" in self.needs:
            extra |= self._batch_totals(batch | extra)
        if self.lookahead is not None and self.model.training:
            self.lookahead.look(batch | extra)
        if "teacher_entropy_history" in self.needs and self.model.training:
            median = self._median(scores.entropies, self.loss_mask(batch) * has_teacher[:, None])
            if math.isfinite(median):  # NaN where no rollout has a teacher
                self._teacher_entropy_history.append(median)
        return extra

    def score_teacher(self, batch: Batch) -> Scores:
        scores = self._as_teacher(batch["teacher_prompt_ids"], batch["teacher_prompt_mask"], batch, hidden=True)
        batch |= _teachers(scores)
        return scores

    def credit(self, batch: Batch, student_logps: Tensor, entropies: Tensor) -> Credit:
        """Credit of every token under the method; where there is no teacher the gap is 0."""
        signals = self._signals(batch, student_logps.float(), entropies)
        credit = assign_credit(signals, self.method, self.state.global_step)
        self.add_totals(credit.totals)
        if self.token_classes is not None:
            self.add_totals(self.token_classes.totals(batch["completion_ids"], signals, credit))
            forks = high_entropy(signals, 0.8) & signals.taught
            agreed = batch["teacher_agrees"] & signals.taught
            self.add_totals({"taught": signals.taught.sum(), "agreed": agreed.sum()})
            self.add_totals({"taught_forks": forks.sum(), "agreed_forks": (agreed & forks).sum()})
        return credit

    def _signals(self, batch: Batch, student_logps: Tensor, entropies: Tensor) -> TokenSignals:
        has_teacher, old = batch.get("has_teacher"), batch.get("old_per_token_logps")
        teacher_logps = student_logps
        if has_teacher is not None:
            teacher_logps = torch.where(has_teacher[:, None], batch["teacher_logps"], student_logps)
        contrast, has_contrast = batch.get("contrast_logps"), batch.get("has_contrast")
        totals = {name.removeprefix(_TOTAL): float(value) for name, value in batch.items() if name.startswith(_TOTAL)}
        return TokenSignals(
            student_logps=student_logps,
            teacher_logps=teacher_logps,
            entropies=entropies,
            completion_mask=self.loss_mask(batch),
            advantages=batch["advantages"],
            correct=batch["correct"],
            teacher_entropies=batch.get("teacher_entropies"),
            contrast_logps=None if contrast is None else contrast.transpose(0, 1),
            has_contrast=None if has_contrast is None else has_contrast.T,
            ratio=None if old is None else (student_logps - old).clamp(-20.0, 20.0).exp(),
            has_teacher=has_teacher,
            teacher_entropy_history=self._teacher_entropy_history,
            batch_totals=totals or None,
            evidence=None if self.lookahead is None else self.lookahead.evidence,
            attention_entropies=batch.get("attention_entropies"),
            sum_squared_probs=batch.get("sum_squared_probs"),
            token_frequencies=batch.get("token_frequencies"),
            computed_in=self.computed_in,
        )

    def _student_signals(self, batch: Batch) -> Batch:
        """What the method reads of the student beside its scores, (B, T) each."""
        found: Batch = {}
        ids, mask, model = batch["completion_ids"], batch["completion_mask"], self._language_model()
        if "token_frequencies" in self.needs:
            size = model.get_input_embeddings().num_embeddings
            found["token_frequencies"] = token_frequencies(ids, self.loss_mask(batch), size, self.accelerator.reduce)
        if "attention_entropies" in self.needs:
            found["attention_entropies"] = torch.zeros(ids.shape, device=ids.device)
            was_training = self.model.training
            self.model.eval()
            for row, kept in enumerate(batch["prompt_mask"].bool()):
                length = int(mask[row].sum())
                prompt, completion = batch["prompt_ids"][row, kept].tolist(), ids[row, :length].tolist()
                with self.accelerator.autocast():
                    values = attention_entropies(model, prompt, completion, called=self.model)
                found["attention_entropies"][row, :length] = values
            self.model.train(was_training)
        return found

    def _batch_totals(self, batch: Batch) -> Batch:
        """What the method sums over all rollouts of a batch, on all processes, whatever parts it is learnt from in."""
        logps = batch["teacher_logps"]
        totals: dict[str, Tensor] = self.method_now.batch_totals(self._signals(batch, logps, torch.zeros_like(logps)))
        return self._summed({_TOTAL + name: total for name, total in totals.items()})

    def _summed(self, totals: Mapping[str, Tensor]) -> Batch:
        """Each number's sum over all processes, as a tensor without dimensions, which TRL gives to each part of a batch."""
        values = torch.stack([total.double() for total in totals.values()])
        return dict(zip(totals, self.accelerator.reduce(values, reduction="sum").unbind(), strict=True))

    @property
    def computed_in(self) -> torch.dtype:
        """The dtype whose rounding the model's scores carry."""
        mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        plain: torch.dtype = self._language_model().dtype
        if plain == torch.float32 and self.args.tf32:
            plain = torch.float16  # TF32 has its eps
        return mixed or plain

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processing_class, "tokenizer", self.processing_class)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        totals = self.take_totals() if self.model.training else {}  # an evaluation leaves training's sums alone
        metrics = ratios(totals) | class_ratios(totals)
        shares = {
            "teacher/skipped": ("skipped", "rollouts"),
            "teacher/agreement": ("agreed", "taught"),
            "teacher/agreement_forks": ("agreed_forks", "taught_forks"),
            "divergence": ("divergence", "divergence_tokens"),
            "dynamic_sampling/idle": ("idle_first", "groups"),
            "dynamic_sampling/idle_left": ("idle_left", "groups"),
            "dynamic_sampling/resampled": ("resampled", "groups"),
        }
        metrics |= {name: totals[part] / totals[whole] for name, (part, whole) in shares.items() if totals.get(whole)}
        if self._teacher_entropy_history:
            metrics["teacher/entropy_median"] = self._teacher_entropy_history[-1]
        metrics |= {} if self.lookahead is None else self.lookahead.metrics
        logs.update(metrics)
        super().log(logs, start_time)
        self._tell_who_is_silent({**logs, **metrics})

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """What was done, in place of TRL's card, which calls every run of its trainer GRPO."""
        if self.is_world_process_zero():
            write_trainer_card(Path(self.args.output_dir), self)

    # The teacher

    @property
    def _teacher_template(self) -> dict[str, Any]:
        """Whatever the student's prompt is rendered with, and the teacher's own arguments over it."""
        return {**self.template_arguments, **(self.args.teacher_chat_template_kwargs or {})}

    def _as_teacher(self, prompt_ids: Tensor, prompt_mask: Tensor, batch: Batch, hidden: bool = False) -> Scores:
        with self.teacher.lent():
            scores = self.score(prompt_ids, prompt_mask, batch, batch["has_teacher"], hidden)
            if scores.head is not None and self.is_fsdp_enabled and self.teacher.keeps_copy:
                scores.head = scores.head.cloned()  # the gathered weights are the student's again after this
            return scores

    def _prompts(
        self, context: PrivilegedContext, rows: Sequence[Mapping[str, Any]], batch: Batch, fitting: Tensor, choice: int = 0
    ) -> list[Prompt | None]:
        """What the teacher is told of each row; a peer is one of the `fitting` (B,) rollouts of its group."""
        if not context.needs_peers:
            return [context.prompt(row, others=self._other_rows, choice=choice) for row in rows]
        ids = [row[mask.bool()] for row, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)]
        # A group may lie on two processes.
        texts = gather_object(self.tokenizer.batch_decode(ids, skip_special_tokens=True))
        fits = self.accelerator.gather(fitting).tolist()
        size, first = self.group_size, self.accelerator.process_index * len(rows)
        prompts = []
        for index, row in enumerate(rows, start=first):
            group = range(index // size * size, (index // size + 1) * size)
            prompts.append(context.prompt(row, peers=choose_peers(texts, fits, index, group), choice=choice))
        return prompts

    @property
    def _wrong_hints(self) -> list[tuple[PrivilegedContext, int]]:
        """The wrong context and a choice of it, for as many wrong hints as the teacher may be given."""
        if self.wrong_context is None:
            return []
        return [(self.wrong_context, choice) for choice in range(number_of_wrong_hints(self.method_now))]

    @property
    def _other_rows(self) -> Any:
        return self.train_dataset if hasattr(self.train_dataset, "__getitem__") else ()

    def _median(self, values: Tensor, mask: Tensor) -> float:
        """Median of all processes' values where the mask is 1."""
        chosen = values.masked_fill(mask == 0, torch.nan)
        everywhere = self.accelerator.gather(self.accelerator.pad_across_processes(chosen, dim=1, pad_index=torch.nan))
        return float(everywhere.nanmedian())

    # Checkpoints

    def save_state(self, folder: Path) -> None:
        teacher = self.teacher.state_dict()  # gathered by all processes
        if not self.args.should_save:
            return
        if self._teacher_entropy_history:
            (folder / STATE_FILE).write_text(json.dumps({"teacher_entropy_history": self._teacher_entropy_history}))
        if self.lookahead is not None:
            self.lookahead.save(folder)
        if teacher:
            save_file(teacher, folder / TEACHER_FILE)

    def load_state(self, folder: Path) -> None:
        if self.teacher.keeps_copy:
            if not (folder / TEACHER_FILE).exists():
                raise ValueError(f"{folder} has no {TEACHER_FILE}: its teacher weights were not {self.teacher.kind}")
            self.teacher.load_state_dict(load_file(folder / TEACHER_FILE))
        if self.lookahead is not None:
            self.lookahead.load(folder)
        if (folder / STATE_FILE).exists():
            self._teacher_entropy_history[:] = json.loads((folder / STATE_FILE).read_text())["teacher_entropy_history"]

    # Who is silent

    def _tell_who_is_silent(self, logs: Mapping[str, float]) -> None:
        """Says once of each who teaches nothing."""
        for fact, sentence in silences(logs, self.has_teacher).items():
            if fact == "no direction" and "evidence" in self.needs:
                continue  # which is what it does until there is evidence
            if fact not in self._warned:
                self._warned.add(fact)
                logger.warning(sentence)


def _teachers(scores: Scores) -> Batch:
    """The teacher's scores under the names they have in a batch."""
    return {
        "teacher_logps": scores.logps,
        "teacher_entropies": scores.entropies,
        "teacher_agrees": scores.is_first_choice,
    }


def _questions(dataset: Any) -> Any:
    """The dataset with prompts that end with a question: its `prompt`, or its `messages`, without an answer to the last one."""
    if isinstance(dataset, dict):
        return {name: _questions(part) for name, part in dataset.items()}
    columns = getattr(dataset, "column_names", None) or ()
    column = next((name for name in ("prompt", "messages") if name in columns), None)
    if column is None:
        return dataset
    countable = hasattr(dataset, "__len__")
    if column == "prompt" and countable and all(without_answer(prompt) is prompt for prompt in dataset[column]):
        return dataset
    gone = [column] if column == "messages" else []
    return dataset.map(lambda row: {"prompt": without_answer(row[column])}, remove_columns=gone)


class _TeacherFollows(TrainerCallback):
    """Moves the teacher's weights after each optimisation step."""

    def __init__(self, teacher: TeacherWeights) -> None:
        self.teacher = teacher

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.teacher.keep()  # FSDP has sharded the model by now

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.teacher.after_step(state.global_step)
