"""Does sampling and scoring with a LoRA adapter leave the output head where it is? A copy of it for each row is gigabytes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import uniforms, write

VOCABULARY, WIDTH = 3000, 16


def model_of(size=VOCABULARY):
    torch.manual_seed(0)
    settings = {
        "vocab_size": size, "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256, "tie_word_embeddings": True,
    }  # fmt: skip
    return Qwen3ForCausalLM(Qwen3Config(**settings)).bfloat16()  # in float32 torch multiplies without a copy


def head_copies(act):
    """Shapes of the copies of the head made while `act` runs. (bmm makes them, out of sight of a dispatch mode.)"""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        act()
    copied = [event.input_shapes[0] for event in profile.events() if event.name == "aten::copy_"]
    return [shape for shape in copied if {WIDTH, VOCABULARY} <= set(shape)]


@pytest.mark.parametrize("adapter", [False, True], ids=["all weights", "adapter"])
def test_a_prefill_of_several_rows_copies_no_head(adapter):
    model = model_of()
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM")).get_base_model()
    model.eval()
    prompts = [[5, 6, 7, 8][:length] for length in (4, 3, 2, 4)]
    copies = head_copies(lambda: write(model, prompts, range(4), uniforms(range(4), 3), SamplingParams(3), [0], 0))
    assert copies == []
    assert not model.get_output_embeddings()._forward_pre_hooks  # nothing of it stays
