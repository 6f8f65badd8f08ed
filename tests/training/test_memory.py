"""Is the estimate of a GPU's memory what the arithmetic says, and near what a training step really takes?"""

import weakref
from dataclasses import replace

import pytest
import torch
import trl.trainer.utils
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl.kernels import chunked_logprob

from dasd.training import memory
from dasd.training.memory import GIB, ModelSizes, Workload, estimate, largest, peak
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer
from dasd.training.trl_adapter import tiles_for
from training.conftest import length_reward, make_arguments, tiny

QWEN = ModelSizes(1_720_574_976, 1_720_574_976, 28, 2048, 2048, 1024, 6144, 151_936, 2)
LORA = replace(QWEN, parameters=QWEN.parameters + 17_432_576, trainable=17_432_576)
WORK = Workload(micro_batch=4, rollouts=16, prompt=512, completion=4096)


def parts(sizes=QWEN, work=WORK, **changes):
    return {part.name: part for part in estimate(sizes, replace(work, **changes))}


def test_by_hand_all_weights_in_bfloat16():
    """2 + 2 + 4 bytes a weight; 18,432 tokens x 28 layers x 2048 x 2; 16 rollouts x 4,608 tokens x 28 x 2 x 1024 x 2."""
    found = parts()
    assert found["weights"].update == found["gradients"].update == 2 * 1_720_574_976
    assert found["optimiser"].update == 4 * 1_720_574_976
    assert found["gradients"].generate == 0
    assert found["activations"].update == 18_432 * 28 * 2048 * 2 + 18_432 * 4608
    assert found["KV cache"].generate == 16 * 4608 * 28 * 2 * 1024 * 2
    layer = 18_432 * (16 * 2048 + 14 * 2048 + 6 * 1024 + 8 * 6144 + 2 * 4608)
    assert found["working memory"].update == layer + 3 * 2 * 6144 * 18_432 + 2048 * 6144 * 2


def test_by_hand_float32_weights_under_autocast():
    found = parts(replace(QWEN, weight_bytes=4))
    assert [found[name].update / 1_720_574_976 for name in ("weights", "gradients", "optimiser")] == [4, 4, 8]
    assert found["KV cache"].generate == 2 * parts()["KV cache"].generate  # transformers keeps keys as the norms leave them


def test_by_hand_lora():
    found = parts(LORA)
    assert found["weights"].update == 1_720_574_976 * 2 + 17_432_576 * 4
    assert found["gradients"].update == 17_432_576 * 4
    assert found["optimiser"].update == 17_432_576 * 8
    assert parts(LORA, teacher_copy="float32")["teacher's copy"].update == 17_432_576 * 4
    assert parts(LORA, looks_ahead=True)["lookahead"].update == 17_432_576 * 16


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimiser"),
    [("none", 2, 4, 4), ("zero2", 2, 2 / 8, 12 / 8), ("zero3", 2 / 8, 2 / 8, 12 / 8), ("fsdp2", 4 / 8, 4 / 8, 8 / 8)],
)
def test_by_hand_sharded_over_eight(sharding, weights, gradients, optimiser):
    """DDP keeps gradients twice, DeepSpeed updates float32 weights beside bfloat16 ones, FSDP2 trains float32."""
    found = parts(processes=8, sharding=sharding)
    per_weight = [found[name].update / QWEN.parameters for name in ("weights", "gradients", "optimiser")]
    assert per_weight == pytest.approx([weights, gradients, optimiser])
    assert found["KV cache"].generate == parts()["KV cache"].generate


def test_fsdp2_keeps_whole_gradients_where_they_are_not_reduced_each_time():
    apart = [parts(processes=8, sharding="fsdp2", accumulates=on)["gradients"].update for on in (True, False)]
    assert apart[0] - apart[1] == 2 * QWEN.parameters


def test_vllm_takes_its_share_and_gives_it_back_in_its_sleep():
    awake = parts(vllm="colocate", vllm_bytes=24 * GIB)
    asleep = parts(vllm="colocate", vllm_bytes=24 * GIB, vllm_sleeps=True)
    assert (awake["vLLM"].generate, awake["vLLM"].update) == (24 * GIB, 24 * GIB)
    assert (asleep["vLLM"].generate, asleep["vLLM"].update) == (24 * GIB, 0)
    assert "KV cache" not in awake
    assert "vLLM" not in parts(vllm="server")


def test_the_worse_moment_counts_and_names_the_largest_part():
    generating = estimate(QWEN, replace(WORK, rollouts=256))
    assert largest(generating).name == "KV cache"
    assert peak(generating) == sum(part.generate for part in generating)
    assert largest(estimate(QWEN, replace(WORK, rollouts=4, checkpointing=False))).name == "activations"


def test_an_optimiser_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="adamw_torch_fused"):
        parts(optimizer="lion_32bit")


workloads = st.builds(
    Workload, micro_batch=st.integers(1, 16), rollouts=st.integers(1, 128), prompt=st.integers(1, 2048),
    completion=st.integers(1, 8192), processes=st.sampled_from([1, 2, 8]), bf16=st.booleans(), checkpointing=st.booleans(),
    sharding=st.sampled_from(["none", "zero2", "zero3", "fsdp2"]), accumulates=st.booleans(),
    teacher_copy=st.sampled_from(["none", "weights", "float32"]), compares_distributions=st.booleans(),
)  # fmt: skip
models = st.sampled_from([QWEN, replace(QWEN, weight_bytes=4), LORA])


