"""Is a model that can be used used, and one that cannot refused with the reason, in doctor as in train, eval and tokens?"""

import json
import logging
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
)

from dasd.assets import BASE_MODEL
from dasd.cli import run
from dasd.config import BadInput, EvalConfig, ModelConfig
from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import uniforms, write
from dasd.model_fit import completion_room, context_length
from dasd.models import load_model, load_tokenizer

ROPE = {"rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 16, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "original_max_position_embeddings": 16, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        (None, 64),
        ({"rope_type": "default"}, 64),
        ({"rope_type": "yarn", "factor": 8.0}, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}, 64),
        ({"rope_type": "linear", "factor": 2.0}, 128),
        ({"rope_type": "dynamic", "factor": 3.0}, 192),
        (LLAMA3, 64),
        (LONG, 64),
    ],
)  # fmt: skip
def test_how_far_rotary_embeddings_reach(rope, length):
    settings = {} if rope is None else {"rope_parameters": ROPE | rope}
    config = LlamaConfig(max_position_embeddings=64, hidden_size=64, num_attention_heads=4, **settings)
    assert context_length(config) == length


def test_published_settings():
    """As the model cards of Qwen3 and Gemma 3 have it; a config that says nothing."""
    qwen = Qwen3Config(
        max_position_embeddings=40960,
        rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6},
    )
    assert context_length(qwen) == 131072
    gemma = Gemma3TextConfig(
        max_position_embeddings=131072,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    assert context_length(gemma) == 131072
    assert context_length(MistralConfig(max_position_embeddings=4096, sliding_window=64)) == 4096
    assert context_length(GPT()) is None


class GPT:
    model_type = "gpt"

    def get_text_config(self):
        return self


def test_room(caplog):
    assert completion_room(100, 20, None, chosen=True) == completion_room(100, 20, 120, chosen=False) == 100
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "dasd"):
        assert completion_room(100, 20, 90, chosen=False) == 70
    assert caplog.messages == [
        "Completions may have 70 tokens, not the usual 100: the longest prompt has 20, and the model's context is 90."
    ]
    with pytest.raises(BadInput, match="exceed the model's context of 90: set max_completion_length to 70 or less"):
        completion_room(100, 20, 90, chosen=True)
    with pytest.raises(BadInput, match="take shorter prompts, or a model with a longer context"):
        completion_room(100, 90, 90, chosen=False)


# ---------------------------------------------------------------- the bundled model, changed

TRAIN = """
model: {{path: {model}}}
data: {{limit: 16}}
method: {{name: dasd}}
training: {{steps: 1, rollouts_per_step: 4, group_size: 2, micro_batch_size: 4, max_completion_length: {length}}}
output: {output}
"""


@pytest.fixture
def changed(tmp_path):
    """A function that copies the bundled model with changes to its JSON files: {file: {key: value, or None to take it out}}."""

    def change(**files):
        folder = tmp_path / "model"
        shutil.copytree(BASE_MODEL, folder)
        for name, changes in files.items():
            path = folder / f"{name}.json"
            values = json.loads(path.read_text()) if path.exists() else {}
            values = {key: value for key, value in (values | changes).items() if value is not None}
            path.write_text(json.dumps(values))
        return folder

    return change


def everywhere(model, tmp_path, length=8):
    """Exit codes of doctor, train, eval and tokens on this model."""
    config = tmp_path / "config.yaml"
    config.write_text(TRAIN.format(model=model, output=tmp_path / "run", length=length))
    short = ["--max_completion_length", str(length)]
    return [
        run(["doctor", str(config)]),
        run(["train", str(config)]),
        run(["eval", str(model), "--output", str(tmp_path / "eval"), "--data.limit", "2", "--num_samples", "2", *short]),
        run(["tokens", str(model), "--output", str(tmp_path / "tokens"), "--problems", "1", "--rollouts", "2", *short]),
    ]


def test_long_rope_is_used_to_its_end(changed, tmp_path):
    rope = {"rope_type": "yarn", "factor": 8.0, "rope_theta": 10000.0}
    model = changed(config={"max_position_embeddings": 64, "rope_parameters": rope, "rope_scaling": None})
    assert context_length(AutoModelForCausalLM.from_pretrained(model).config) == 512
    assert everywhere(model, tmp_path, length=100) == [0, 0, 0, 0]


def test_a_tokenizer_without_pad_and_end(changed, tmp_path):
    """The end token is the model's own then."""
    own = AutoTokenizer.from_pretrained(BASE_MODEL)
    model = changed(tokenizer_config={"pad_token": None, "eos_token": None})
    assert AutoTokenizer.from_pretrained(model).eos_token is None
    tokenizer = load_tokenizer(ModelConfig(path=str(model)))
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == own.eos_token_id
    assert everywhere(model, tmp_path) == [0, 0, 0, 0]


