"""Is a merged adapter the same model as a plain one, and is whatever cannot be merged said in one message?"""

import importlib.util
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from dasd.assets import BASE_MODEL
from dasd.cli import run as command
from dasd.config import BadInput, ModelConfig, RunConfig, RunFailed, validate
from dasd.merge import merge, share_kept
from dasd.models import load_model
from dasd.training import run

SETTINGS = {
    "steps": 3, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 8, "learning_rate": 1e-2,
    "max_completion_length": 24, "save_steps": 2, "lora_rank": 4,
}  # fmt: skip


def train(output, **settings):
    """A run that trained an adapter far enough to see it."""
    run.train(validate(RunConfig, {"output": str(output), "data": {"limit": 20}, "training": SETTINGS | settings}))
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory.mktemp("merge") / "run")


@pytest.fixture(scope="module")
def merged(trained):
    return merge(trained, trained.parent / "merged")


@pytest.fixture
def adapter(trained, tmp_path):
    return shutil.copytree(trained / "checkpoints" / "final", tmp_path / "adapter")


def logits(model):
    with torch.no_grad():
        return model(torch.arange(60).reshape(2, 30)).logits


def point_to(adapter, base):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))


def test_logits_are_the_adapters_and_not_the_bases(trained, merged):
    adapted, _ = load_model(ModelConfig(path=str(trained / "checkpoints" / "final")))
    plain, base = (AutoModelForCausalLM.from_pretrained(path) for path in (merged, BASE_MODEL))
    torch.testing.assert_close(logits(plain), logits(adapted), atol=2e-5, rtol=1e-5)
    assert (logits(plain) - logits(base)).abs().max() > 0.01


def test_embeddings_that_were_trained_are_merged_too_and_stay_the_head(tmp_path):
    final = train(tmp_path / "run", lora_embeddings=True) / "checkpoints" / "final"
    adapted, _ = load_model(ModelConfig(path=str(final)))
    plain, base = (AutoModelForCausalLM.from_pretrained(path) for path in (merge(final, tmp_path / "merged"), BASE_MODEL))
    torch.testing.assert_close(logits(plain), logits(adapted), atol=2e-5, rtol=1e-5)
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    assert (plain.lm_head.weight - base.lm_head.weight).abs().max() > 1e-3


