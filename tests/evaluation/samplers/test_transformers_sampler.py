"""Is what the transformers sampler writes what the model says, and the same however it is batched?"""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig, Qwen3NextConfig

from dasd.config import BadInput, ModelConfig, SamplerConfig
from dasd.evaluation.samplers import Request, SamplingParams, Watch, make_sampler
from dasd.evaluation.samplers.transformers import TransformersSampler, pick, uniforms, write
from dasd.model_fit import end_tokens
from dasd.models import load_model
from dasd.prompts import tokenize_prompt
from dasd.tasks.countdown import make_problems

SMALL = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "initializer_range": 0.4, "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
ARCHITECTURES = {
    "sliding window": MistralConfig(sliding_window=8, **SMALL),
    "recurrent layers": Qwen3NextConfig(
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8, num_experts=2,
        num_experts_per_tok=1, moe_intermediate_size=16, shared_expert_intermediate_size=16, **SMALL,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sampler():
    return make_sampler(SamplerConfig(batch_size=7), ModelConfig())


@pytest.fixture(scope="module")
def requests():
    """Prompts of different lengths, every one asked three times."""
    texts = [problem.problem + " the problem" * (i % 3) for i, problem in enumerate(make_problems(16, 0, "validation"))]
    prompts = [[{"role": "user", "content": text}] for text in texts]
    return [Request(f"{i}/{n}", prompt, 10 * i + n) for i, prompt in enumerate(prompts) for n in range(3)]


def token_ids(sampler, request):
    return tokenize_prompt(sampler.tokenizer, request.prompt)


def chi_square(counts, expected):
    """In standard deviations from its mean, for the entries that are expected at all."""
    kept = expected > 0
    assert not counts[~kept].any()
    degrees = kept.sum() - 1
    return (((counts - expected)[kept] ** 2 / expected[kept]).sum() - degrees) / math.sqrt(2 * degrees)


def test_greedy_is_what_generate_writes(sampler, requests):
    sampled = sampler.sample(requests, SamplingParams(96, temperature=0.0))
    model, tokenizer = sampler.model, sampler.tokenizer
    assert len({len(one.token_ids) for one in sampled}) > 3  # rows did leave at different times
    for request, ours in zip(requests[::3], sampled[::3], strict=True):
        prompt = token_ids(sampler, request)
        config = GenerationConfig(max_new_tokens=96, do_sample=False, pad_token_id=0, eos_token_id=tokenizer.eos_token_id)
        expected = model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
        assert ours.token_ids == expected
        assert ours.finish_reason == ("stop" if expected[-1] == tokenizer.eos_token_id else "length")
        assert ours.text == tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_kinds_of_cache(name):
    """Greedy again, with layers that forget: rows that leave and prompts read once must reach those caches too."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name]).eval()
    prompts = [torch.randint(2, 50, (length,)).tolist() for length in (3, 12, 7, 12, 5, 9, 4, 11)]
    rows, ends = [0, 1, 2, 3, 4, 5, 6, 7, 2, 1], [1, *range(30, 36)]
    noise = np.zeros((len(rows), 24))
    written = write(model, prompts, rows, noise, SamplingParams(24, temperature=0.0), ends, pad=0)
    assert len(set(map(len, written))) > 2
    for row, ours in zip(rows, written, strict=True):
        config = GenerationConfig(max_new_tokens=24, do_sample=False, pad_token_id=0, eos_token_id=ends)
        expected = model.generate(input_ids=torch.tensor([prompts[row]]), generation_config=config)[0, len(prompts[row]) :]
        assert ours == expected.tolist()


def test_a_completion_is_the_same_in_whatever_batch(sampler, requests):
    params = SamplingParams(64)
    together = dict(zip([request.key for request in requests], sampler.sample(requests, params), strict=True))
    order = np.random.default_rng(0).permutation(len(requests))
    for start in range(0, len(order), 5):
        batch = [requests[i] for i in order[start : start + 5]]
        assert sampler.sample(batch, params) == [together[request.key] for request in batch]


def test_the_seed_decides(sampler, requests):
    params = SamplingParams(20)
    sampled = sampler.sample(requests, params)
    assert sampler.sample([replace(request, key="another") for request in requests], params) == sampled
    others = sampler.sample([replace(request, seed=request.seed + 1000) for request in requests], params)
    assert sum(one == other for one, other in zip(sampled, others, strict=True)) < 5
    assert len({tuple(one.token_ids) for one in sampled}) > 40  # three samples of a prompt differ


def test_length_is_kept_and_a_shorter_limit_gives_a_beginning(sampler, requests):
    long, short = (sampler.sample(requests, SamplingParams(length)) for length in (60, 20))
    assert [one.token_ids[:20] for one in long] == [one.token_ids for one in short]
    assert max(len(one.token_ids) for one in short) == 20
    end = sampler.tokenizer.eos_token_id
    for one in short:
        assert one.finish_reason == ("stop" if one.token_ids[-1] == end else "length")
        assert end not in one.token_ids[:-1]


def test_each_completion_is_told_when_it_ends_and_every_token_counted(sampler, requests):
    heard, tokens = {}, []
    watch = Watch(lambda request, sampled: heard.setdefault(request.key, (sampled, sum(tokens))), tokens.append)
    sampled = sampler.sample(requests, SamplingParams(60), watch)
    assert [heard[request.key][0] for request in requests] == sampled
    assert sum(tokens) == sum(len(one.token_ids) for one in sampled)
    assert len(tokens) == max(len(one.token_ids) for one in sampled)
    assert len({told for _, told in heard.values()}) > 3  # at different times


def test_a_first_token_is_given_and_each_row_has_its_limit(sampler, requests):
    """A row whose first token is given writes on as one that drew it; limits cut and change nothing else."""
    prompt, length = token_ids(sampler, requests[0]), 24
    noise, params, ends = (
        uniforms(range(6), length),
        SamplingParams(length),
        sorted(end_tokens(sampler.model.generation_config, sampler.tokenizer)),
    )
    drawn = write(sampler.model, [prompt], [0] * 6, noise, params, ends, 0)
    given = write(sampler.model, [prompt], [0] * 6, noise, params, ends, 0, first=[drawn[0][0], None, ends[0], None, None, 7])
    assert [given[0], given[1], given[3], given[4]] == [drawn[0], drawn[1], drawn[3], drawn[4]]
    assert given[2] == [ends[0]]
    after = write(sampler.model, [[*prompt, 7]], [0], noise[5:, 1:], SamplingParams(length - 1), ends, 0)[0]
    assert given[5] == [7, *after]
    limits = [1, 5, 24, 2, 10, 3]
    cut = write(sampler.model, [prompt], [0] * 6, noise, params, ends, 0, limits=limits)
    assert cut == [ids[:limit] for ids, limit in zip(drawn, limits, strict=True)]


@pytest.fixture(scope="module")
def crossroads(sampler, requests):
    """(the beginning of a completion where the model hesitates most, its logits for the next token)."""
    prompt = token_ids(sampler, requests[0])
    ids = prompt + sampler.sample(requests[:1], SamplingParams(60))[0].token_ids
    with torch.no_grad():
        logits = sampler.model(torch.tensor([ids])).logits[0]
    entropies = torch.distributions.Categorical(logits=logits[len(prompt) :]).entropy()
    assert entropies.max() > 1.5
    place = len(prompt) + int(entropies.argmax())
    return ids[: place + 1], logits[place]


def draw(sampler, ids, params, draws):
    """Next tokens of so many completions with consecutive seeds."""
    return [one[0] for one in write(sampler.model, [ids], [0] * draws, uniforms(range(draws), 1), params, [], pad=0)]


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_samples_follow_the_models_distribution(sampler, crossroads, temperature):
    draws, (ids, logits) = 4000, crossroads
    counts = Counter(draw(sampler, ids, SamplingParams(1, temperature), draws))
    assert len(counts) > 5
    for token, probability in enumerate((logits / temperature).softmax(-1).tolist()):
        error = math.sqrt(draws * probability * (1 - probability)) + 1
        assert abs(counts[token] - draws * probability) < 4 * error


def test_top_p_leaves_out_the_tail(sampler, crossroads):
    ids, logits = crossroads
    order = logits.softmax(-1).sort(descending=True)
    kept = order.indices[: int((order.values.cumsum(0) < 0.5).sum()) + 1].tolist()
    assert len(kept) > 1
    assert set(draw(sampler, ids, SamplingParams(1, top_p=0.5), 500)) == set(kept)


def test_noise_is_uniform_along_and_across_seeds():
    noise = uniforms(range(2000), 50)
    assert noise.min() >= 0
    assert noise.max() < 1
    for values in (noise.ravel(), noise[:, 0], noise[:, 49]):
        counts = np.histogram(values, bins=25, range=(0, 1))[0]
        assert abs(chi_square(counts, np.full(25, values.size / 25))) < 4
    neighbours = [(noise[:, 0], noise[:, 1]), (noise[:-1, 0], noise[1:, 0])]
    for first, second in neighbours:
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(first.size)
        cells = np.histogram2d(first, second, bins=5, range=[(0, 1), (0, 1)])[0].ravel()
        assert abs(chi_square(cells, np.full(25, first.size / 25))) < 4


def test_pick_draws_from_a_known_categorical():
    probabilities = np.array([0.0, 0.5, 0.25, 0.0, 0.2, 0.04, 0.01, 0.0])
    draws = 50_000
    uniform = torch.from_numpy(uniforms(range(draws), 1)[:, 0])
    tokens = pick(torch.tensor(probabilities, dtype=torch.float32).expand(draws, -1), uniform)
    assert abs(chi_square(np.bincount(tokens, minlength=8), draws * probabilities)) < 4


def test_pick_at_the_ends():
    """0 and the largest number below 1, with impossible tokens on either side, and sums that are not quite 1."""
    ends = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    for scale in (1.0, 0.999, 1.001, 0.5, 1.7):
        probabilities = scale * torch.tensor([[0.0, 0.3, 0.7, 0.0]] * 2)
        assert pick(probabilities, ends).tolist() == [1, 2]
    rare = torch.full((1, 200_000), 1e-9)  # lost if they were added to a float32 near 1
    rare[0, 0] = 1.0
    assert pick(rare, torch.tensor([0.99], dtype=torch.float64)).item() == 0
    tail = torch.arange(100_000, 100_009)  # each to be told from its neighbours
    middles = (1 + (tail.double() - 0.5) * 1e-9) / (1 + 199_999e-9)
    assert pick(rare.expand(9, -1), middles).tolist() == tail.tolist()


@pytest.mark.parametrize("vocabulary", [3, 128, 129, 5_000])
def test_pick_is_the_plain_inverse_of_the_distribution_function(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    for spread in (0.1, 3.0, 30.0):
        probabilities = (spread * torch.randn(200, vocabulary, generator=generator)).softmax(-1)
        probabilities[torch.rand(200, vocabulary, generator=generator) < 0.3] = 0
        probabilities[:, 1] += 1e-6  # none is all zeros
        uniform = torch.rand(200, generator=generator, dtype=torch.float64)
        cumulated = probabilities.double().cumsum(-1)
        plain = torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True)[:, 0]
        assert (pick(probabilities, uniform) == plain).all()


@pytest.mark.parametrize("at_once", [1, 200, 10**9])
def test_a_few_rows_drawn_at_once_are_all_rows(sampler, requests, monkeypatch, at_once):
    """Rows leave, and each row's logits depend on what it has written: its own text must be warped by its own noise."""
    prompts, rows = [token_ids(sampler, request) for request in requests[::3]], [place for place in range(16) for _ in range(3)]
    seen = []

    def warp(ids, mask, logits):
        assert len(ids) == len(mask) == len(logits)
        seen.append(len(ids))
        return logits.scatter_add(1, ids[:, -3:], torch.full_like(ids[:, -3:], -2, dtype=torch.float32))

    def written():
        noise, ends = uniforms(range(48), 96), sorted(end_tokens(sampler.model.generation_config, sampler.tokenizer))
        return write(sampler.model, prompts, rows, noise, SamplingParams(96), ends, sampler.tokenizer.pad_token_id, warp=warp)

    whole = written()
    assert max(seen) == 48
    assert len(set(map(len, whole))) > 2
    monkeypatch.setattr("dasd.evaluation.samplers.transformers.DRAWN_AT_ONCE", at_once)
    seen.clear()
    assert written() == whole
    assert max(seen) == min(48, max(1, at_once // sampler.model.config.vocab_size))


def test_broken_weights_are_named():
    model, tokenizer = load_model(ModelConfig())
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    request = Request("a/0", [{"role": "user", "content": "Use 1 2 3 to make 6."}], 0)
    for temperature in (0.0, 1.0):
        with pytest.raises(BadInput, match="not finite numbers at token 1"):
            TransformersSampler(model, tokenizer).sample([request], SamplingParams(4, temperature))


def test_what_it_says_of_itself(sampler, requests):
    assert sampler.batch_size == 7
    assert sampler.context_length == 512
    assert sampler.longest_prompt([r.prompt for r in requests]) == max(len(token_ids(sampler, r)) for r in requests)
    record = sampler.describe()
    assert record["backend"] == "transformers"
    assert record["dtype"] == "float32"
    assert record["deterministic"] is sampler.deterministic is True
    assert not make_sampler(SamplerConfig(), ModelConfig(dtype="bfloat16")).deterministic
