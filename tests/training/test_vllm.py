"""Is vLLM refused in plain words where it cannot work, and does its correction reach the loss beside token credit?

vLLM itself is not here: TRL's check for it is replaced, a real HTTP server stands for its server, and rollouts are sampled by
transformers with log-probs handed over as vLLM's are.
"""

import inspect
import math
import re
import threading
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer, import_utils
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from dasd.cli import run as cli
from dasd.config import BadInput, RunConfig, dump_config, validate
from dasd.training import run, vllm
from dasd.training.arguments import trainer_arguments
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer
from dasd.training.vllm import check_vllm
from training.conftest import length_reward, tiny


def config(**trl):
    return validate(RunConfig, {"training": {"rollouts_per_step": 16, "micro_batch_size": 8, "trl": {"use_vllm": True} | trl}})


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(vllm, "refuse_cpu", lambda arguments: None)


@pytest.fixture
def installed(monkeypatch, on_gpu):
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: True)


@pytest.fixture
def server():
    """Starts a server that answers each path with the status it is told; the list notes what was asked."""
    started = []

    def start(statuses):
        asked = []

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                asked.append(path)
                self.send_response(statuses[path].pop(0) if len(statuses[path]) > 1 else statuses[path][0])
                self.end_headers()

            def log_message(self, *_):
                pass

        listening = HTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        started.append(listening)
        return f"http://127.0.0.1:{listening.server_port}", asked

    yield start
    for listening in started:
        listening.shutdown()
        listening.server_close()


def test_settings_that_are_named_are_trls():
    names = {field.name for field in fields(GRPOConfig)}
    assert {
        "use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "vllm_enable_sleep_mode",
        "vllm_importance_sampling_mode", "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
    } <= names  # fmt: skip


def test_every_correction_is_known_to_trl():
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert all(f'"{name}"' in source for name in vllm.CORRECTIONS)
    assert all(f'self.mode == "{name}"' in inspect.getsource(VLLMGeneration._init_vllm) for name in vllm.MODES)


