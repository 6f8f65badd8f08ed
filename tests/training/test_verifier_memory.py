"""What would one more step of the verifier alone do? Against autograd, and against the run without it."""

import pytest
import torch

from dasd.training.lookahead import BETAS, VerifierMemory
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer
from training.conftest import length_reward, make_arguments, tiny


def logps_of(model, ids):
    logits = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    return logits.gather(-1, ids[:, 1:, None])[..., 0]


@pytest.fixture
def remembered(tokenizer):
    model = tiny(tokenizer).eval()
    memory = VerifierMemory(model, 1e-4)
    torch.manual_seed(1)
    for _ in range(3):
        ids = torch.randint(len(tokenizer), (4, 9))
        advantages, mask = torch.randn(4), torch.ones(4, 8)
        mask[0, 5:] = 0
        for part in (slice(0, 3), slice(3, 4)):  # two micro-batches
            memory.watch(logps_of(model, ids[part]), advantages[part], mask[part])
        memory.remember(lambda slope: slope)
    return model, memory


def test_the_step_is_adams_own(remembered, tokenizer):
    """torch's Adam on the same gradients."""
    model, memory = remembered
    twin = tiny(tokenizer).eval()
    adam = torch.optim.Adam(twin.parameters(), lr=1e-4, betas=BETAS, eps=1e-8)
    torch.manual_seed(1)
    moved = None
    for _ in range(3):
        ids = torch.randint(len(tokenizer), (4, 9))
        advantages, mask = torch.randn(4), torch.ones(4, 8)
        mask[0, 5:] = 0
        adam.zero_grad()
        (-(advantages[:, None] * logps_of(twin, ids) * mask).sum()).backward()
        before = [weight.detach().clone() for weight in twin.parameters()]
        adam.step()
        moved = [weight.detach() - old for weight, old in zip(twin.parameters(), before, strict=True)]
        with torch.no_grad():  # the model that is remembered stood still
            for weight, old in zip(twin.parameters(), before, strict=True):
                weight.copy_(old)
    start = [weight.detach().clone() for weight in model.parameters()]
    with memory.ahead():
        steps = [weight.detach() - old for weight, old in zip(model.parameters(), start, strict=True)]
    for step, expected in zip(steps, moved, strict=True):
        torch.testing.assert_close(step, expected, atol=2e-7, rtol=1e-3)


def test_the_model_is_afterwards_what_it_was(remembered):
    model, memory = remembered
    before = [weight.detach().clone() for weight in model.parameters()]
    with memory.ahead():
        assert any((weight != old).any() for weight, old in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


def test_uphill_is_the_slope_along_the_step(remembered, tokenizer):
    model, memory = remembered
    ids = torch.randint(len(tokenizer), (1, 9))
    start = [weight.detach().clone() for weight in model.parameters()]
    with memory.ahead():
        there = logps_of(model, ids)[0].detach()
        steps = [weight.detach() - old for weight, old in zip(model.parameters(), start, strict=True)]
    for token, logp in enumerate(logps_of(model, ids)[0]):
        slopes = torch.autograd.grad(logp, list(model.parameters()), retain_graph=True)
        expected = sum((slope * step).sum() for slope, step in zip(slopes, steps, strict=True))
        assert float(there[token] - logp) == pytest.approx(float(expected), rel=0.15, abs=2e-4)


def trained(tokenizer, problems, tmp_path, method, **changes):
    arguments = make_arguments(output_dir=str(tmp_path / method), method=method, **changes)
    trainer = SelfDistillationTrainer(
        tiny(tokenizer), length_reward, arguments, train_dataset=as_dataset(problems), processing_class=tokenizer
    )
    trainer.train()
    return trainer


def test_it_is_grpo_until_there_is_evidence(tokenizer, problems, tmp_path):
    """With z beyond reach there is none: two steps, looks included, end with GRPO's weights."""
    ours = trained(tokenizer, problems, tmp_path, "lookahead", method_settings={"every": 1, "z": 1e6})
    theirs = trained(tokenizer, problems, tmp_path, "grpo")
    assert ours.lookahead.evidence["weight"] == [2.0], "one look, at two problems"
    for one, two in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0)


def test_it_looks_and_says_what_it_found(tokenizer, problems, tmp_path):
    trainer = trained(tokenizer, problems, tmp_path, "lookahead", method_settings={"every": 1, "z": 0.0}, max_steps=3)
    last = trainer.state.log_history[-2]
    directions = [last[f"direction/decile_{place}"] for place in range(1, 11)]
    assert {abs(omega) for omega in directions} <= {0.0, 1.0}
    assert any(directions)
    assert last["credit/teacher"] > 0


TORN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "steps_per_generation": 2}
WHOLE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "steps_per_generation": 2}


def test_it_is_refused_where_the_policy_has_moved(tokenizer, problems, tmp_path):
    """A batch of two passes and steps of three: TRL scores the rollouts beforehand, and nobody would watch a gradient."""
    for changes in ({"num_iterations": 2}, {"steps_per_generation": 2}, TORN):
        with pytest.raises(ValueError, match="looks ahead takes its gradient where the policy has not moved"):
            trained(tokenizer, problems, tmp_path, "lookahead", **changes)


@pytest.mark.parametrize("changes", [WHOLE, WHOLE | {"num_iterations": 2}])
def test_it_looks_wherever_it_is_not_refused(tokenizer, problems, tmp_path, changes):
    """Several batches in one step, each used once or twice within it."""
    trainer = trained(tokenizer, problems, tmp_path, "lookahead", method_settings={"every": 1, "z": 0.0}, **changes)
    assert trainer.lookahead.memory.is_ready
    assert trainer.lookahead.evidence["weight"][0] > 0
