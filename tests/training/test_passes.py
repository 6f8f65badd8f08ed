"""Do the teacher's passes give what row after row would, with less work?"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from dasd.training import trl_adapter
from dasd.training.passes import by_length, by_prompt, drops_out, reads_prompts_once, train_pass
from dasd.training.trl_adapter import tiles_for
from training.conftest import tiny


@st.composite
def batches(draw):
    """Groups of rows with a prompt each, some rows unwanted, and rows in a pass."""
    groups = draw(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), min_size=1, max_size=6))
    prompts = [length for length, size in groups for _ in range(size)]
    same = [number for number, (_, size) in enumerate(groups) for _ in range(size)]
    completions = draw(st.lists(st.integers(0, 60), min_size=len(same), max_size=len(same)))
    rows = draw(st.lists(st.sampled_from(range(len(same))), min_size=1, unique=True))
    return prompts, completions, rows, same, draw(st.integers(1, 8))


def tokens_of(passes, prompts, completions, same=None):
    """What a slow reader counts: every place of every padded pass."""
    total = 0
    for rows in passes:
        longest = max(prompts[row] for row in rows)
        width = max(completions[row] for row in rows)
        if same is None:
            total += sum(longest + width for _ in rows)
        else:
            total += sum(longest - 1 for _ in {same[row] for row in rows}) + sum(1 + width for _ in rows)
    return total


@given(batches())
def test_every_wanted_row_is_scored_in_passes_of_bounded_size(batch):
    prompts, completions, rows, same, size = batch
    count = -(-len(rows) // size)
    for plan in (by_length(prompts, completions, rows, count), by_prompt(prompts, completions, rows, count, same)):
        assert len(plan.passes) == count
        assert sorted(row for chosen in plan.passes for row in chosen) == sorted(rows)
        assert max(map(len, plan.passes)) <= size
    assert by_length(prompts, completions, rows, count).tokens == tokens_of(
        by_length(prompts, completions, rows, count).passes, prompts, completions
    )
    once = by_prompt(prompts, completions, rows, count, same)
    assert once.tokens == tokens_of(once.passes, prompts, completions, same)


@given(batches())
def test_sorted_passes_never_compute_more_than_passes_padded_to_the_longest_of_all(batch):
    prompts, completions, rows, _, size = batch
    plan = by_length(prompts, completions, rows, -(-len(rows) // size))
    longest = max(prompts[row] for row in rows) + max(completions[row] for row in rows)
    assert plan.tokens <= len(rows) * longest


def test_a_process_with_fewer_rows_makes_as_many_passes():
    assert by_length([5, 5], [1, 2], [1], 3).passes == [[1], [1], [1]]


def test_a_group_of_four_reads_its_prompt_once():
    """Prompts of 10 and 20 tokens, completions of 5: 2 x (10 - 1) or so against 8 x 10."""
    prompts, same = [10] * 4 + [20] * 4, [0] * 4 + [1] * 4
    once = by_prompt(prompts, [5] * 8, range(8), 2, same)
    assert once.passes == [[4, 5, 6, 7], [0, 1, 2, 3]]
    assert once.tokens == 19 + 4 * 6 + 9 + 4 * 6
    assert by_length(prompts, [5] * 8, range(8), 2).tokens == 4 * 25 + 4 * 15


def expected(model, trainer, prompt_ids, prompt_mask, batch, row):
    """Log-probs, entropies, first choices and hidden states of one row, by the plain model and its full logits."""
    prompt = prompt_ids[row][prompt_mask[row].bool()]
    completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
    with torch.no_grad():
        output = model(torch.cat([prompt, completion])[None], output_hidden_states=True)
    place = slice(len(prompt) - 1, -1)
    logps = (output.logits[0, place] / trainer.temperature).log_softmax(-1)
    return (
        logps.gather(1, completion[:, None])[:, 0],
        -(logps.exp() * logps).sum(-1),
        logps.argmax(-1) == completion,
        output.hidden_states[-1][0, place],
    )


@pytest.mark.parametrize("shared", [True, False])
def test_scores_are_those_of_each_row_alone(train, tokenizer, monkeypatch, shared):
    trainer = train(temperature=0.7, per_device_train_batch_size=4, learning_rate=0.0)
    draw = torch.Generator().manual_seed(1)
    words = [list(range(30, 30 + length)) for length in (3, 40, 40, 7)]
    prompt_ids, prompt_mask = trainer.pad_prompts(
        [words[i // 3] if i != 4 else words[3] for i in range(9)], torch.device("cpu")
    )
    lengths = torch.tensor([12, 1, 5, 9, 12, 2, 3, 4, 0])
    batch = {
        "completion_ids": torch.randint(460, (9, 12), generator=draw),
        "completion_mask": (torch.arange(12) < lengths[:, None]).long(),
    }
    wanted = torch.tensor([True] * 6 + [False, True, True])
    monkeypatch.setattr("dasd.training.passes.WORTH_SHARING", 10.0 if shared else 0.0)
    passes = []
    trainer.model.register_forward_hook(lambda module, args, output: passes.append(output), with_kwargs=False)
    scores = trainer.score(prompt_ids, prompt_mask, batch, wanted, hidden=True)
    assert len(passes) == (4 if shared else 2)
    assert trainer.model.training
    reference = tiny(tokenizer).eval()
    reference.load_state_dict(trainer.model.state_dict())
    for row in range(9):
        length = int(lengths[row]) if wanted[row] else 0
        for tensor in (scores.logps, scores.entropies, scores.is_first_choice):
            assert not tensor[row, length:].any()
        if length:
            logps, entropies, first, hidden = expected(reference, trainer, prompt_ids, prompt_mask, batch, row)
            torch.testing.assert_close(scores.logps[row, :length], logps, atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(scores.entropies[row, :length], entropies, atol=2e-6, rtol=1e-5)
            assert torch.equal(scores.is_first_choice[row, :length], first)
            torch.testing.assert_close(scores.hidden[row, :length], hidden, atol=1e-5, rtol=1e-4)


def rollouts(trainer):
    draw = torch.Generator().manual_seed(2)
    words = [list(range(30, 70)), list(range(90, 97))]
    prompt_ids, prompt_mask = trainer.pad_prompts([words[place] for place in (1, 0, 0, 1, 0, 1, 0, 0)], torch.device("cpu"))
    lengths = torch.tensor([9, 3, 0, 5, 10, 1, 7, 10])
    return {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": torch.randint(460, (8, 12), generator=draw),
        "completion_mask": (torch.arange(12) < lengths[:, None]).long(),
    }  # fmt: skip


def gradients(trainer, batch, shared):
    """Log-probs, entropies and every weight's gradient of a weighted sum of them, by one way of reading the prompts."""
    trainer._trains_on_shared_prompts = shared
    ids, mask = (torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], dim=1) for kind in ("ids", "mask"))
    width = batch["completion_ids"].size(1)
    calls = []
    handle = trainer._language_model().register_forward_hook(lambda module, args, output: calls.append(output))
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, compute_entropy=True)
    handle.remove()
    assert len(calls) == (2 if shared else 1)
    weight = torch.arange(logps.numel()).view_as(logps).cos() * batch["completion_mask"]
    trainer.model.zero_grad()
    (weight * logps).sum().backward()
    found = {name: each.grad.clone() for name, each in trainer.model.named_parameters() if each.grad is not None}
    return logps.detach(), entropies.detach(), found, list(trainer._squares)


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7, "method_settings": {"signal": "gradient_norm"}}])
def test_a_training_pass_that_reads_prompts_once_has_the_same_gradient(train, changes):
    """Prompts of two lengths in mixed order, completions of several, none as long as the batch is wide, one empty."""
    trainer = train(max_steps=1, learning_rate=0.0, **changes)
    batch = rollouts(trainer)
    (logps, entropies, once, squares), (theirs, others, plain, wide) = (gradients(trainer, batch, way) for way in (True, False))
    torch.testing.assert_close(logps, theirs, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(entropies, others, atol=2e-6, rtol=1e-5)
    assert once.keys() == plain.keys()
    assert once
    for name, gradient in once.items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert len(squares) == len(wide) == ("method_settings" in changes)
    for part, whole in zip(squares, wide, strict=True):
        torch.testing.assert_close(part[:, -10:], whole[:, -12:-2], atol=1e-6, rtol=1e-5)


def test_a_prompt_that_begins_as_another_is_padded_is_another_prompt(train):
    """Where a real token has the id of padding, as an end token often has: equal ids, and only the mask tells them apart."""
    trainer = train(max_steps=1, learning_rate=0.0)
    batch, pad = rollouts(trainer), trainer.tokenizer.pad_token_id
    short = batch["prompt_mask"][:, 0] == 0
    batch["prompt_mask"][short.nonzero()[0], :] = 1  # the first short prompt now is 33 pad tokens and seven others
    assert (batch["prompt_ids"][short] == batch["prompt_ids"][short][0]).all()
    assert (batch["prompt_ids"][short][0, :33] == pad).all()
    once, plain = (gradients(trainer, batch, way)[0] for way in (True, False))
    torch.testing.assert_close(once, plain, atol=2e-6, rtol=1e-5)


def test_in_bfloat16_prompts_read_once_round_no_worse(train):
    """Against the gradient in float32: the error of either way is that of bfloat16."""
    trainer = train(max_steps=1, learning_rate=0.0, bf16=True)
    batch = rollouts(trainer)
    once, plain = (gradients(trainer, batch, way)[2] for way in (True, False))
    exact = gradients(train(max_steps=1, learning_rate=0.0), batch, False)[2]

    def error(found):
        return sum(float(((found[name] - exact[name]) ** 2).sum()) for name in exact) ** 0.5

    size = sum(float((each**2).sum()) for each in exact.values()) ** 0.5
    assert 1e-4 < error(once) / size < 0.05
    assert error(once) < 1.5 * error(plain)


def test_prompts_are_not_shared_where_that_would_change_something(train, tokenizer, monkeypatch):
    assert train(max_steps=1)._trains_on_shared_prompts
    assert not train(max_steps=1, gradient_checkpointing=True)._trains_on_shared_prompts
    assert not drops_out(tiny(tokenizer))
    assert drops_out(tiny(tokenizer, attention_dropout=0.1))
    adapted = get_peft_model(tiny(tokenizer), LoraConfig(target_modules=["q_proj"], lora_dropout=0.1))
    assert drops_out(adapted)


def test_a_prompt_of_each_row_is_read_with_it(train):
    """Nothing is gained by sharing where no prompt comes twice."""
    trainer = train(max_steps=1)
    ids, mask = trainer.pad_prompts([[number] * 9 for number in range(30, 34)], torch.device("cpu"))
    completion = torch.full((4, 3), 40)
    ids, mask = torch.cat([ids, completion], dim=1), torch.cat([mask, torch.ones_like(completion)], dim=1)
    assert train_pass(trainer.model, trainer.model, ids, mask, 3) is None


def test_nothing_is_computed_where_no_row_is_wanted(train):
    trainer, passes = train(max_steps=1), []
    trainer.model.register_forward_hook(lambda *_: passes.append(1))
    ids, mask = trainer.pad_prompts([[1, 2]] * 2, torch.device("cpu"))
    batch = {"completion_ids": torch.ones(2, 3, dtype=torch.long), "completion_mask": torch.ones(2, 3, dtype=torch.long)}
    scores = trainer.score(ids, mask, batch, torch.tensor([False, False]), hidden=True)
    assert not passes
    assert not scores.logps.any()
    assert scores.hidden.shape == (2, 3, 32)


def test_sliding_windows_are_not_continued_from_a_cache(tokenizer):
    assert reads_prompts_once(tiny(tokenizer))
    layers = ["full_attention", "sliding_attention"]
    assert not reads_prompts_once(tiny(tokenizer, layer_types=layers, sliding_window=8, use_sliding_window=True))


def test_small_tiles_change_nothing_but_the_time():
    hidden, weight = torch.randn(600, 8, requires_grad=True), torch.randn(9000, 8, requires_grad=True)
    targets, results = torch.randint(9000, (600,)), []
    for device in ("cpu", "cuda"):  # the second leaves TRL's tiles
        with tiles_for(torch.device(device)):
            kernel, chunk = trl_adapter.chunked_logprob, trl_adapter.trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
            assert (kernel.TOKEN_CHUNK_SIZE, chunk) == ((512, 2048) if device == "cpu" else (4096, 32768))
            logps, *_ = kernel.ChunkedLogProbFunction.apply(
                hidden, weight, None, targets, 1.0, chunk, None, 1.0, ("log_probs",)
            )
            results.append((logps.detach(), *torch.autograd.grad(logps.sum(), (hidden, weight))))
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)
    assert trl_adapter.trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE == 32768
