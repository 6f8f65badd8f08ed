"""What is vLLM told, and in which order do its answers come back?

vLLM needs a GPU, so a recorder stands in for it: this checks our side of the calls, not vLLM.
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest

from dasd.assets import BASE_MODEL
from dasd.config import BadInput, ModelConfig, SamplerConfig
from dasd.evaluation.samplers import NEUTRAL, Request, Sampled, SamplingFailed, SamplingParams, Watch, make_sampler
from dasd.model_fit import end_tokens
from dasd.models import load_model, load_tokenizer
from dasd.prompts import tokenize_prompt

REQUESTS = [Request(f"{i}/0", [{"role": "user", "content": f"Use 1 2 {i} to make 6."}], 100 + i) for i in range(5)]


@dataclass
class Recorder:
    """Stands in for `vllm.LLM`; a completion is the prompt's last two tokens and the seed."""

    started: dict = field(default_factory=dict)
    params: list = field(default_factory=list)
    reasons: dict = field(default_factory=dict)  # seed -> finish_reason, "stop" if not here
    shut: bool = False

    def LLM(self, **options):
        if "enforce_eage" in options:
            raise TypeError("LLM.__init__() got an unexpected keyword argument 'enforce_eage'")
        if options["gpu_memory_utilization"] < 0.2:
            raise ValueError("No available memory for the\n cache blocks")
        self.started = options
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=4096, dtype="torch.bfloat16"),
            engine_core=SimpleNamespace(shutdown=lambda: setattr(self, "shut", True)),
        )
        return self

    def generate(self, prompts, sampling_params, use_tqdm):
        assert use_tqdm is False
        self.params = sampling_params
        return [self._output(p["prompt_token_ids"], s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _output(self, ids, params):
        seed = params["seed"]
        one = SimpleNamespace(token_ids=(*ids[-2:], seed), text=f"text {seed}", finish_reason=self.reasons.get(seed, "stop"))
        return SimpleNamespace(prompt_token_ids=ids, outputs=[one])


@pytest.fixture
def recorder(monkeypatch):
    recorder, module = Recorder(), ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = recorder.LLM, dict, "0.25.0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    return recorder


def test_arguments_and_order(recorder):
    config = SamplerConfig(
        backend="vllm", batch_size=3, tensor_parallel_size=2, gpu_memory_utilization=0.8, max_model_len=4096,
        engine={"enforce_eager": True},
    )  # fmt: skip
    sampler = make_sampler(config, ModelConfig(dtype="bfloat16"))
    assert recorder.started == {
        "model": str(BASE_MODEL), "revision": None, "dtype": "bfloat16", "trust_remote_code": False,
        "tensor_parallel_size": 2, "gpu_memory_utilization": 0.8, "max_model_len": 4096, "enforce_eager": True,
    }  # fmt: skip
    recorder.reasons[103] = "length"
    sampled = sampler.sample(REQUESTS, SamplingParams(77, temperature=0.6, top_p=0.9))
    same = {"max_tokens": 77, "temperature": 0.6, "top_p": 0.9, "stop_token_ids": [sampler.tokenizer.eos_token_id], **NEUTRAL}
    assert recorder.params == [same | {"seed": 100 + i} for i in range(5)]
    tokenizer = load_tokenizer(ModelConfig())
    prompts = [tokenize_prompt(tokenizer, request.prompt) for request in REQUESTS]
    assert sampled == [
        Sampled([*prompts[i][-2:], 100 + i], f"text {100 + i}", "length" if i == 3 else "stop") for i in range(5)
    ]
    assert sampler.longest_prompt([request.prompt for request in REQUESTS]) == max(map(len, prompts))
    assert (sampler.batch_size, sampler.context_length, sampler.deterministic) == (3, 4096, False)
    assert sampler.describe()["vllm"] == "0.25.0"
    sampler.close()
    assert recorder.shut


@pytest.mark.parametrize("generation", [{"eos_token_id": [3, 5]}, None])
def test_vllm_stops_where_transformers_does(recorder, tmp_path, generation):
    """At the end of a turn as `model.chat_template` has it, and at every end token of the model's own."""
    folder = tmp_path / "model"
    shutil.copytree(BASE_MODEL, folder)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"eos_token": "<|endoftext|>"}))
    (folder / "generation_config.json").unlink()
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    config = ModelConfig(path=str(folder), chat_template="chatml")
    sampler = make_sampler(SamplerConfig(backend="vllm"), config)
    sampler.sample(REQUESTS[:1], SamplingParams(8))
    stops = recorder.params[0]["stop_token_ids"]
    model, tokenizer = load_model(config)
    assert stops == sorted(end_tokens(model.generation_config, tokenizer))
    assert sampler.tokenizer.convert_tokens_to_ids("<|im_end|>") in stops
    assert set(stops) >= set(generation["eos_token_id"] if generation else [])


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"dtype": "float16"}, "sampler.engine.dtype is set by dasd itself: use --model.dtype"),
        ({"max_model_len": 9}, "sampler.engine.max_model_len is set by dasd itself: use --sampler.max_model_len"),
        ({"enforce_eage": True}, "vLLM cannot load .*unexpected keyword argument 'enforce_eage'"),
    ],
)
def test_further_arguments_of_the_engine_are_refused_where_they_cannot_be(recorder, engine, said):
    with pytest.raises(BadInput, match=said):
        make_sampler(SamplerConfig(backend="vllm", engine=engine), ModelConfig())


def test_an_aborted_completion_is_no_sample(recorder):
    sampler = make_sampler(SamplerConfig(backend="vllm"), ModelConfig())
    recorder.reasons[102] = "abort"
    heard = []
    with pytest.raises(SamplingFailed, match="2/0: abort"):
        sampler.sample(REQUESTS, SamplingParams(8), Watch(lambda request, sampled: heard.append((request.key, sampled.text))))
    assert heard == [("0/0", "text 100"), ("1/0", "text 101"), ("3/0", "text 103"), ("4/0", "text 104")]


def test_what_is_missing_is_said(monkeypatch, recorder, tmp_path):
    with pytest.raises(BadInput, match=r"vLLM cannot load .*: No available memory for the cache blocks"):
        make_sampler(SamplerConfig(backend="vllm", gpu_memory_utilization=0.1), ModelConfig())
    with pytest.raises(BadInput, match="does not exist"):  # before vLLM takes the GPU
        make_sampler(SamplerConfig(backend="vllm"), ModelConfig(path=str(tmp_path / "nothing")))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=f"dasd merge {tmp_path}"):
        make_sampler(SamplerConfig(backend="vllm"), ModelConfig(path=str(tmp_path)))
    assert not recorder.started
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInput, match=r"pip install 'vllm>=0"):
        make_sampler(SamplerConfig(backend="vllm"), ModelConfig())
