"""Do the student's rarer signals reach the method as plain transformers gives them, in every regime, and only when needed?"""

import pytest
import torch

from dasd.analysis.attention import attention_entropies
from dasd.credit import DirectionAdaptive
from dasd.credit.routing import SIGNALS
from dasd.credit.signals import credit_with
from dasd.training.trainer import SelfDistillationTrainer

REGIMES = {
    "in the loss": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "with the rollouts": {"num_iterations": 2},
}
RARE = ("attention_entropies", "sum_squared_probs", "token_frequencies")


class Spy(SelfDistillationTrainer):
    """Keeps what the method saw, with the prompts and the weights of that moment."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def _signals(self, batch, student_logps, entropies):
        signals = super()._signals(batch, student_logps, entropies)
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.seen.append((signals, batch, weights))
        return signals


@torch.no_grad()
def plain(model, prompt, completion):
    """Sum of squared probabilities and attention entropy of a completion, from one forward pass with everything in it."""
    output = model(torch.tensor([prompt + completion]), output_attentions=True)
    places = slice(len(prompt) - 1, -1)
    squares = output.logits[0, places].float().softmax(-1).square().sum(-1)
    entropies = [torch.special.entr(weights[0, :, places]).sum(-1).mean(0) for weights in output.attentions]
    return squares, torch.stack(entropies).mean(0)


def everything(signals):
    return DirectionAdaptive(signal="gradient_norm")(signals)


everything.needs = frozenset({"teacher_logps", "entropies", *RARE})


@pytest.mark.parametrize("regime", REGIMES.values(), ids=list(REGIMES))
def test_signals_are_those_of_plain_transformers(train, tiny_model, regime):
    tiny_model.set_attn_implementation("eager")
    trainer = train(Spy, method=everything, max_completion_length=8, **regime)
    assert trainer.seen
    for signals, batch, weights in trainer.seen:
        tiny_model.load_state_dict(weights)
        for row, mask in enumerate(batch["prompt_mask"].bool()):
            count = int(signals.valid[row].sum())
            prompt, completion = batch["prompt_ids"][row, mask].tolist(), batch["completion_ids"][row, :count].tolist()
            squares, attention = plain(tiny_model.eval(), prompt, completion)
            torch.testing.assert_close(signals.sum_squared_probs[row, :count], squares, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(signals.attention_entropies[row, :count], attention, rtol=1e-4, atol=1e-5)


def test_tokens_are_counted_over_the_whole_batch_of_rollouts(train):
    trainer = train(Spy, method=everything_but_attention, max_steps=1, **REGIMES["in the loss"])
    parts = [(signals.token_frequencies, batch["completion_ids"], signals.valid) for signals, batch, _ in trainer.seen]
    tokens = torch.cat([ids[valid] for _, ids, valid in parts]).tolist()
    assert len(parts) == 2
    for frequencies, ids, valid in parts:
        expected = [tokens.count(token) / len(tokens) for token in ids[valid].tolist()]
        assert frequencies[valid].tolist() == pytest.approx(expected)


def everything_but_attention(signals):
    return DirectionAdaptive(signal="token_frequency")(signals)


everything_but_attention.needs = frozenset({"teacher_logps", "entropies", "sum_squared_probs", "token_frequencies"})


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_signal_trains(train, tiny_model, signal):
    if signal == "attention_entropy":
        tiny_model.set_attn_implementation("eager")
    trainer = train(Spy, method_settings={"signal": signal, "beta": 0.5}, max_steps=1)
    logs = trainer.state.log_history[0]
    assert 0 < logs["tokens/attracted"] < 1
    assert logs["credit/teacher"] > 0
    seen = {name for name in RARE for signals, _, _ in trainer.seen if getattr(signals, name) is not None}
    assert seen == set(SIGNALS[signal][1]) & set(RARE)


def test_attention_that_is_not_seen_is_refused_with_the_remedy(train):
    with pytest.raises(ValueError, match=r"needs the attention's weights, .* uses sdpa: .*attn_implementation eager"):
        train(method_settings={"signal": "attention_entropy"})


def test_attention_to_one_place_has_no_entropy(tiny_model):
    """The first token of a sequence sees itself alone; with all scores equal the second sees two places alike."""
    tiny_model.set_attn_implementation("eager")
    for layer in tiny_model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    found = attention_entropies(tiny_model.eval(), [5], [6, 7, 8])
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, 3.0]).log(), rtol=1e-5, atol=1e-6)


def test_a_method_without_a_teacher_gets_the_students_signals_too(train):
    """They were computed beside the teacher's scores only, and such a method ended at the first loss."""

    def rare(signals):
        return credit_with(signals, signals.rollout_advantages * (1 - signals.require("token_frequencies")))

    rare.needs = frozenset({"token_frequencies"})
    [signals, *_] = [seen[0] for seen in train(Spy, method=rare, max_completion_length=8).seen]
    assert 0 < signals.token_frequencies[signals.valid].max() <= 1


@pytest.mark.parametrize("need", ["batch_totals", "evidence", "teacher_entropies", "teacher_entropy_history", "contrast_logps"])
def test_what_comes_with_a_teacher_needs_one(train, need):
    def method(signals):
        raise AssertionError("never asked")

    method.needs = frozenset({need})
    with pytest.raises(ValueError, match=f"needs {need}, which comes with a teacher"):
        train(method=method, max_completion_length=8)
