"""Do student and teacher stand at the same places? Learned absolute positions tell padding from none; rotary ones do not."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from dasd.analysis.scores import score_completion
from dasd.prompts import tokenize_prompt
from dasd.training.passes import has_learned_positions
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer
from training.conftest import length_reward, tiny


def absolute(tokenizer):
    """A random GPT-2 of two small layers, whose positions matter."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.2,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(5.0)
    return model


class Spy(SelfDistillationTrainer):
    """Keeps each batch with the student's scores of it."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def score_rollouts(self, rows, batch):
        self.rows = list(rows)
        return super().score_rollouts(rows, batch) | {"row_index": torch.arange(len(rows))}

    def credit(self, batch, student_logps, entropies):
        self.seen.append((batch, [self.rows[i] for i in batch["row_index"]], student_logps))
        return super().credit(batch, student_logps, entropies)


def ragged(problems):
    """Prompts of different lengths, so that there is padding."""
    from datasets import Dataset

    rows = as_dataset(problems[:4]).to_list()
    for index, row in enumerate(rows):
        row["prompt"] = [{"role": "user", "content": row["problem"] + " 1" * (7 * index)}]
    return Dataset.from_list(rows)


SMALL_BATCHES = {
    "per_device_train_batch_size": 4, "steps_per_generation": 4, "gradient_accumulation_steps": 4, "max_steps": 1,
}  # fmt: skip
REGIMES = {"deferred": {}, "recorded": {"num_iterations": 2}, "small batches": {"gradient_accumulation_steps": 2}}


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("make", [absolute, tiny], ids=["learned", "rotary"])
def test_without_context_the_teacher_says_what_the_student_says(tokenizer, problems, arguments, make, regime):
    changes = SMALL_BATCHES | {"context": "none"} | REGIMES[regime]
    trainer = Spy(
        make(tokenizer), length_reward, arguments(**changes), train_dataset=ragged(problems), processing_class=tokenizer
    )
    trainer.train()
    assert any(batch["prompt_mask"].min() == 0 for batch, _, _ in trainer.seen)
    for batch, _, student in trainer.seen:
        gap = (batch["teacher_logps"] - student) * batch["completion_mask"]
        assert gap.abs().max() < 1e-5


def test_scores_are_those_of_the_row_alone(tokenizer, problems, arguments):
    """Without padding, by plain transformers: what generation sampled from."""
    model = absolute(tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = Spy(model, length_reward, arguments(**SMALL_BATCHES), train_dataset=ragged(problems), processing_class=tokenizer)
    trainer.train()
    model.load_state_dict(before)
    model.eval()
    for batch, rows, student in trainer.seen:
        for i, row in enumerate(rows):
            ids = batch["completion_ids"][i, : int(batch["completion_mask"][i].sum())].tolist()
            for prompt, scores in ((row["prompt"], student), (trainer.context.prompt(row), batch["teacher_logps"])):
                expected, _ = score_completion(model, tokenize_prompt(tokenizer, prompt), ids)
                torch.testing.assert_close(scores[i, : len(ids)], expected, atol=2e-5, rtol=0)


def test_what_a_longer_prompt_moves_is_said(tokenizer, problems, arguments, caplog):
    def said(model, **settings):
        caplog.clear()
        SelfDistillationTrainer(
            model, length_reward, arguments(**settings), train_dataset=as_dataset(problems), processing_class=tokenizer
        )
        return "learned absolute positions" in caplog.text

    assert has_learned_positions(absolute(tokenizer))
    assert not has_learned_positions(tiny(tokenizer))
    assert said(absolute(tokenizer))
    assert not said(absolute(tokenizer), context="none")
    assert not said(absolute(tokenizer), method="grpo")
    assert not said(tiny(tokenizer))


def test_a_head_that_trl_cannot_cast_is_refused_in_a_sentence(tokenizer, problems, arguments):
    with pytest.raises(ValueError, match=r"looks for lm_head and model\.embed_tokens, which GPT2LMHeadModel has under"):
        SelfDistillationTrainer(
            absolute(tokenizer), length_reward, arguments(cast_lm_head_to_fp32=True), train_dataset=as_dataset(problems),
            processing_class=tokenizer,
        )  # fmt: skip
