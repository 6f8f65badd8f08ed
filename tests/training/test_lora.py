"""What does an adapter train, on which bases, and which adapters would be trained without being seen?"""

import importlib.util
import json
import math
import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from dasd.config import BadInput, EvalConfig, RunConfig, validate
from dasd.models import load_model
from dasd.training import run
from dasd.training.arguments import trainer_arguments
from dasd.training.lora import adapter
from dasd.training.passes import score_pass
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer
from evaluation.samplers.test_head_copies import head_copies, model_of
from training.conftest import length_reward, make_arguments, tiny

SETTINGS = {
    "steps": 2, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 8, "learning_rate": 1e-3,
    "max_completion_length": 16, "save_steps": 1, "lora_rank": 4,
}  # fmt: skip
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install bitsandbytes"
)


def config(output, quantization="none", weights="live", **training):
    return validate(
        RunConfig,
        {
            "output": str(output), "data": {"limit": 20}, "model": {"quantization": quantization},
            "teacher": {"weights": weights}, "training": SETTINGS | training,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "expected"),
    [("all-linear", "all-linear"), ("q_proj", ["q_proj"]), ("q_proj, v_proj", ["q_proj", "v_proj"]), (r".*\.[qv]_proj", None)],
)
def test_targets_are_names_an_expression_or_all(tmp_path, tokenizer, targets, expected):
    made = adapter(config(tmp_path, lora_targets=targets), tiny(tokenizer)).target_modules
    assert made == (targets if expected is None else set(expected) if isinstance(expected, list) else expected)


@pytest.mark.parametrize("targets", ["lm_head", "q_proj,lm_head", ".*(q_proj|lm_head)"])
def test_the_head_is_refused(tmp_path, targets):
    with pytest.raises(BadInput, match="names lm_head"):
        config(tmp_path, lora_targets=targets)


def test_a_head_that_an_adapter_changes_is_refused(tiny_model, tokenizer, problems, tmp_path):
    lora = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[1, 2], task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="the adapter changes the output head"):
        SelfDistillationTrainer(
            tiny_model, length_reward, make_arguments(output_dir=str(tmp_path)), train_dataset=as_dataset(problems),
            processing_class=tokenizer, peft_config=lora,
        )  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["dasd", "sdft"])
def test_embeddings_and_head_are_trained_in_full_and_seen_by_all_scores(tokenizer, problems, tmp_path, tied, method):
    model = tiny(tokenizer, tie_word_embeddings=tied).eval()
    ids = torch.tensor([[5, 9, 17, 40, 41]])
    base = model(ids).logits.detach().clone()
    trainer = SelfDistillationTrainer(
        model, length_reward,
        make_arguments(output_dir=str(tmp_path), method=method, teacher_weights="adapter_off", learning_rate=1e-2),
        train_dataset=as_dataset(problems), processing_class=tokenizer,
        peft_config=adapter(config(tmp_path, lora_embeddings=True), model),
    )  # fmt: skip
    trainer.train()
    adapted = trainer.model.eval()
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    assert (head.weight is embeddings.weight) == tied
    assert not torch.equal(head.weight, head.original_module.weight)
    batch = {"completion_ids": ids[:, 2:], "completion_mask": torch.ones(1, 3, dtype=torch.long)}
    prompt, mask = ids[:, :2], torch.ones(1, 2, dtype=torch.long)
    with torch.no_grad():
        for logits, scores in (
            (adapted(ids).logits, trainer.score(prompt, mask, batch)),
            (base, trainer._as_teacher(prompt, mask, batch | {"has_teacher": torch.tensor([True])}, hidden=True)),
        ):
            expected = logits[:, 1:-1].log_softmax(-1).gather(2, ids[:, 2:, None])[..., 0]
            torch.testing.assert_close(scores.logps, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scores.head(scores.hidden), base[:, 1:-1], atol=1e-5, rtol=1e-5)
    trainer.save_model(str(tmp_path / "adapter"))
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(kept["base_model.model.model.embed_tokens.weight"], embeddings.weight)


def test_a_quantised_base_needs_an_adapter(tmp_path):
    with pytest.raises(BadInput, match=r"model\.quantization 4bit needs a LoRA adapter"):
        config(tmp_path, "4bit", lora_rank=0)


