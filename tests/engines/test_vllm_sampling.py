"""Does vLLM sample the same model as transformers, in this process and as a server, and whatever defaults the model brings?

The engine itself, on CPUs: `make test-vllm`. What our side sends is tested without it in `tests/evaluation/samplers`.
"""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request as Asked
from urllib.request import urlopen

import pytest

from dasd.assets import BASE_MODEL
from dasd.cli import run
from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers import Request, SamplingParams
from dasd.evaluation.samplers.openai import OpenAISampler
from dasd.evaluation.samplers.transformers import TransformersSampler

vllm = pytest.importorskip("vllm")
from dasd.evaluation.samplers.vllm import VllmSampler  # noqa: E402

PROBLEMS, SAMPLES = 100, 8
# Eager: compiling takes a minute on a CPU. A seeded request in a prefill that is cut in chunks ends vLLM's CPU engine.
ENGINE = {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": 16384}
SERVE = ["--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "16384", "--max-model-len", "512"]
LAYERS = {"transformers": TransformersSampler, "vllm": VllmSampler, "openai": OpenAISampler}
SAME = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


@pytest.fixture(scope="module", autouse=True)
def on_cpus():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        yield


@pytest.fixture(scope="module")
def opinionated(tmp_path_factory):
    """The bundled model with a generation_config.json that would make it greedy, short and averse to repeating itself."""
    folder = tmp_path_factory.mktemp("model") / "opinionated"
    shutil.copytree(BASE_MODEL, folder)
    path = folder / "generation_config.json"
    own = {"top_k": 1, "top_p": 0.5, "min_p": 0.5, "temperature": 0.1, "repetition_penalty": 1.5, "max_new_tokens": 16}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    return folder


def test_a_turn_ends_where_the_chat_template_says(tmp_path):
    """A base model with another end token on file: vLLM reads that from the folder, and never sees the one that we set."""
    folder = tmp_path / "base"
    shutil.copytree(BASE_MODEL, folder)
    for name, entry, value in (
        ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
        ("generation_config.json", "eos_token_id", 465),
        ("config.json", "eos_token_id", 465),
    ):
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(said | {entry: value}))
    model = ModelConfig(path=str(folder), chat_template="chatml", dtype="float32")
    sampler = VllmSampler(SamplerConfig(backend="vllm", engine=ENGINE), model)
    asked = [Request(f"{i}/0", [{"role": "user", "content": f"Use 3 5 7 {i + 2} to make 24."}], i) for i in range(16)]
    try:
        sampled = sampler.sample(asked, SamplingParams(96))
    finally:
        sampler.close()
    ended = [one for one in sampled if one.finish_reason == "stop"]
    assert len(ended) > 12
    assert all(one.token_ids.index(sampler.tokenizer.eos_token_id) == len(one.token_ids) - 1 for one in ended)
    assert all("<|im_end|>" not in one.text for one in ended)


@pytest.fixture(scope="module")
def server(opinionated, tmp_path_factory):
    """`vllm serve` with that model; its address."""
    folder = tmp_path_factory.mktemp("server")
    # `vllm serve` asks a distribution of the name vllm for its version and device, and the build for CPUs is called vllm-cpu.
    version = f"{vllm.__version__.partition('+')[0]}+cpu"
    entry = folder / f"vllm-{version}.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("vllm"), "serve", opinionated, "--host", "127.0.0.1", "--port", port, *SERVE]
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    said = folder / "said.txt"
    with said.open("w") as out:
        process = subprocess.Popen(list(map(str, command)), env=os.environ | {"PYTHONPATH": path}, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, said.read_text()[-3000:]
            assert time.monotonic() < deadline, said.read_text()[-3000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def answers(url):
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def evaluate(opinionated, tmp_path_factory):
    """`dasd eval` of that model by a backend, once: (its summary, samples a second without start and grading)."""
    done = {}

    def by(backend, *words):
        if backend in done:
            return done[backend]
        output, seconds = tmp_path_factory.mktemp(backend) / "eval", []
        sample = LAYERS[backend].sample

        def timed(*arguments):
            started = time.perf_counter()
            sampled = sample(*arguments)
            seconds.append(time.perf_counter() - started)
            return sampled

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LAYERS[backend], "sample", timed)
            words = ["--sampler.backend", backend, "--data.limit", str(PROBLEMS), "--num_samples", str(SAMPLES), *words]
            words += ["--max_completion_length", "96", "--sampler.batch_size", "800", "--output", str(output)]
            assert run(["eval", str(opinionated), *words]) == 0
        summary = json.loads((output / "summary.json").read_text())
        done[backend] = summary, PROBLEMS * SAMPLES / sum(seconds)
        interval = ", ".join(f"{bound:.4f}" for bound in summary["ci95"]["pass_at_1"])
        print(f"{backend}: {summary['pass_at_1']:.4f} [{interval}], {done[backend][1]:.1f} samples/s")  # shown by pytest -s
        return done[backend]

    return by


def test_the_same_accuracy_as_transformers_in_this_process_and_as_a_server(evaluate, server):
    """Of a model whose own generation config would have it greedy: none of the three heeds it."""
    urls = ["--sampler.base_urls", server, "--sampler.return_token_ids", "true"]
    ours, _ = evaluate("transformers")
    for summary in (evaluate("vllm", "--sampler.engine", json.dumps(ENGINE))[0], evaluate("openai", *urls)[0]):
        for name in ("pass_at_1", "mean_length", "epistemic_per_response"):
            widths = [(high - low) / 2 for high, low in (map(float, reversed(each["ci95"][name])) for each in (ours, summary))]
            assert 0 < abs(summary[name] - ours[name]) < math.hypot(*widths), name
        assert 0.2 < summary["pass_at_1"] < 0.6
        assert summary["distinct_at_8"] > 1.1  # samples of a problem differ


def ask(url, model, **fields):
    """The text of one completion by plain HTTP, with these fields beside a prompt and a length."""
    messages = [{"role": "user", "content": "Use 3 5 7 2 to make 24."}]
    body = {"model": str(model), "messages": messages, "max_tokens": 12} | fields
    request = Asked(f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def test_without_our_fields_the_models_own_defaults_would_have_decided(server, opinionated):
    """The opening word is left out: "try" and "maybe" are so nearly as likely that greedy turns on a logit's rounding."""

    def steps(**fields):
        return {ask(server, opinionated, seed=seed, **fields).partition(" ")[2] for seed in range(8)}

    assert len(steps()) == 1  # greedy
    assert len(steps(**SAME, temperature=1.0, top_p=1.0)) > 4


def test_a_seed_gives_one_sample_again(server, opinionated):
    fields = SAME | {"temperature": 1.0, "top_p": 1.0, "seed": 5}
    assert len({ask(server, opinionated, **fields) for _ in range(4)}) == 1