@settings(deadline=None)
@given(models, workloads, st.sampled_from(["micro_batch", "rollouts", "prompt", "completion"]), st.integers(1, 4096))
def test_more_of_anything_never_needs_less(sizes, work, name, more):
    larger = replace(work, **{name: getattr(work, name) + more})
    assert peak(estimate(sizes, larger)) >= peak(estimate(sizes, work))


@settings(deadline=None)
@given(models, workloads)
def test_checkpointing_and_more_processes_never_need_more(sizes, work):
    assert peak(estimate(sizes, replace(work, checkpointing=True))) <= 1.001 * peak(
        estimate(sizes, replace(work, checkpointing=False))
    )
    if work.sharding != "none" and work.processes > 1:
        assert peak(estimate(sizes, replace(work, processes=2 * work.processes))) <= peak(estimate(sizes, work))


def test_tiles_are_as_large_as_trls():
    trls = lambda: (chunked_logprob.TOKEN_CHUNK_SIZE, trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE)  # noqa: E731
    assert memory.TILES["gpu"] == trls()
    with tiles_for(torch.device("cpu")):
        assert memory.TILES["cpu"] == trls()


def test_by_hand_on_a_cpu_with_an_adapter_on_a_bfloat16_base():
    """Seven inputs are cast to float32: 28 x 2048 + 16 x 2048 + 4 x 1024 + 10 x 6144, and 2 bytes of mask a position."""
    found = parts(LORA, device="cpu", bf16=False, checkpointing=False)
    token = 28 * 2048 + 16 * 2048 + 4 * 1024 + 10 * 6144 + 2 * 4608
    assert found["activations"].update == 18_432 * 28 * token + 18_432 * 4608
    assert found["process"].update == memory.PROCESS
    assert "CUDA context" not in found
    plain = parts(replace(LORA, head_norms=False), device="cpu", bf16=False, checkpointing=False)["activations"].update
    assert found["activations"].update - plain == 18_432 * 28 * 4 * (2048 + 1024)
    assert (
        parts(LORA, device="cpu", checkpointing=False)["activations"].update < found["activations"].update
    )  # autocast casts back


def test_prompts_that_are_read_once_are_counted_once():
    each, once = (parts(prompts=prompts)["sampling"].generate for prompts in (None, 2))
    assert each - once == 14 * 512 * (3 * 2 * 6144 + 2 * 2 * 2048)


def test_weights_that_are_laid_out_are_there_twice_while_sampling():
    once, twice = (parts(LORA, device="cpu", lays_out=lays_out) for lays_out in (False, True))
    projections = 28 * 2048 * (2 * 2048 + 2 * 1024 + 3 * 6144)
    assert twice["sampling"].generate - once["sampling"].generate == 2 * (projections + 151_936 * 2048)
    assert twice["sampling"].update == 0


class Peak(TorchDispatchMode):
    """Bytes of all tensor storages that are alive, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.sizes, self.alive, self.peak = {}, 0, 0

    def count(self, tensor):
        if tensor.layout == torch._mkldnn:  # it shows no storage
            self.add(id(tensor), tensor.nbytes, tensor)
        else:
            storage = tensor.untyped_storage()
            self.add(storage._cdata, storage.nbytes(), storage)

    def add(self, key, size, holder):
        if key not in self.sizes:
            self.sizes[key] = size
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(holder, self.gone, key)

    def gone(self, key):
        self.alive -= self.sizes.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result


WIDTHS = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 48, "initializer_range": 0.02}  # fmt: skip


@pytest.mark.parametrize(("dtype", "lora"), [("float32", False), ("float32", True), ("bfloat16", True)])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_a_real_step_takes_about_what_is_estimated(tokenizer, problems, tmp_path, checkpointing, dtype, lora):
    """The second optimisation step of the whole trainer on the CPU."""
    vocab, dtype = len(tokenizer), getattr(torch, dtype)
    model = tiny(tokenizer, **WIDTHS).to(dtype)
    arguments = make_arguments(
        output_dir=str(tmp_path), per_device_train_batch_size=32, max_completion_length=12, max_steps=2,
        gradient_checkpointing=checkpointing, generation_kwargs={"min_new_tokens": 12},
    )  # fmt: skip
    adapter = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    trainer = SelfDistillationTrainer(
        model, length_reward, arguments, train_dataset=as_dataset(problems), processing_class=tokenizer, peft_config=adapter
    )
    weights = list(trainer.model.parameters())
    trained = sum(p.numel() for p in weights if p.requires_grad)
    sizes = ModelSizes(sum(p.numel() for p in weights), trained, 4, 192, 192, 96, 512, vocab, dtype.itemsize)
    prompt = len(tokenizer.apply_chat_template(as_dataset(problems)[0]["prompt"], add_generation_prompt=True)["input_ids"])
    work = Workload(
        micro_batch=32, rollouts=32, prompts=8, prompt=prompt, completion=12, bf16=False, checkpointing=checkpointing,
        device="cpu", different=None if checkpointing else 8, lays_out=dtype == torch.bfloat16,
    )  # fmt: skip
    expected = peak(estimate(sizes, work)) - memory.PROCESS
    with Peak() as measured:
        for weight in weights:
            measured.count(weight.data)
        trainer.train()
    print(f"estimated / measured: {expected / measured.peak:.3f}")
    assert expected == pytest.approx(measured.peak, rel=0.15)