@pytest.mark.parametrize("sampler", [{"backend": "vllm"}, {"backend": "openai", "base_urls": "http://x"}])
def test_other_samplers_load_their_weights_themselves(sampler):
    with pytest.raises(BadInput, match=r"quantization 8bit is of --sampler\.backend transformers"):
        validate(EvalConfig, {"model": {"quantization": "8bit"}, "sampler": sampler})


def test_bitsandbytes_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("dasd.models.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install bitsandbytes"):
        run.train(config(tmp_path / "run", "8bit"))
    assert not (tmp_path / "run").exists()


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
@pytest.mark.parametrize("weights", ["live", "adapter_off"])
def test_an_adapter_trains_on_a_quantised_base(tmp_path, quantization, weights):
    final = run.train(config(tmp_path / "run", quantization, weights))
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 and line["gap/abs"] > 0 for line in metrics)
    model, _ = load_model(config(tmp_path, quantization).model.model_copy(update={"path": str(final)}))
    layer = model.model.layers[0].mlp.up_proj
    assert layer.base_layer.weight.dtype.itemsize == 1
    assert layer.lora_B["default"].weight.abs().max() > 0
    assert model.lm_head.weight.is_floating_point()


@needs_bitsandbytes
def test_a_resumed_run_on_a_quantised_base_is_the_uninterrupted_one(tmp_path):
    """Its adapter is of float32 before and after."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    final = run.train(config(whole, "4bit", steps=3))
    shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("final", "checkpoint-3", "config.yaml"))
    again = run.train(config(cut, "4bit", steps=3))
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (final, again))
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_training_with_an_adapter_copies_no_head(tokenizer, problems, tmp_path):
    """TRL's generation, and the teacher's pass that reads each prompt once."""
    settings = make_arguments(max_steps=1, output_dir=str(tmp_path))
    trainer = SelfDistillationTrainer(
        model_of(), length_reward, settings, train_dataset=as_dataset(problems), processing_class=tokenizer,
        peft_config=LoraConfig(r=2, task_type="CAUSAL_LM"),
    )  # fmt: skip
    ids, mask = torch.randint(5, 50, (4, 6)), torch.ones(4, 6, dtype=torch.long)
    trainer.model.eval()

    @torch.no_grad()
    def act():
        trainer.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2)
        score_pass(trainer.model, ids, mask, ids, mask, shared=True)

    assert head_copies(act) == []


@pytest.mark.parametrize("sampler", ["dasd", "trl"])
def test_an_adapter_on_bfloat16_weights_computes_in_bfloat16(tokenizer, problems, tmp_path, sampler):
    """Its weights are float32, its products are not; policy, teacher, reference and both samplers alike."""
    settings = make_arguments(
        max_steps=2, output_dir=str(tmp_path), bf16=True, beta=0.1, num_iterations=2, method="dasd", learning_rate=1e-3,
        sampler=sampler,
    )  # fmt: skip
    trainer = SelfDistillationTrainer(
        tiny(tokenizer).bfloat16(), length_reward, settings, train_dataset=as_dataset(problems), processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )  # fmt: skip
    layer = trainer.model.base_model.model.model.layers[0].self_attn.q_proj
    seen = []
    layer.lora_A["default"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    before = layer.lora_B["default"].weight.detach().clone()
    trainer.train()
    weights = layer.lora_B["default"].weight
    assert set(seen) == {torch.bfloat16}
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, before)
    trainer.model.eval()
    ids = torch.tensor(tokenizer(["Use 1 2 3 to make 6."])["input_ids"])
    assert trainer.model(input_ids=ids).logits.isfinite().all()  # outside of training, as PEFT has it


def test_the_type_of_the_base_is_the_adapters(tmp_path, tokenizer):
    tiny(tokenizer).bfloat16().save_pretrained(tmp_path / "model")

    def computed_in(path, dtype, rank):
        given = config(tmp_path, lora_rank=rank)
        given = given.model_copy(update={"model": given.model.model_copy(update={"path": path, "dtype": dtype})})
        return trainer_arguments(given, on_gpu=False).bf16

    of_bundled = [computed_in("bundled", *case) for case in (("bfloat16", 4), ("bfloat16", 0), ("float32", 4), ("auto", 4))]
    assert of_bundled == [True, False, False, False]
    in_bfloat16 = str(tmp_path / "model")
    assert [computed_in(in_bfloat16, *case) for case in (("auto", 4), ("auto", 0), ("float32", 4))] == [True, False, False]
