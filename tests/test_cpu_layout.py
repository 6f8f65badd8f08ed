"""Do weights that are laid out once give the numbers that torch's own linear layer gives, and is nothing left of it?"""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from dasd import cpu_layout
from dasd.cpu_layout import laid_out, layers_to_lay_out
from dasd.evaluation.samplers import transformers as sampler
from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import uniforms, write

pytestmark = pytest.mark.skipif(not cpu_layout._supported(), reason="oneDNN does not multiply bfloat16 here")


def model_of(dtype=torch.bfloat16):
    torch.manual_seed(0)
    settings = {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**settings)).to(dtype).eval()


def operators(act):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        act()
    return {event.name for event in profile.events()}


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 96), (7, 96), (3, 5, 96), (200, 96)])
def test_a_product_is_exact_up_to_its_rounding(shape, bias):
    torch.manual_seed(1)
    layer = nn.Linear(96, 48, bias=bias).bfloat16()
    given = [torch.randn(shape).bfloat16(), torch.randn(*shape[:-1], 192).bfloat16()[..., ::2], torch.zeros(shape).bfloat16()]
    assert "mkldnn::_linear_pointwise" not in operators(lambda: layer(given[0]))
    with laid_out(layer):
        assert "mkldnn::_linear_pointwise" in operators(lambda: layer(given[0]))
        found = [layer(one) for one in given]
    exact = nn.Linear(96, 48, bias=bias).double()
    exact.load_state_dict(layer.state_dict())
    for one, product in zip(given, found, strict=True):
        torch.testing.assert_close(product, exact(one.double()).bfloat16(), rtol=2**-7, atol=2**-14)


def written(model):
    return write(model, [[5, 6, 7], [9]], [0, 0, 1, 1, 1], uniforms(range(5), 12), SamplingParams(12), [0], 0)


@pytest.mark.parametrize("adapter", [False, True], ids=["all weights", "adapter"])
def test_sampling_lays_out_writes_the_same_and_leaves_nothing(adapter, monkeypatch):
    model = model_of()
    if adapter:
        lora = LoraConfig(r=2, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)

    def recorded():
        rows = []
        warp = lambda ids, mask, logits: rows.append(logits) or logits  # noqa: E731
        ids = write(model, [[5, 6, 7], [9]], [0, 0, 1, 1, 1], uniforms(range(5), 8), SamplingParams(8), [], 0, warp=warp)
        return ids, torch.cat(rows)

    found = []
    names = operators(lambda: found.append(recorded()))
    assert "mkldnn::_linear_pointwise" in names
    assert not any("forward" in vars(module) for module in model.modules())
    monkeypatch.setattr(sampler, "laid_out", lambda model: torch.no_grad())
    (ids, logits), (plain_ids, plain) = *found, recorded()
    torch.testing.assert_close(logits[:5], plain[:5], rtol=2**-7, atol=2**-7 * plain.abs().max().item())
    assert ids == plain_ids  # no draw lies on an edge


def test_weights_that_changed_since_are_the_ones_that_are_read():
    model = model_of()
    before = written(model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(-8)
    assert written(model) != before


def test_after_an_error_nothing_is_left():
    layer = nn.Linear(4, 4).bfloat16()
    with pytest.raises(KeyError), laid_out(layer):
        raise KeyError
    assert "forward" not in vars(layer)
    assert layer(torch.ones(4).bfloat16()).requires_grad


@pytest.mark.parametrize("kept", [False, True], ids=["by default", "told to keep"])
def test_the_copies_are_given_back_unless_glibc_was_told_to_keep_them(kept, monkeypatch):
    """Small pieces, which glibc would keep: a step of 1,024 tokens of a 0.5 B model had 0.7 GiB of them."""
    given_back = []
    library = SimpleNamespace(malloc_trim=given_back.append)
    monkeypatch.setattr(cpu_layout.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if kept:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000000000")
    with laid_out(nn.Linear(4, 4)):  # nothing to give back
        pass
    assert given_back == []
    with laid_out(nn.Linear(4, 4).bfloat16()):
        assert given_back == []
    assert given_back == ([] if kept else [0])


class Quantised(nn.Linear):
    pass


def test_what_is_left_alone(monkeypatch):
    assert layers_to_lay_out(model_of(torch.float32)) == []
    model = model_of()
    assert len(layers_to_lay_out(model)) == 2 * 7 + 1
    assert layers_to_lay_out(Quantised(4, 4).bfloat16()) == []
    hooked = nn.Linear(4, 4).bfloat16()
    hooked.forward = lambda given: given * 3  # as accelerate's hooks do
    with laid_out(hooked):
        assert hooked(2) == 6
    assert hooked(2) == 6
    needed = sum(layer.weight.nbytes for layer in layers_to_lay_out(model))
    for free, names in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(cpu_layout.psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert ("mkldnn::_linear_pointwise" in operators(lambda: written(model))) is names