def test_each_tokens_ratio_is_corrected_unless_asked_otherwise():
    assert trainer_arguments(config()).vllm_importance_sampling_mode == "token_truncate"
    assert SelfDistillationConfig("out", bf16=False).vllm_importance_sampling_mode == "token_truncate"
    chosen = trainer_arguments(config(vllm_importance_sampling_mode="sequence_mask"))
    assert chosen.vllm_importance_sampling_mode == "sequence_mask"


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("colocate", "training.trl.use_vllm needs a GPU, since vLLM on CPUs packs its weights"),
        ("server", "vllm_mode server needs an NVIDIA GPU in the trainer, which is on cpu, since weights travel .* over NCCL"),
    ],
)
def test_a_trainer_on_a_cpu_is_refused_in_one_sentence(monkeypatch, tmp_path, capsys, mode, message):
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: pytest.fail("asked for vLLM"))
    path, output = tmp_path / "run.yaml", tmp_path / "run"
    path.write_text(dump_config(config(vllm_mode=mode).model_copy(update={"output": str(output)})))
    assert cli(["train", str(path)]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert re.fullmatch(r"dasd: [^\n]*: leave (it|use_vllm) out and transformers samples the rollouts\n", said)
    assert ". " not in said
    assert not output.exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vllm_in_this_process_is_told_type_and_seed(monkeypatch, tokenizer, problems, arguments, dtype):
    """TRL has no field for them: vLLM would take a float32 model for bfloat16, and draw alike under every seed."""
    started = {}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # TRL sets them: undone after this test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(vllm_generation, "LLM", lambda **told: started.update(told) or SimpleNamespace(), raising=False)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    model = tiny(tokenizer).to(getattr(torch, dtype))
    settings = arguments(use_vllm=True, vllm_mode="colocate", seed=7)
    SelfDistillationTrainer(model, length_reward, settings, train_dataset=as_dataset(problems), processing_class=tokenizer)
    assert (started["dtype"], started["seed"], started["revision"]) == (dtype, 7, None)
    assert started["logprobs_mode"] == "processed_logprobs"  # what TRL says stays


@pytest.mark.parametrize("own", [None, {"stop_token_ids": [7], "frequency_penalty": 0.5}])
def test_vllm_in_this_process_stops_at_our_end_tokens(monkeypatch, tokenizer, problems, arguments, own):
    """It knows its own tokenizer's end token, and not the one that `model.chat_template` sets; what a user says stays."""
    written = [SimpleNamespace(prompt_token_ids=[1, 2], outputs=[SimpleNamespace(token_ids=[3], logprobs=None)])]
    engine = SimpleNamespace(generate=lambda prompts, sampling_params, use_tqdm: written)
    asked = []
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # TRL sets them: undone after this test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(vllm_generation, "LLM", lambda **told: engine, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", lambda **told: asked.append(told), raising=False)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    settings = arguments(use_vllm=True, vllm_mode="colocate", generation_kwargs=own)
    model = tiny(tokenizer, eos_token_id=[3, 5])
    trainer = SelfDistillationTrainer(
        model, length_reward, settings, train_dataset=as_dataset(problems), processing_class=tokenizer
    )
    trainer.vllm_generation.generate([[1, 2]], None, 1)
    ours = {3, 5, tokenizer.eos_token_id}
    assert set(asked[0]["stop_token_ids"]) == (ours if own is None else ours | {7})
    assert asked[0].get("frequency_penalty") == (None if own is None else 0.5)
    assert settings.generation_kwargs == own, "a user's own arguments are left alone"


def test_a_server_is_told_what_a_colocated_engine_is():
    """TRL hands the same arguments to both."""
    source = inspect.getsource(VLLMGeneration.generate)
    assert '"generation_kwargs": self.generation_kwargs' in source
    assert "generation_kwargs.update(self.generation_kwargs)" in source
    assert "sampling_params.update(generation_kwargs or {})" in inspect.getsource(VLLMClient.generate)


def test_mixed_precision_decides_what_vllm_samples_in(train, caplog):
    trainer = train(max_steps=1)
    caplog.clear()  # of what the run itself said
    assert vllm.computes_in(trainer) == "float32"
    vllm.warn_of_another_dtype(trainer, "torch.float32")
    assert not caplog.records
    trainer.accelerator.state._mixed_precision = "bf16"
    assert vllm.computes_in(trainer) == "bfloat16"
    vllm.warn_of_another_dtype(trainer, "torch.float32")
    assert "samples in float32 and the trainer computes in bfloat16" in caplog.text
    assert "--dtype bfloat16" in caplog.text


def test_a_run_without_vllm_is_refused_before_anything_is_loaded(monkeypatch, tmp_path, on_gpu):
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: False)
    monkeypatch.setattr(run, "load_problems", lambda *_: pytest.fail("loaded problems"))
    output = tmp_path / "run"
    with pytest.raises(BadInput, match=r"pip install 'vllm>=0"):
        run.train(config().model_copy(update={"output": str(output)}))
    assert not output.exists()


def test_a_version_that_trl_does_not_support_is_refused_in_its_words(monkeypatch, on_gpu):
    """TRL's own check, told that version 0.11.0 is there."""
    monkeypatch.setattr(import_utils, "_is_package_available", lambda *_, **__: (True, "0.11.0"))
    with pytest.raises(BadInput, match=r"from 0\.22\.0 to 0\.31\.0\. You have version 0\.11\.0 installed\. Install one"):
        check_vllm(trainer_arguments(config()))
    monkeypatch.setattr(import_utils, "_is_package_available", lambda *_, **__: (True, "0.31.0"))
    check_vllm(trainer_arguments(config()))


@pytest.mark.parametrize(
    ("trl", "message"),
    [
        ({"vllm_mode": "colocated"}, "did you mean 'colocate'"),
        ({"vllm_importance_sampling_mode": "token"}, "token_truncate, token_mask"),
        ({"vllm_gpu_memory_utilization": 30}, "between 0 and 1, got 30"),
        ({"vllm_tensor_parallel_size": 2}, r"vllm_tensor_parallel_size \(2\) must divide the number of processes \(1\)"),
    ],
)
def test_wrong_settings_are_refused(installed, trl, message):
    with pytest.raises(BadInput, match=message):
        check_vllm(trainer_arguments(config(**trl)))


