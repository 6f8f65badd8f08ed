"""How does token credit reach TRL's loss? The only file that touches private names of `trl.GRPOTrainer`.

TRL generates, scores rewards and normalises them in the group; its loss accepts advantages of shape (B, T). Credit needs the
student's log-probs and entropies of the same tokens. TRL computes them in one of two places, and credit is assigned there, so
the student is never scored twice:

* with the rollouts, where the policy moves before the loss (`dasd.training.batches.policy_moves`) or vLLM is corrected: that
  pass is recorded, with entropies;
* in the loss itself, where it has not: the training pass has the very numbers, and advantages are read only after it.

Methods that compare whole distributions always get their credit in the loss, beside the hidden states of the training pass.
`tests/training/test_trl_adapter.py` pins the signatures used here.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from trl import GRPOTrainer
from trl.extras.profiling import profiling_context
from trl.kernels import chunked_logprob
from trl.models import unwrap_model_for_generation
from trl.trainer import utils as trl_utils
from trl.trainer.utils import pad

from dasd.config import RunFailed
from dasd.credit import Credit
from dasd.models import LanguageModelHead, keep_head_input_contiguous, refuse_changed_head, without_adapter
from dasd.prompts import tokenize_prompt
from dasd.training.callbacks import DataPasses
from dasd.training.checkpoints import keep_newest, saving
from dasd.training.distributions import divergence_loss
from dasd.training.dynamic_sampling import DynamicSampling
from dasd.training.fingerprint import differ, fingerprint
from dasd.training.guards import StopWhenNotFinite, refuse_broken_weights, stopping
from dasd.training.lookahead import LooksAhead
from dasd.training.memory import TILES
from dasd.training.passes import (
    count_positions_by_mask,
    last_places,
    plan_of,
    score_pass,
    train_pass,
    trains_on_shared_prompts,
)
from dasd.training.sampling import filled, reason_against, write_rollouts
from dasd.training.silence import fall
from dasd.training.student_signals import add_outputs
from dasd.training.vllm import tell_end_tokens, telling_vllm, warn_of_another_dtype

Batch = dict[str, Any]
Recorded = list[tuple[Tensor, Tensor | None, Tensor | None]]  # log-probs, entropies, sums of squared probabilities
logger = logging.getLogger("dasd")


@dataclass
class Scores:
    """A pass over completions: (B, T) log-probs and entropies, nats, and whether each token is the most likely one there; if
    asked for, (B, T, d) hidden states and their head."""

    logps: Tensor
    entropies: Tensor
    is_first_choice: Tensor
    hidden: Tensor | None = None
    head: LanguageModelHead | None = None


class TokenCreditTrainer(GRPOTrainer):
    """`GRPOTrainer` whose subclass decides each token's credit.

    A subclass defines `score_rollouts` (once per generated batch, may add (B, ...) tensors to it) and `credit`, and where it
    sets `compares_distributions` also `score_teacher`.
    """

    compares_distributions = False
    reads_squares = False  # `credit` reads batch["sum_squared_probs"]
    sampler = "auto"  # who writes rollouts where vLLM does not: auto, dasd (ours) or trl
    lookahead: LooksAhead | None = None  # of methods whose direction is what the verifier's next step says
    max_resamples = 0  # rounds in which groups without reward variance are replaced by fresh ones (DAPO's dynamic sampling)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._recorded_passes: Recorded | None = None
        self._batch_awaiting_credit: Batch | None = None
        self._credit: Credit | None = None
        self._totals: defaultdict[str, float | Tensor] = defaultdict(float)
        self._turns: Counter[tuple[int, ...]] = Counter()  # how often rollouts were sampled at a place
        with telling_vllm(self):
            super().__init__(*args, **kwargs)
        if self.use_vllm:
            tell_end_tokens(self)
        if self.use_vllm and self.vllm_mode == "server" and self.accelerator.is_main_process:
            warn_of_another_dtype(self, self.vllm_generation.vllm_client.get_server_info()["model_config"]["dtype"])
        self._samples_itself = self._chooses_itself()
        self._dynamic_sampling = DynamicSampling(self, self._generate_batch, self._tokenizer.pad_token_id)
        refuse_changed_head(self._language_model())
        for parameter in self.model.parameters() if getattr(self._language_model(), "is_quantized", False) else ():
            if parameter.requires_grad:  # TRL's are bfloat16: that rounds small updates away, and PEFT resumes in float32
                parameter.data = parameter.data.float()
        self.add_callback(StopWhenNotFinite(self.accelerator))
        keep_head_input_contiguous(self._language_model())
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self._base = None if sharded else fingerprint(self._trained_weights())
        self._trains_on_shared_prompts = trains_on_shared_prompts(self._language_model(), self.args, sharded)
        for scored in filter(None, (self._language_model(), self.ref_model)):
            count_positions_by_mask(self.accelerator.unwrap_model(scored))
        self._squares: list[Tensor] = []
        squares = self._squares if self.reads_squares else None
        add_outputs(self._language_model(), self.temperature, self.args.cast_lm_head_to_fp32, squares)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's. Raises RunFailed where no step was made, or the data ended before the steps did."""
        progress = DataPasses()
        self.add_callback(progress)
        # Under autocast an adapter's products need no input in float32: PEFT's casts cost more than the products.
        with disable_input_dtype_casting(self.model, active=self.accelerator.mixed_precision != "no"):
            result = super().train(*args, **kwargs)
        self.remove_callback(progress)
        made, wanted = self.state.global_step - progress.started_at, self.state.max_steps - progress.started_at
        if made == 0 or progress.found_nothing:
            raise RunFailed(f"{made} of {wanted} optimisation steps were made: the data gave no further batch of rollouts")
        if self.weights_changed is False:
            logger.warning("Nothing was learnt: after %d steps all weights are the base's.", self.state.global_step)
        if self.is_world_process_zero() and (worse := fall(self.state.log_history)) is not None:
            logger.warning(worse)
        return result

    @property
    def weights_changed(self) -> bool | None:
        """Whether any trained weight differs from the base's. None where weights are sharded: nobody has the base's then."""
        if self._base is None:
            return None
        return differ(self._base, fingerprint(self._trained_weights()))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        refuse_broken_weights(self._trained_weights(), self.accelerator, self.state.global_step, self.args.output_dir)
        super().save_model(output_dir, _internal_call)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A head that is tied to the embeddings is not in a checkpoint, which is no missing weight."""
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or {})
        if load_result.missing_keys and tied.issuperset(load_result.missing_keys):
            self.model.tie_weights()
            load_result = type(load_result)([], load_result.unexpected_keys)
        super()._issue_warnings_after_load(load_result)

    # Hooks

    def score_rollouts(self, rows: Sequence[Mapping[str, Any]], batch: Batch) -> Batch:
        """Tensors with first dimension B to carry beside the batch, e.g. the teacher's scores of `batch["completion_ids"]`.

        `batch["rewards"]` (B,) is what the first reward function, the verifier, gave; NaN where it could not grade.
        """
        raise NotImplementedError

    def credit(self, batch: Batch, student_logps: Tensor, entropies: Tensor) -> Credit:
        """Credit from (B, T) detached log-probs and entropies of the student, in nats."""
        raise NotImplementedError

    def score_teacher(self, batch: Batch) -> Scores:
        """The teacher's pass with hidden states, where distributions are compared. `credit` sees what it adds to `batch`."""
        raise NotImplementedError

    def save_state(self, folder: Path) -> None:
        """Writes what a resumed run needs besides the student into a checkpoint's folder. Called on every process."""

    def load_state(self, folder: Path) -> None:
        """Reads what `save_state` wrote."""

    # What subclasses may use

    def score(
        self, prompt_ids: Tensor, prompt_mask: Tensor, batch: Batch, wanted: Tensor | None = None, hidden: bool = False
    ) -> Scores:
        """The batch's completions after these left-padded prompts, by TRL's fused head at the sampling temperature.

        In evaluation mode, without gradient, by the model as it is. Rows that are not `wanted` (B,) stay 0, as does what lies
        behind a completion's end.
        """
        completion_ids, mask = batch["completion_ids"], batch["completion_mask"]
        size, width = completion_ids.shape
        rows = list(range(size)) if wanted is None else wanted.nonzero().flatten().tolist()
        size_of_pass = self.args.per_device_train_batch_size
        plan, shared = plan_of(self._language_model(), prompt_ids, prompt_mask, mask, rows, size_of_pass, self.accelerator)
        none = torch.zeros((size, width), device=mask.device)
        scores = Scores(none, none.clone(), none.bool())
        if hidden:
            scores.head = self._head().detached()
            scores.hidden = scores.head.weight.new_zeros((size, width, scores.head.weight.shape[1]))
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast(), self._hidden_states() as states:
                for chosen in plan.passes:
                    longest = max(int(mask[chosen].sum(1).max()), 1)
                    first = int(prompt_mask[chosen].argmax(1).min())
                    output = score_pass(
                        self.model, prompt_ids[chosen, first:], prompt_mask[chosen, first:],
                        completion_ids[chosen, :longest], mask[chosen, :longest], shared, is_top1=True,
                    )  # fmt: skip
                    scores.logps[chosen, :longest] = output.log_probs[:, -longest:].float()
                    scores.entropies[chosen, :longest] = output.entropy[:, -longest:].float()
                    scores.is_first_choice[chosen, :longest] = output.is_top1[:, -longest:].bool()
                    if scores.hidden is not None:
                        last = self._of_completion(states[-1], completion_ids[:, :longest])
                        scores.hidden[chosen, :longest] = last.to(scores.hidden.dtype)
                    states.clear()
        finally:
            self.model.train(was_training)
        return scores

    def pad_prompts(self, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """(B, P) left-padded ids and their mask."""
        ids = [torch.tensor(prompt, device=device) for prompt in prompts]
        mask = [torch.ones_like(row) for row in ids]
        return (
            pad(ids, padding_value=self._tokenizer.pad_token_id, padding_side="left"),
            pad(mask, padding_value=0, padding_side="left"),
        )

    def add_totals(self, totals: Mapping[str, Tensor]) -> None:
        """Sums to be added up over micro-batches and processes until the next log."""
        if self.model.training:
            for name, total in totals.items():
                self._totals[name] += total.detach().double()

    def take_totals(self) -> dict[str, float]:
        """The sums since the last call, over all processes."""
        names = sorted(self._totals)
        if not names:
            return {}
        values = torch.stack([torch.as_tensor(self._totals[name], device=self.accelerator.device) for name in names])
        self._totals.clear()
        return dict(zip(names, self.accelerator.reduce(values, reduction="sum").tolist(), strict=True))

    @property
    def group_size(self) -> int:
        """Rollouts of one problem, which stand next to each other in a batch of rollouts."""
        return self.num_generations if self.model.training else self.num_generations_eval

    @staticmethod
    def loss_mask(batch: Batch) -> Tensor:
        """(B, T), 1 where a token counts in the loss: tool outputs do not."""
        mask = batch["completion_mask"]
        return mask * batch["tool_mask"] if "tool_mask" in batch else mask

    # TRL's private methods

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        with stopping(self.state.global_step + 1, self.args.output_dir), tiles_for(self.accelerator.device):
            return super().training_step(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        rows, batch = list(inputs), self._generate_batch(inputs)
        if self.model.training and self.max_resamples:
            rows, batch = self._dynamic_sampling.replaced(rows, batch)
        batch |= self.score_rollouts(rows, batch)
        if "old_per_token_logps" in batch and not self.compares_distributions:
            batch["advantages"] = self.credit(batch, batch["old_per_token_logps"], batch["old_entropies"]).loss_advantages
        return batch

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], Any, dict[str, Any]]:
        if self._is_vlm or self.environment_factories is not None:  # pictures, and tools of each example, are TRL's
            return super()._tokenize_prompts(prompts)
        return [tokenize_prompt(self._tokenizer, prompt, **self.template_arguments) for prompt in prompts], None, {}

    @property
    def template_arguments(self) -> dict[str, Any]:
        """Whatever the student's prompt is rendered with, tools included."""
        return {"tools": self.tools or None, "chat_template": self.chat_template, **self.chat_template_kwargs}

    def _generate_batch(self, inputs: list[dict[str, Any]]) -> Batch:
        with self._recording() as passes:
            batch = super()._generate_and_score_completions(inputs)
        batch["rewards"] = self._verifier_rewards
        if "old_per_token_logps" in batch:  # the policy's own pass comes first, a reference model's after it
            batch["old_entropies"] = passes[0][1]
            if passes[0][2] is not None:
                batch["sum_squared_probs"] = passes[0][2]
        return batch

    def _calculate_rewards(self, inputs: Any, prompts: list, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # of all processes
        start = self.accelerator.process_index * len(prompts)
        self._verifier_rewards = rewards[start : start + len(prompts), 0].clone()
        return rewards

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        if not self.compares_distributions:
            if inputs["advantages"].dim() == 1:
                self._batch_awaiting_credit = inputs
            return super()._compute_loss(model, inputs)
        inputs = dict(inputs)  # the same batch comes again where num_iterations > 1, and must then get its credit anew
        teacher = self.score_teacher(inputs)
        self._batch_awaiting_credit = inputs
        with self._hidden_states() as states:
            loss = super()._compute_loss(model, inputs)
        credit, self._credit = self._credit, None
        assert credit is not None
        assert teacher.hidden is not None
        assert teacher.head is not None
        hidden = self._of_completion(states[-1], inputs["completion_ids"])
        for term in credit.terms:
            total = divergence_loss([term], hidden, self._head(), teacher.hidden, teacher.head)
            loss = loss + total / self._normalizer(inputs, term.average)
            self.add_totals({"divergence": total})
        self.add_totals({"divergence_tokens": self.loss_mask(inputs).sum()})
        return loss

    def _normalizer(self, inputs: Batch, average: str) -> Tensor:
        """As TRL's "dapo" averages: over the tokens (or what else is counted) of one optimisation step, on all processes."""
        counted = {"tokens": "num_items_in_batch", "taught": "taught_tokens", "rollouts": "taught_rollouts"}[average]
        normalizer = inputs[counted].float().clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:  # the numbers are of a batch of rollouts, which several steps may share
            normalizer = normalizer * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return normalizer

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, compute_entropy: bool = False, **kwargs: Any) -> tuple:
        passes = self._recorded_passes
        compute_entropy |= passes is not None and model is self.model  # the head of a reference model gives none
        self._squares.clear()
        scores, plain = None, not any(torch.is_tensor(value) or value for value in kwargs.values())  # no pictures, no experts
        if plain and self._trains_on_shared_prompts and torch.is_grad_enabled():
            with self.accelerator.autocast():  # around both passes: weights are cast once
                scores = train_pass(model, self.accelerator.unwrap_model(model), *args)
        if scores is None:
            scores = super()._get_per_token_logps_and_entropies(model, *args, compute_entropy=compute_entropy, **kwargs)
        squares = torch.cat([last_places(part, scores[0].size(1)) for part in self._squares]) if self._squares else None
        if passes is not None:
            passes.append((scores[0], scores[1], squares))
        elif self._batch_awaiting_credit is not None:
            batch, self._batch_awaiting_credit = self._batch_awaiting_credit, None
            batch |= {} if squares is None else {"sum_squared_probs": squares}
            if self.lookahead is not None and self.model.training:
                self.lookahead.memory.watch(scores[0], batch["advantages"], self.loss_mask(batch))
            self._credit = self.credit(batch, scores[0].detach(), scores[1].detach())
            batch["advantages"] = self._credit.loss_advantages
        return scores

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        with saving(folder):
            # Before transformers' own files, of which trainer_state.json is the last: where that is, everything is.
            folder.mkdir(parents=True, exist_ok=True)
            self.save_state(folder)
            limit, self.args.save_total_limit = self.args.save_total_limit, None  # we delete ourselves
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.save_total_limit = limit
        if self.args.should_save and limit:
            keep_newest(folder.parent, limit, self.state.best_model_checkpoint)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # process 0 writes trainer_state.json next, and must not be the first to end

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.load_state(Path(checkpoint))

    @staticmethod
    def get_off_policy_mask(advantages: Tensor, mask: Tensor, **others: Any) -> Tensor:
        """(B, 1), 0 where a whole rollout is left out: it is pushed down, and the policy has left it (2512.02556, equation 9).

        A rollout's advantage is here the mean of its tokens', which is the verifier's own where every token has that. (TRL
        looks at each token's sign where there is one number a token, and would leave out single tokens.)
        """
        whole = advantages if advantages.size(1) == 1 else (advantages * mask).sum(1, keepdim=True)
        return GRPOTrainer.get_off_policy_mask(advantages=whole, mask=mask, **others)

    @contextmanager
    def _recording(self) -> Iterator[Recorded]:
        passes: Recorded = []
        self._recorded_passes = passes
        try:
            yield passes
        finally:
            self._recorded_passes = None

    @contextmanager
    def _hidden_states(self) -> Iterator[list[Tensor]]:
        """Collects what the model's backbone gives to its head, one tensor a forward pass."""
        states: list[Tensor] = []
        handle = self._language_model().base_model.register_forward_hook(
            lambda module, args, output: states.append(output.last_hidden_state)
        )
        try:
            yield states
        finally:
            handle.remove()

    def _trained_weights(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _language_model(self) -> Any:
        return without_adapter(self.accelerator.unwrap_model(self.model))

    def _head(self) -> LanguageModelHead:
        return LanguageModelHead.of(self._language_model(), self.temperature, self.args.cast_lm_head_to_fp32)

    @staticmethod
    def _of_completion(hidden: Tensor, completion_ids: Tensor) -> Tensor:
        """(B, T, d) states that predict the completion's tokens, from those of the whole sequence."""
        return last_places(hidden[:, :-1], completion_ids.size(1))

    # Rollouts

    def _chooses_itself(self) -> bool:
        """Whether our sampler writes the rollouts. Raises ValueError where it is told to and cannot; `auto` logs why not."""
        if self.sampler == "trl" or (self.sampler == "auto" and self.use_vllm):
            return False
        if (reason := self._reason_against_our_sampler()) is None:
            return True
        if self.sampler == "dasd":
            raise ValueError(f"sampler dasd cannot write these rollouts: {reason}. Leave it to TRL: sampler auto")
        logger.info("TRL's generation writes the rollouts, every row to the end of the longest: %s.", reason)
        return False

    def _reason_against_our_sampler(self) -> str | None:
        if self.use_vllm or self.use_transformers_continuous_batching:
            return "vLLM does" if self.use_vllm else "continuous batching does"
        if self._is_vlm:
            return "there are pictures"
        if self.is_fsdp_enabled or self._dist.is_zero3:
            return "the model is sharded over processes, which must make the same calls"
        return reason_against(self._language_model(), self.generation_config, self.eos_token_ids)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not self._samples_itself:
            with self.accelerator.autocast():  # in the type that is trained in
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        place = (self.args.seed, self.state.global_step, int(self.model.training))
        turn, self._turns[place] = self._turns[place], self._turns[place] + 1
        first = self.accelerator.process_index * len(prompt_ids)  # a rollout draws the same on however many processes
        seeds = [(*place, turn, first + row) for row in range(len(prompt_ids))]
        settings, pad_id = filled(self.generation_config, self._language_model()), self._tokenizer.pad_token_id
        checkpointing = self.args.gradient_checkpointing_kwargs
        with (
            profiling_context(self, "sample"),
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=checkpointing
            ) as model,
            self.accelerator.autocast(),  # around all of it: weights are cast once
        ):
            return write_rollouts(model, prompt_ids, settings, seeds, self.eos_token_ids, pad_id), None


def sample_by(trainer: GRPOTrainer, write: Callable[..., tuple[Any, Any]]) -> None:
    """From now on `write(sample, prompt_ids, ...)` makes the completions and their log-probs; `sample` is what made them."""
    trainer._generate_single_turn = partial(write, trainer._generate_single_turn)


@contextmanager
def tiles_for(device: torch.device) -> Iterator[None]:
    """TRL's head works on tiles of 4,096 tokens times 32,768 vocabulary entries, made for GPUs. On a CPU tiles that stay in its
    cache take half the time and a hundredth of the memory. Logits of prompts and padding, which it leaves out with Triton only,
    are of no use there either."""
    before = chunked_logprob.TOKEN_CHUNK_SIZE, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    skips_padding = trl_utils._use_triton
    if device.type == "cpu":
        chunked_logprob.TOKEN_CHUNK_SIZE, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = TILES["cpu"]
        trl_utils._use_triton = lambda device: True
    try:
        yield
    finally:
        chunked_logprob.TOKEN_CHUNK_SIZE, trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = before
        trl_utils._use_triton = skips_padding
