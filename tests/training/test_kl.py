"""Does TRL's KL to a reference model work beside token credit, all weights and adapters alike?"""

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer
from training.conftest import length_reward, tiny

REGIMES = {"deferred": {}, "recorded": {"num_iterations": 2}}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """TRL loads the reference from where the model came from."""
    path = tmp_path_factory.mktemp("model")
    tiny(tokenizer).save_pretrained(path)
    return path


@pytest.fixture
def trained(folder, tokenizer, problems, arguments):
    def start(kind, settings, lora=False, **changes):
        trainer = kind(
            AutoModelForCausalLM.from_pretrained(folder), length_reward,
            arguments(settings, beta=0.04, **changes), train_dataset=as_dataset(problems), processing_class=tokenizer,
            peft_config=LoraConfig(r=4, task_type="CAUSAL_LM") if lora else None,
        )  # fmt: skip
        trainer.train()
        return trainer

    return start


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
@pytest.mark.parametrize("regime", REGIMES)
def test_grpo_with_kl_is_trls(trained, regime, lora, monkeypatch):
    """Every row with its own prompt: read once, sums are rounded in another order (test_passes.py has their gradients)."""
    monkeypatch.setattr("dasd.training.trl_adapter.trains_on_shared_prompts", lambda *_: False)
    ours = trained(SelfDistillationTrainer, SelfDistillationConfig, lora, method="grpo", sampler="trl", **REGIMES[regime])
    theirs = trained(GRPOTrainer, GRPOConfig, lora, disable_dropout=True, **REGIMES[regime])
    for (name, one), (_, other) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0, msg=name)
    logged = [entry["kl"] for entry in ours.state.log_history if "kl" in entry]
    assert logged[-1] > 0


@pytest.mark.parametrize("method", ["dasd", "opsd", "sdpo"])
@pytest.mark.parametrize("regime", REGIMES)
def test_every_kind_of_method_trains_with_kl(trained, method, regime):
    trainer = trained(SelfDistillationTrainer, SelfDistillationConfig, method=method, **REGIMES[regime])
    assert trainer.state.global_step == 2
    assert trainer.weights_changed
    assert trainer.state.log_history[1]["kl"] > 0
