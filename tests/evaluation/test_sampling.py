"""Does letting go of finished rows change what is written?"""

import math
from collections import Counter

import pytest
import torch
from transformers import GenerationConfig

from dasd.config import ModelConfig
from dasd.evaluation.sampling import SamplingParams, sample_batch
from dasd.models import load_model
from dasd.tasks.countdown import make_problems
from dasd.teacher.context import tokenize_prompt


@pytest.fixture(scope="module")
def bundled():
    return load_model(ModelConfig())


@pytest.fixture(scope="module")
def prompts(bundled):
    """Prompts of different lengths: every third is longer."""
    _, tokenizer = bundled
    texts = [problem.problem + " the problem" * (i % 3) for i, problem in enumerate(make_problems(24, 0, "validation"))]
    return [tokenize_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]


def test_greedy_is_what_generate_writes(bundled, prompts):
    model, tokenizer = bundled
    sampled = sample_batch(model, tokenizer, prompts, SamplingParams(96, temperature=0.0), seed=0)
    assert len({len(s.token_ids) for s in sampled}) > 3  # rows did leave at different times
    for prompt, ours in zip(prompts, sampled, strict=True):
        config = GenerationConfig(max_new_tokens=96, do_sample=False, pad_token_id=0, eos_token_id=tokenizer.eos_token_id)
        expected = model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
        assert ours.token_ids == expected
        assert ours.finish_reason == ("stop" if expected[-1] == tokenizer.eos_token_id else "length")
        assert ours.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_samples_follow_the_models_distribution(bundled, prompts):
    """The first token's frequencies against its probabilities: within four standard errors."""
    model, tokenizer = bundled
    draws = 2000
    sampled = sample_batch(model, tokenizer, [prompts[0]] * draws, SamplingParams(1), seed=0)
    counts = Counter(s.token_ids[0] for s in sampled)
    with torch.no_grad():
        probabilities = model(torch.tensor([prompts[0]])).logits[0, -1].softmax(-1)
    for token, probability in enumerate(probabilities.tolist()):
        error = math.sqrt(draws * probability * (1 - probability)) + 1
        assert abs(counts[token] - draws * probability) < 4 * error


def test_seed_decides_and_length_is_kept(bundled, prompts):
    model, tokenizer = bundled
    first, again, other = (sample_batch(model, tokenizer, prompts, SamplingParams(20), seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert max(len(s.token_ids) for s in first) == 20
    assert {s.finish_reason for s in first if len(s.token_ids) < 20} <= {"stop"}


def test_top_p_leaves_out_the_tail(bundled, prompts):
    model, tokenizer = bundled
    sampled = sample_batch(model, tokenizer, [prompts[0]] * 300, SamplingParams(1, top_p=0.5), seed=0)
    with torch.no_grad():
        order = model(torch.tensor([prompts[0]])).logits[0, -1].softmax(-1).sort(descending=True)
    kept = order.indices[: int((order.values.cumsum(0) < 0.5).sum()) + 1].tolist()
    assert {s.token_ids[0] for s in sampled} <= set(kept)
