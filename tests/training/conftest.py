"""A tiny randomly initialised Qwen3-style model with the bundled tokenizer, and a few Countdown rows."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from dasd.assets.build import build_tokenizer
from dasd.tasks import make_task
from dasd.tasks.countdown import make_problems
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


def tiny(tokenizer, seed=0, **changes):
    """A random model of two small layers."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256,
        "tie_word_embeddings": True, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None, "initializer_range": 0.2,
    }  # fmt: skip
    return Qwen3ForCausalLM(Qwen3Config(**(settings | changes)))


@pytest.fixture
def tiny_model(tokenizer):
    return tiny(tokenizer)


@pytest.fixture(scope="session")
def problems():
    return make_problems(16, 0, "train")


@pytest.fixture(scope="session")
def task():
    return make_task("countdown")


def length_reward(completion_ids, **_):
    """Varies inside every group, whatever a random model writes."""
    return [float(len(ids) + sum(ids) % 7) for ids in completion_ids]


def make_arguments(kind=SelfDistillationConfig, **changes):
    """GRPO settings for two steps of two groups of four on the CPU, with `changes` on top."""
    settings = {
        "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12, "max_steps": 2,
        "logging_steps": 1, "report_to": [], "learning_rate": 1e-3, "save_strategy": "no", "use_cpu": True, "bf16": False,
        "disable_tqdm": True, "gradient_checkpointing": False, "seed": 3,
    }  # fmt: skip
    return kind(**(settings | changes))


@pytest.fixture
def arguments(tmp_path):
    def make(kind=SelfDistillationConfig, **changes):
        return make_arguments(kind, **({"output_dir": str(tmp_path / "out")} | changes))

    return make


@pytest.fixture
def train(tiny_model, tokenizer, problems, arguments):
    """Trains the tiny model and returns the trainer."""

    def run(
        trainer_class=SelfDistillationTrainer, dataset=None, reward=length_reward, method=None, eval_dataset=None, **changes
    ):
        options = {"method": method} if method is not None else {}
        trainer = trainer_class(
            tiny_model, reward, arguments(**changes),
            train_dataset=dataset or as_dataset(problems), eval_dataset=eval_dataset, processing_class=tokenizer, **options,
        )  # fmt: skip
        trainer.train()
        return trainer

    return run
