"""Is rounding evidence? A teacher that sees what the student sees must leave the update to the verifier, in every dtype."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from dasd.assets import BASE_MODEL
from dasd.tasks.countdown import make_problems
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer

COMPUTES = {
    "float32": {"dtype": torch.float32},
    "float32, scored beforehand": {"dtype": torch.float32, "num_iterations": 2},
    "bfloat16": {"dtype": torch.bfloat16},
    "bfloat16 by autocast": {"dtype": torch.float32, "bf16": True},
}
in_every_dtype = pytest.mark.parametrize("computes", COMPUTES.values(), ids=list(COMPUTES))


def length_reward(completion_ids, **_):
    return [float(len(ids) + sum(ids) % 7) for ids in completion_ids]


def no_reward(completion_ids, **_):
    return [0.0] * len(completion_ids)


@pytest.fixture
def train(tokenizer, arguments):
    """(weights before, weights after, log) of two steps of the bundled model at 1e-4."""

    def run(reward, method, computes, **settings):
        changes = dict(computes)
        model = AutoModelForCausalLM.from_pretrained(BASE_MODEL, dtype=changes.pop("dtype"))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        changes |= {"learning_rate": 1e-4, "max_completion_length": 48, "lr_scheduler_type": "constant"}
        trainer = SelfDistillationTrainer(
            model, reward, arguments(context="none", method=method, method_settings=settings or None, **changes),
            train_dataset=as_dataset(make_problems(16, 0, "train")), processing_class=tokenizer,
        )  # fmt: skip
        trainer.train()
        return before, model.state_dict(), trainer.state.log_history

    return run


def equal(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])] == []


@in_every_dtype
@pytest.mark.parametrize("scale", ["mean_abs", "none"])
def test_without_rewards_no_weight_moves(train, computes, scale):
    before, after, log = train(no_reward, "dasd", computes, beta=1.0, gap_scale=scale)
    assert equal(before, after)
    assert log[0]["gap/abs"] == 0.0


@in_every_dtype
def test_with_rewards_the_update_is_grpos(train, computes):
    before, grpo, _ = train(length_reward, "grpo", computes)
    _, dasd, _ = train(length_reward, "dasd", computes, beta=1.0)
    assert not equal(before, grpo)
    assert equal(grpo, dasd)


@pytest.mark.parametrize(
    ("method", "settings"), [("dasd_vocab", {"beta": 1.0}), ("opsd_sampled", {}), ("novelty", {"beta": 1.0})]
)
def test_other_methods_that_read_the_gap_rest_too(train, method, settings):
    before, after, _ = train(no_reward, method, COMPUTES["float32"], **settings)
    assert equal(before, after)


def test_the_idle_method_says_so(train, caplog):
    train(no_reward, "dasd", COMPUTES["bfloat16"])
    assert "Teacher and student agree on every token" in caplog.text