def test_the_folder_is_a_plain_model(merged):
    names = {path.name for path in merged.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
    assert not any("adapter" in name for name in names)
    assert [path.name for path in merged.parent.iterdir() if "unfinished" in path.name] == []
    assert (merged / "chat_template.jinja").read_text() == (BASE_MODEL / "chat_template.jinja").read_text()


def test_greedy_samples_are_the_same(trained, merged, tmp_path):
    texts = []
    for name, model in (("a", trained / "checkpoints" / "final"), ("b", merged)):
        settings = ["--data.limit", "6", "--num_samples", "1", "--temperature", "0", "--max_completion_length", "32"]
        assert command(["eval", str(model), "--output", str(tmp_path / name), *settings]) == 0
        records = [json.loads(line) for line in (tmp_path / name / "samples.jsonl").read_text().splitlines()]
        texts.append({record["problem_id"]: record["text"] for record in records})
    assert len(texts[0]) == 6
    assert texts[0] == texts[1]


def test_a_checkpoint_merges_and_the_base_keeps_its_dtype(trained, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(BASE_MODEL, base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    checkpoint = tmp_path / "checkpoint-7"
    tuned.save_pretrained(checkpoint)
    plain = AutoModelForCausalLM.from_pretrained(merge(checkpoint, tmp_path / "plain"))
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "plain" / "chat_template.jinja").exists()  # the base's: this checkpoint has no tokenizer of its own
    assert merge(trained / "checkpoints" / "checkpoint-2", tmp_path / "second").is_dir()


def test_the_bundled_base_is_found_in_another_installation(adapter, tmp_path):
    point_to(adapter, "/opt/elsewhere/lib/python3.12/site-packages/dasd/assets/countdown-1m")
    plain, _ = load_model(ModelConfig(path=str(merge(adapter, tmp_path / "merged"))))
    adapted, _ = load_model(ModelConfig(path=str(adapter)))
    torch.testing.assert_close(logits(plain), logits(adapted), atol=2e-5, rtol=1e-5)


def test_a_base_that_is_gone_is_named(adapter, tmp_path):
    point_to(adapter, "/data/models/my-base")
    for use in (lambda: merge(adapter, tmp_path / "merged"), lambda: load_model(ModelConfig(path=str(adapter)))):
        with pytest.raises(BadInput, match=r"base_model_name_or_path in its adapter_config\.json is /data/models/my-base"):
            use()
    assert not (tmp_path / "merged").exists()


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install bitsandbytes")
def test_a_base_stored_in_few_bits_is_refused(adapter, tmp_path):
    load_model(ModelConfig(quantization="4bit"))[0].save_pretrained(tmp_path / "base")
    point_to(adapter, str(tmp_path / "base"))
    with pytest.raises(BadInput, match="stored in few bits"):
        merge(adapter, tmp_path / "merged")


def test_what_is_no_adapter_is_called_by_its_name(trained, merged, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(trained, unfinished, ignore=shutil.ignore_patterns("final"))
    for source, message in (
        (tmp_path / "nowhere", "does not exist"),
        (merged, "is a plain model"),
        (unfinished, "its last checkpoint, .*checkpoint-3"),
        (tmp_path, "neither a run folder nor an adapter"),
    ):
        with pytest.raises(BadInput, match=message):
            merge(source, tmp_path / "merged")


@pytest.mark.parametrize("tear", ["cut", "missing", "other shapes", "nan"])
def test_an_adapter_that_is_torn_is_refused(adapter, tmp_path, tear):
    from safetensors.torch import load_file, save_file

    weights = adapter / "adapter_model.safetensors"
    if tear == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif tear == "missing":
        weights.unlink()
    else:
        change = (lambda t: t[:, :-1].contiguous()) if tear == "other shapes" else (lambda t: t * torch.nan)
        save_file({name: change(tensor) for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(BadInput, match=str(adapter)):
        merge(adapter, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_taken(adapter, tmp_path, capfd):
    output = tmp_path / "merged"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    assert command(["merge", str(adapter), "--output", str(output)]) == 2
    assert "is there already and not an empty folder" in capfd.readouterr().err
    assert [path.name for path in output.iterdir()] == ["mine.txt"]
    (output / "mine.txt").unlink()
    assert command(["merge", str(adapter), "--output", str(output)]) == 0
    assert (output / "model.safetensors").exists()


def test_a_model_that_cannot_be_written_whole_is_not_there_at_all(adapter, tmp_path):
    """No file may grow past 1 MiB: what writing to a full disk is like, without a disk to fill."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(RunFailed, match="could not be written"):
            merge(adapter, tmp_path / "merged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_is_not_trained_further_as_it_is(adapter, tmp_path):
    values = {"output": str(tmp_path / "run"), "model": {"path": str(adapter)}, "training": SETTINGS}
    with pytest.raises(BadInput, match="dasd merge"):
        run.train(validate(RunConfig, values))
    assert not (tmp_path / "run").exists()


def test_what_rounding_loses_is_said_and_dtype_keeps_it(tmp_path, caplog):
    """A base in bfloat16 and a change far below its rounding."""
    model, tokenizer = load_model(ModelConfig(path="bundled", dtype="bfloat16"))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-4)
    adapted.save_pretrained(tmp_path / "adapter")
    point_to(tmp_path / "adapter", str(tmp_path / "base"))
    with caplog.at_level("WARNING", logger="dasd"):
        merge(tmp_path / "adapter", tmp_path / "rounded")
    assert "of what the adapter adds to the weights: merge with --dtype float32" in caplog.text
    caplog.clear()
    kept = AutoModelForCausalLM.from_pretrained(merge(tmp_path / "adapter", tmp_path / "kept", "float32"))
    assert not caplog.text
    assert kept.dtype == torch.float32
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    assert (kept.state_dict()[name] - plain.state_dict()[name]).abs().max() > 0


def test_how_much_is_kept_is_the_projection_on_the_change():
    """One weight of 1 in bfloat16 (spacing 2^-7 above, 2^-8 below): 2^-6 is kept, 2^-10 is lost, so 16^2 / (16^2 + 1)."""
    layer = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False, dtype=torch.bfloat16))
    adapted = get_peft_model(layer, LoraConfig(r=1, lora_alpha=1, target_modules=["0"]))
    with torch.no_grad():
        module = adapted.base_model.model[0]
        module.base_layer.weight.fill_(1.0)
        module.lora_A["default"].weight.fill_(1.0)
        module.lora_B["default"].weight.copy_(torch.tensor([[2.0**-6], [2.0**-10]]))
    assert share_kept(adapted) == pytest.approx(256 / 257)


def test_the_merged_models_card_names_run_and_base(merged):
    card = (merged / "README.md").read_text()
    assert "The adapter is merged into the base's weights." in card
    assert "library_name: transformers" in card
    assert "| Method | dasd, with its default settings |" in card
    assert "license: apache-2.0" in card


def test_a_config_that_lies_above_by_chance_says_nothing_of_an_adapter(adapter, tmp_path):
    """Any config.yaml among the folders above was taken for the run's."""
    (tmp_path / "config.yaml").write_text("method: {name: rlsd}\ntraining: {steps: 5}\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    lying = shutil.move(adapter, tmp_path / "a" / "b" / "adapter")
    card = (merge(Path(lying), tmp_path / "merged") / "README.md").read_text()
    assert "rlsd" not in card
    assert "| Method |" not in card