def test_a_model_without_any_end(changed, tmp_path, capsys):
    no = {"eos_token_id": None, "pad_token_id": None}
    model = changed(tokenizer_config={"pad_token": None, "eos_token": None}, config=no, generation_config=no)
    assert everywhere(model, tmp_path) == [2, 2, 2, 2]
    said = capsys.readouterr()
    assert (said.out + said.err).count("neither its tokenizer nor its config names an end token") == 4
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_is_larger_than_the_model(changed, tmp_path, capsys):
    model = changed()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(model)
    assert everywhere(model, tmp_path) == [2, 2, 2, 2]
    size = AutoModelForCausalLM.from_pretrained(model).config.vocab_size
    said = capsys.readouterr()
    message = f"its tokenizer's token '<new>' has the number {size}, and the model embeds the numbers 0 to {size - 1}"
    assert (said.out + said.err).replace("\n", " ").count(message) == 4


def test_a_model_that_is_larger_than_its_tokenizer(changed, tmp_path):
    """It may write tokens that stand for nothing: counted and read as any others."""
    folder = changed()
    model = AutoModelForCausalLM.from_pretrained(folder)
    known = model.config.vocab_size
    model.resize_token_embeddings(known + 32, mean_resizing=False)
    model.get_input_embeddings().weight.data[known:] = model.get_input_embeddings().weight.data[:32] * 1.01
    model.save_pretrained(folder)
    assert everywhere(folder, tmp_path) == [0, 0, 0, 0]
    ids = [
        token
        for line in (tmp_path / "eval" / "samples.jsonl").read_text().splitlines()
        for token in json.loads(line)["token_ids"]
    ]
    assert max(ids) >= known


def test_own_generation_settings_are_said_once_and_not_used(changed, tmp_path, caplog):
    """With them a completion could not end before 50 tokens, nor hold an `=`."""
    own = AutoTokenizer.from_pretrained(BASE_MODEL)
    equals = own("=", add_special_tokens=False)["input_ids"][-1]
    settings = {
        "min_new_tokens": 50, "suppress_tokens": [equals], "no_repeat_ngram_size": 2, "repetition_penalty": 3.0, "top_k": 1,
        "do_sample": True, "temperature": 0.1,
    }  # fmt: skip
    model = changed(generation_config=settings)
    with caplog.at_level(logging.WARNING, "dasd"):
        loaded, _ = load_model(ModelConfig(path=str(model)))
    [said] = [message for message in caplog.messages if "own generation settings" in message]
    for name in ("min_new_tokens 50", "no_repeat_ngram_size 2", "repetition_penalty 3.0", "top_k 1", "temperature 0.1"):
        assert name in said
    assert loaded.generation_config.min_new_tokens is None
    assert (
        loaded.generation_config.eos_token_id == AutoModelForCausalLM.from_pretrained(BASE_MODEL).generation_config.eos_token_id
    )
    assert everywhere(model, tmp_path, length=60)[1:3] == [0, 0]
    plain = tmp_path / "plain"
    assert (
        run(
            [
                "eval",
                "bundled",
                "--output",
                str(plain),
                "--data.limit",
                "2",
                "--num_samples",
                "2",
                "--max_completion_length",
                "60",
            ]
        )
        == 0
    )
    text = [json.loads(line)["text"] for line in (tmp_path / "eval" / "samples.jsonl").read_text().splitlines()]
    assert text == [json.loads(line)["text"] for line in (plain / "samples.jsonl").read_text().splitlines()]
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert metrics["completions/min_length"] < 50
    kept = GenerationConfig.from_pretrained(tmp_path / "run" / "checkpoints" / "final")
    assert (kept.min_new_tokens, kept.top_k) == (50, 1)


def test_the_default_length_fits_the_model(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "dasd"):
        assert run(["eval", "bundled", "--output", str(tmp_path / "a"), "--data.limit", "2", "--num_samples", "1"]) == 0
    [said] = [message for message in caplog.messages if message.startswith("Completions may have")]
    settings = json.loads((tmp_path / "a" / "eval.json").read_text())["identity"]["settings"]
    assert f"may have {settings['max_completion_length']} tokens, not the usual {EvalConfig().max_completion_length}" in said
    assert 400 < settings["max_completion_length"] < 512
    assert (
        run(["eval", "bundled", "--output", str(tmp_path / "b"), "--data.limit", "2", "--max_completion_length", "1024"]) == 2
    )


def test_a_sliding_window(tmp_path):
    """Texts are longer than the window: written as transformers itself writes them, in a batch that shrinks; trained on too."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(ModelConfig())
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, sliding_window=5, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    texts = "Use 3 7 8 to make 29. Perhaps 3 * 7 = 21, so 21 + 8 = 29.", "Use 12 4 to make 3."
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    assert min(map(len, prompts)) > 5
    params, end = SamplingParams(40, temperature=0), tokenizer.eos_token_id
    written = write(model, prompts, [0, 1, 1, 0], uniforms([0, 1, 2, 3], 40), params, [end], tokenizer.pad_token_id)
    for row, prompt in zip(written, (prompts[0], prompts[1], prompts[1], prompts[0]), strict=True):
        wanted = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0, len(prompt) :].tolist()
        assert row == wanted
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert everywhere(tmp_path / "model", tmp_path, length=30) == [0, 0, 0, 0]
