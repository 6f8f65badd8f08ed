"""Does a dry run say what a run would need, refuse what no run could start with, and leave nothing behind?"""

import json
import os
import re

import pytest
import torch
from transformers import Qwen3Config

from dasd.cli import run
from dasd.config import BadInput, RunConfig, make_config
from dasd.training import dry_run, memory
from dasd.training.dry_run import Hardware, make_plan
from dasd.training.memory import GIB
from dasd.training.trainer import SelfDistillationTrainer

SHAPE = {
    "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 6144, "vocab_size": 151_936, "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Qwen3-1.7B's config.json, and nothing else."""
    path = tmp_path_factory.mktemp("qwen3")
    Qwen3Config(**SHAPE).save_pretrained(path)
    return path


@pytest.fixture
def plan(folder):
    def make(words="", **hardware):
        config = make_config(RunConfig, {}, ["--model.path", str(folder), *words.split()])
        return make_plan(config, Hardware(**{"gpu_memory": 80.0} | hardware))

    return make


def sizes_of(plan):
    return {part.name: (part.generate, part.update) for part in plan.parts}


def test_weights_are_counted_and_none_are_made(plan):
    made = plan()
    assert made.sizes == memory.ModelSizes(1_720_574_976, 1_720_574_976, 28, 2048, 2048, 1024, 6144, 151_936, 2)
    assert made.arguments.bf16
    assert made.arguments.gradient_checkpointing


def test_an_adapter_is_counted_as_peft_makes_it(plan):
    """Rank x (in + out) of each of a layer's seven projections."""
    made = plan("--training.lora_rank 16")
    layer = (2048 + 2048) * 2 + (2048 + 1024) * 2 + (2048 + 6144) * 3
    assert made.sizes.trainable == 28 * 16 * layer
    assert made.sizes.weight_bytes == 2


def test_a_base_in_few_bits_packs_the_projections_alone(plan):
    """Embeddings and norms stay bfloat16, the adapter is float32."""
    whole, packed = plan("--training.lora_rank 16"), plan("--training.lora_rank 16 --model.quantization 4bit")
    layers = 28 * 2048 * (2 * 2048 + 2 * 1024 + 3 * 6144)
    assert sizes_of(whole)["weights"][0] - sizes_of(packed)["weights"][0] == pytest.approx((2 - 0.52) * layers)


def test_the_workload_is_trls(plan):
    """128 rollouts over 4 processes in micro-batches of 8, sampled twice a step."""
    words = "--training.micro_batch_size 8 --training.trl.steps_per_generation 2 --training.max_completion_length 2048"
    work = plan(words, processes=4).work
    assert (work.micro_batch, work.rollouts, work.completion, work.processes) == (8, 16, 2048, 4)
    assert (work.accumulates, work.generations_per_step, work.optimizer) == (True, 2, "adamw_torch_fused")


def test_groups_over_several_processes_are_whole(plan):
    """Each process samples 4 of a group of 8: whole only because TRL's own check counts all processes."""
    assert plan("--training.micro_batch_size 4 --training.trl.steps_per_generation 1", processes=4).work.rollouts == 4
    with pytest.raises(BadInput, match="divisible by num_generations"):
        plan("--training.micro_batch_size 4 --training.trl.steps_per_generation 1", processes=1)


@pytest.mark.parametrize(
    ("words", "copies"),
    [
        ("--teacher.weights live", 0),
        ("--teacher.weights frozen", 2),
        ("--teacher.weights ema", 6),
        ("--teacher.weights ema --model.dtype float32", 4),
        ("--teacher.weights ema --method.name grpo", 0),
    ],
)
def test_a_kept_teacher_costs_a_copy_of_what_is_trained(plan, words, copies):
    made = plan(words)
    assert sizes_of(made).get("teacher's copy", (0, 0))[1] == copies * made.sizes.trainable


def test_a_reference_model_and_distributions_are_counted(plan):
    assert sizes_of(plan("--training.trl.beta 0.04"))["reference model"][1] == 2 * 1_720_574_976
    assert "reference model" not in sizes_of(plan("--training.trl.beta 0.04 --training.lora_rank 16"))
    assert sizes_of(plan("--method.name sdft"))["distributions"][1] > GIB
    assert "distributions" not in sizes_of(plan())


def test_sampling_on_a_cpu_lays_weights_out_where_there_is_room(plan, monkeypatch):
    words = "--training.lora_rank 16 --training.rollouts_per_step 64 --training.micro_batch_size 1"
    copy = 2 * (28 * 2048 * (2 * 2048 + 2 * 1024 + 3 * 6144) + 151_936 * 2048)
    for there, lays_out in ((64 * GIB, True), (8 * GIB, False)):
        monkeypatch.setattr(Hardware, "memory", there)
        made = plan(words, device="cpu", gpu_memory=None)
        assert made.work.lays_out is lays_out
        assert (sizes_of(made)["sampling"][0] > copy) is lays_out
    assert not plan(words + " --training.sampler trl", device="cpu", gpu_memory=None).work.lays_out
    assert not plan(words + " --model.dtype float32", device="cpu", gpu_memory=None).work.lays_out
    assert not plan(words).work.lays_out


def test_a_cpu_has_its_own_defaults(plan, capsys, folder):
    """Autocast for an adapter on bfloat16 only; no checkpointing, no CUDA; this machine's memory, shared by its processes."""
    assert not plan("", device="cpu", gpu_memory=None).arguments.bf16
    made = plan("--training.lora_rank 16", device="cpu", gpu_memory=None)
    assert made.arguments.bf16
    assert not made.arguments.gradient_checkpointing
    assert (made.work.device, made.work.prompts) == ("cpu", 16)
    assert "process" in sizes_of(made)
    assert made.hardware.memory == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert plan("--training.sampler trl", device="cpu", gpu_memory=None).work.prompts is None
    words = ["--model.path", str(folder), "--training.lora_rank", "16", "--training.micro_batch_size", "4", "--dry-run"]
    (folder / "run.yaml").write_text("{}")
    run(["train", str(folder / "run.yaml"), *words, "--device", "cpu", "--processes", "2"])
    said = capsys.readouterr().out
    assert "GiB on each process" in said
    assert "on 2 processes on CPUs" in said
    assert "MALLOC_TRIM_THRESHOLD_" in said
    assert "--sharding" not in said


def test_vllm_is_planned_for_without_being_here(plan):
    made = plan("--training.trl.use_vllm true --training.trl.vllm_gpu_memory_utilization 0.3")
    assert sizes_of(made)["vLLM"] == (pytest.approx(24 * GIB), pytest.approx(24 * GIB))
    tokens = 512 + 1024
    room = 24 * GIB - dry_run.VLLM_WORKING - 2 * 1_720_574_976
    assert made.vllm_holds == int(room // (tokens * 28 * 2 * 1024 * 2))
    assert not plan("--training.trl.use_vllm true --training.trl.vllm_gpu_memory_utilization 0.06").fits
    with pytest.raises(BadInput, match="--gpu_memory 80"):
        plan("--training.trl.use_vllm true", gpu_memory=None)


def test_fsdp2_gradients_are_whole_unless_reduced_each_time(plan):
    settings = '--training.trl.accelerator_config={"gradient_accumulation_kwargs":{"sync_each_batch":true}}'
    kept, reduced = (sizes_of(plan(words, processes=8, sharding="fsdp2")) for words in ("", settings))
    assert kept["gradients"][1] == reduced["gradients"][1]  # one micro-batch a step
    kept = sizes_of(plan("--training.micro_batch_size 4", processes=8, sharding="fsdp2"))
    assert kept["gradients"][1] - reduced["gradients"][1] == 2 * 1_720_574_976


@pytest.mark.parametrize(
    ("words", "hardware", "message"),
    [
        ("--method.betta 1", {}, "did you mean 'beta'"),
        ("--teacher.weights adapter_off", {}, "LoRA adapter"),
        ("--teacher.weights frozen", {"sharding": "zero3", "processes": 8}, "'frozen' keep a copy.*use.*FSDP2"),
        ("--training.lora_rank 8 --training.lora_targets nothing_here", {}, "cannot be built"),
        ("--training.trl.epsilonn 1", {}, "did you mean 'epsilon'"),
        ("--training.trl.optim lomo", {}, "not known"),
        ("--training.trl.use_vllm true --training.trl.vllm_tensor_parallel_size 3", {"processes": 8}, r"\(8\)"),
        ("", {"processes": 3}, "multiple of micro_batch_size x processes"),
        ("", {"processes": 0}, "--processes must be a number above 0"),
        ("", {"gpu_memory": float("nan")}, "--gpu_memory must be a number above 0, got nan"),
        ("", {"gpu_memory": float("inf")}, "--gpu_memory must be a number above 0, got inf"),
        ("", {"sharding": "zero4"}, "none, zero2, zero3, fsdp2"),
        ("", {"device": "tpu"}, "--device must be gpu or cpu, got 'tpu'"),
        ("", {"device": "cpu"}, "leave out --gpu_memory"),
        ("", {"device": "cpu", "gpu_memory": None, "sharding": "fsdp2", "processes": 2}, "leave out --sharding"),
        ("--training.trl.use_vllm true", {"device": "cpu", "gpu_memory": None}, "needs a GPU"),
    ],
)
def test_what_no_run_could_start_with_is_refused(plan, words, hardware, message):
    with pytest.raises(BadInput, match=message):
        plan(words, **hardware)


def test_a_model_that_cannot_be_had_is_named_with_what_is_enough(plan):
    with pytest.raises(BadInput, match=r"no folder here.*Its config\.json alone is enough"):
        plan("--model.path Qwen/Qwen3-8B")


def test_experts_are_not_guessed_at(tmp_path, plan):
    from transformers import Qwen3MoeConfig

    Qwen3MoeConfig(num_hidden_layers=1, hidden_size=32, num_experts=2).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="dense decoders only"):
        plan(f"--model.path {tmp_path}")


@pytest.fixture
def typed(folder, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"model: {json.dumps({'path': str(folder)})}\ntraining: {{micro_batch_size: 4}}\n")

    def command(*words):
        code = run(["train", "config.yaml", *words])
        captured = capsys.readouterr()
        assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
        return code, captured.out, captured.err

    return command


def test_a_plan_that_fits(typed):
    code, out, _ = typed("--dry-run", "--gpu_memory", "80", "--training.max_completion_length", "512")
    assert code == 0
    assert "1,720,574,976 parameters" in out
    assert re.search(r"Fits: \d+\.\d of 80 GiB\.", out)
    assert "--model.dtype float32" in out


def test_a_plan_that_does_not_fit_names_its_largest_part_and_changes_that_fit(typed, monkeypatch):
    monkeypatch.setattr(SelfDistillationTrainer, "__init__", lambda *_, **__: pytest.fail("made a trainer"))
    code, out, _ = typed("--dry-run", "--gpu_memory", "24", "--training.max_completion_length", "4096")
    assert code == 2
    assert "Largest: KV cache." in out
    changes = re.findall(r"^  (--.*)  ->  ([\d.]+) GiB$", out, re.MULTILINE)
    assert any("steps_per_generation" in words for words, _ in changes)
    for words, size in changes:
        again, text, _ = typed("--dry-run", "--gpu_memory", "24", "--training.max_completion_length", "4096", *words.split())
        assert again == 0
        assert f"Fits: {size} of 24 GiB." in text


def test_without_a_gpu_the_need_is_stated(typed):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here, and is taken")
    code, out, _ = typed("--dry-run")
    assert code == 0
    assert re.search(r"Needs \d+\.\d GiB\. --gpu_memory", out)


def test_flags_of_a_dry_run_are_refused_in_a_run(typed):
    code, _, err = typed("--gpu_memory", "80")
    assert code == 2
    assert "--gpu_memory belongs to --dry-run" in err