def test_without_use_vllm_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: pytest.fail("asked for vLLM"))
    check_vllm(trainer_arguments(config(use_vllm=False, vllm_mode="colocated")))


def test_a_server_that_is_not_there_is_named_with_the_command_that_starts_it(installed):
    settings = {"vllm_mode": "server", "vllm_server_base_url": "http://127.0.0.1:9/", "vllm_server_timeout": 0.0}
    with pytest.raises(BadInput, match=r"http://127\.0\.0\.1:9 does not answer \(waited 0 s: .*refused") as caught:
        check_vllm(trainer_arguments(config(**settings)))
    assert "vllm serve" in str(caught.value)


def test_a_server_that_is_still_loading_is_waited_for(installed, server, monkeypatch):
    monkeypatch.setattr(vllm, "SECONDS_BETWEEN_ATTEMPTS", 0.01)
    url, asked = server({"/health": [503, 503, 200], "/server_info": [200]})
    check_vllm(trainer_arguments(config(vllm_mode="server", vllm_server_base_url=url, vllm_server_timeout=30.0)))
    assert asked == ["/health"] * 3 + ["/server_info"]


def test_a_server_that_takes_no_weights_is_refused(installed, server):
    url, _ = server({"/health": [200], "/server_info": [404]})
    with pytest.raises(BadInput, match="VLLM_SERVER_DEV_MODE=1 vllm serve"):
        check_vllm(trainer_arguments(config(vllm_mode="server", vllm_server_base_url=url, vllm_server_timeout=5.0)))


class LikeVllm(SelfDistillationTrainer):
    """Samples with transformers and hands over log-probs as vLLM does: here the policy's own, shifted."""

    shift = 0.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.use_vllm, self._last_loaded_step, self.seen = True, -1, []

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        self.use_vllm = False
        completions, _ = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        self.use_vllm = True
        logps = []
        for prompt, completion in zip(prompt_ids, completions, strict=True):
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
            logps.append((chosen + self.shift).tolist())
        return completions, logps

    def _compute_loss(self, model, inputs):
        self.seen.append(inputs)
        return super()._compute_loss(model, inputs)


def first_step(kind, method, tokenizer, problems, arguments):
    """(batch as the loss saw it, norm of the gradient)."""
    settings = arguments(method=method, max_steps=1)
    trainer = kind(tiny(tokenizer), length_reward, settings, train_dataset=as_dataset(problems), processing_class=tokenizer)
    trainer.train()
    return trainer.seen[0], trainer.state.log_history[0]["grad_norm"]


@pytest.mark.parametrize("method", ["dasd", "grpo"])
def test_the_correction_reaches_a_loss_whose_advantages_stay_per_token(method, tokenizer, problems, arguments):
    """Log-probs of vLLM that lie log 2 below the policy's double the gradient; credit is the same."""
    batch, norm = first_step(LikeVllm, method, tokenizer, problems, arguments)
    lower = type("Lower", (LikeVllm,), {"shift": -math.log(2)})
    doubled, twice_the_norm = first_step(lower, method, tokenizer, problems, arguments)
    shape, valid = batch["completion_ids"].shape, batch["completion_mask"].bool()
    assert batch["importance_sampling_ratio"].shape == batch["old_per_token_logps"].shape == shape
    assert batch["advantages"].shape == shape
    torch.testing.assert_close(batch["importance_sampling_ratio"][valid], torch.ones(valid.sum()), atol=1e-3, rtol=0)
    torch.testing.assert_close(doubled["importance_sampling_ratio"][valid], torch.full((valid.sum(),), 2.0), atol=2e-3, rtol=0)
    torch.testing.assert_close(doubled["advantages"], batch["advantages"])
    assert norm > 0.1
    assert twice_the_norm == pytest.approx(2 * norm, rel=1e-2)


def test_a_method_that_compares_distributions_trains_on_what_vllm_sampled(tokenizer, problems, arguments):
    """Its credit is made in the loss, beside TRL's recorded pass and ratio."""
    batch, norm = first_step(LikeVllm, "sdft", tokenizer, problems, arguments)
    assert batch["importance_sampling_ratio"].shape == batch["completion_ids"].shape
    assert math.isfinite(norm)
    assert norm > 0
