"""Does our sampler write a batch's rollouts as TRL's generation does, but for the random numbers?"""

import logging
import math
from collections import Counter
from unittest.mock import PropertyMock, patch

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from dasd.config import BadInput, RunConfig, RunFailed, validate
from dasd.evaluation.samplers import transformers as sampler
from dasd.prompts import tokenize_prompt
from dasd.training import sampling
from dasd.training.arguments import trainer_arguments
from dasd.training.guards import stopping
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer
from training.conftest import length_reward, make_arguments, tiny

ENDS = {"exponential_decay_length_penalty": (0, 1.3)}  # most rollouts of a random model end by themselves
SETTINGS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.7, "temperature": 1.3},
    "min_p": {"min_p": 0.2},
    "repetition": {"repetition_penalty": 1.8, "top_k": 20},
    "no end before, ends after": {"generation_kwargs": {"min_new_tokens": 4} | ENDS},
    "words left out": {"generation_kwargs": {"suppress_tokens": [3, 4, 5, 6, 7, 8]}},
}
LORA = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
REGIMES = {
    "all weights": {},
    "checkpointing": {"gradient_checkpointing": True},
    "LoRA, checkpointing": {"lora": True, "gradient_checkpointing": True},
}


@pytest.fixture
def make(tokenizer, problems, tmp_path):
    def build(model=None, lora=False, **changes):
        torch.manual_seed(5)
        trainer = SelfDistillationTrainer(
            model or tiny(tokenizer), length_reward, make_arguments(output_dir=str(tmp_path), **changes),
            train_dataset=as_dataset(problems), processing_class=tokenizer, peft_config=LORA if lora else None,
        )  # fmt: skip
        if trainer.args.gradient_checkpointing:  # as `train` does
            trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
        return trainer

    return build


@pytest.fixture(scope="module")
def prompts(tokenizer, problems):
    """Four prompts of different lengths, two rollouts each."""
    texts = [problem.problem + " the problem" * i for i, problem in enumerate(problems[:4])]
    ids = [tokenize_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    assert len(set(map(len, ids))) == 4
    return [list(prompt) for prompt in ids for _ in range(2)]


def rollouts(trainer, prompts):
    return trainer._generate_single_turn(prompts, None, {}, 2)[0]


def greedy(changes):
    return changes | {"generation_kwargs": changes.get("generation_kwargs", {}) | {"do_sample": False}}


@pytest.mark.parametrize("regime", REGIMES)
def test_greedy_rollouts_are_trls(make, prompts, regime):
    changes = greedy(REGIMES[regime] | {"generation_kwargs": ENDS, "max_completion_length": 24})
    ours, theirs = (make(sampler=name, **changes) for name in ("dasd", "trl"))
    written = rollouts(ours, prompts)
    assert written == rollouts(theirs, prompts)
    assert len(set(map(len, written))) > 1
    assert ours.model.training


def test_greedy_rollouts_of_experts_are_trls(make, prompts, tokenizer):
    """Also where the config asks for what the loss balances experts by: `generate` fails then on padded prompts."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    shape = {k: v for k, v in tiny(tokenizer).config.to_dict().items() if k not in ("model_type", "layer_types")} | sizes
    written = []
    for path in ("dasd", "trl"):
        torch.manual_seed(0)
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, output_router_logits=path == "dasd"))
        written.append(rollouts(make(model, sampler=path, **greedy({})), prompts))
    assert written[0] == written[1]


@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_rollouts_are_trls_under_every_setting(make, prompts, name):
    changes = greedy(SETTINGS[name])
    assert rollouts(make(sampler="dasd", **changes), prompts) == rollouts(make(sampler="trl", **changes), prompts)


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_drawn_from_what_generate_draws_from(make, prompts, name, monkeypatch):
    """At every step of our rollouts, `generate`'s own processed scores of the same row, padding and past."""
    trainer = make(sampler="dasd", **SETTINGS[name])
    seen = []
    warp_of = sampling.warp_of

    def watched(settings, width):
        def warp(ids, mask, logits):
            result = warp_of(settings, width)(ids, mask, logits.clone())
            seen.append((ids.clone(), mask.clone(), result.clone()))
            return result

        return warp

    monkeypatch.setattr(sampling, "warp_of", watched)
    rollouts(trainer, prompts)
    assert len(seen) > 4
    for ids, mask, ours in seen:
        settings = {"max_new_tokens": 1, "output_scores": True, "return_dict_in_generate": True}
        config = GenerationConfig(**(trainer.generation_config.to_dict() | settings))
        began = ids.shape[1] - seen[0][0].shape[1]  # generate counts from where it is started
        if config.min_new_tokens:
            config.min_new_tokens -= began
        if config.exponential_decay_length_penalty:
            start, factor = config.exponential_decay_length_penalty
            config.exponential_decay_length_penalty = (start - began, factor)
        theirs = trainer.model.generate(input_ids=ids, attention_mask=mask, generation_config=config).scores[0]
        assert torch.equal(ours.isfinite(), theirs.isfinite())
        torch.testing.assert_close(ours[ours.isfinite()], theirs[theirs.isfinite()], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("path", ["dasd", "trl"])
def test_first_tokens_come_as_often_as_the_model_says(make, prompts, path):
    """4,000 rollouts of one prompt: each count is within 4 binomial standard deviations (and one) of its expectation."""
    draws = 4000
    trainer = make(sampler=path, max_completion_length=1, temperature=0.8, top_k=12)
    torch.manual_seed(0)
    counts = Counter(ids[0] for ids in rollouts(trainer, [prompts[0]] * draws))
    with torch.no_grad():
        logits = trainer.model(torch.tensor(prompts[:1])).logits[0, -1] / 0.8
    probabilities = logits.masked_fill(logits < logits.topk(12).values[-1], -torch.inf).softmax(-1)
    assert set(counts) <= set(probabilities.nonzero()[:, 0].tolist())
    assert len(counts) > 8
    for token, probability in enumerate(probabilities.tolist()):
        bound = 4 * math.sqrt(draws * probability * (1 - probability)) + 1
        assert abs(counts[token] - draws * probability) <= bound


def test_log_probs_are_those_of_a_plain_pass(make, prompts, monkeypatch):
    """What a token was drawn with is its log-prob in a forward pass of its own row, without padding or cache."""
    trainer, drawn = make(sampler="dasd", generation_kwargs=ENDS, max_completion_length=16), []
    pick = sampler.pick

    def watched(probabilities, uniform):
        tokens = pick(probabilities, uniform)
        drawn.append((tokens.tolist(), probabilities.gather(1, tokens[:, None])[:, 0].log().tolist()))
        return tokens

    monkeypatch.setattr(sampler, "pick", watched)
    monkeypatch.setattr(sampler, "SHRINK_AT", 0.0)  # rows keep their places
    written = rollouts(trainer, prompts)
    assert len(set(map(len, written))) > 2
    trainer.model.eval()
    rule = sampling.warp_of(trainer.generation_config, max(map(len, prompts)))
    for row, (prompt, completion) in enumerate(zip(prompts, written, strict=True)):
        with torch.no_grad():
            logits = trainer.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        for step, token in enumerate(completion):
            past = torch.zeros(1, max(map(len, prompts)) + step, dtype=torch.long)
            expected = rule(past, torch.ones_like(past), logits[step : step + 1]).log_softmax(-1)[0, token]
            assert drawn[step][0][row] == token
            assert drawn[step][1][row] == pytest.approx(float(expected), abs=1e-4)


def test_rows_that_end_do_not_change_the_others(make, prompts):
    trainer = make(sampler="dasd", generation_kwargs=ENDS, max_completion_length=24)
    settings, ends = trainer.generation_config, trainer.eos_token_ids
    seeds = [(3, row) for row in range(len(prompts))]
    together = sampling.write_rollouts(trainer.model, prompts, settings, seeds, ends, 0)
    assert len(set(map(len, together))) > 3
    for prompt, seed, expected in zip(prompts, seeds, together, strict=True):
        assert sampling.write_rollouts(trainer.model, [prompt], settings, [seed], ends, 0) == [expected]
        assert not set(expected[:-1]) & set(ends)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_groups_prompt_is_read_once_and_then_the_cache_is_used(make, prompts, checkpointing):
    shapes = {}
    for path in ("dasd", "trl"):
        trainer = make(sampler=path, gradient_checkpointing=checkpointing)
        seen = shapes[path] = []
        hook = trainer.model.register_forward_pre_hook(
            lambda module, args, given, seen=seen: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
        )
        rollouts(trainer, prompts)
        hook.remove()
        assert trainer.model.is_gradient_checkpointing == checkpointing  # it is on again
    width = max(map(len, prompts))
    assert shapes["dasd"][0] == (4, width)
    assert shapes["trl"][0] == (8, width)
    assert {columns for _, columns in shapes["dasd"][1:]} == {1}
    assert len(shapes["dasd"]) == 12


def test_autocast_casts_weights_once_a_batch(make, prompts):
    trainer = make(sampler="dasd", bf16=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        rollouts(trainer, prompts)
    casts = [event.input_shapes[0] for event in profile.events() if event.name == "aten::_to_copy"]
    assert casts.count([32, 64]) == 2  # down_proj of the two layers


def test_the_place_decides(make, prompts):
    """Another turn, step, mode or seed draws other numbers; the same place draws the same in another process's share."""
    written = {}
    for name in ("first", "again"):
        trainer = make(sampler="dasd")
        written[name] = rollouts(trainer, prompts)
        written[name + ", second turn"] = rollouts(trainer, prompts)
    assert written["again"] == written["first"]
    assert written["again, second turn"] == written["first, second turn"]
    trainer.state.global_step = 1
    written["next step"] = rollouts(trainer, prompts)
    trainer.state.global_step = 0
    trainer.model.eval()
    written["evaluation"] = rollouts(trainer, prompts)
    written["other seed"] = rollouts(make(sampler="dasd", seed=4), prompts)
    different = [ids for name, ids in written.items() if not name.startswith("again")]
    assert len({str(ids) for ids in different}) == len(different)
    with patch.object(Accelerator, "process_index", PropertyMock(return_value=1)):
        assert rollouts(make(sampler="dasd"), prompts[4:]) == written["first"][4:]


class Odd(GPT2LMHeadModel):
    def forward(self, input_ids=None, attention_mask=None, labels=None, **given):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **given)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"generation_kwargs": {"no_repeat_ngram_size": 3}},
            "no_repeat_ngram_size 3 is a setting of transformers' generate alone",
        ),
        ({"cache_implementation": "static"}, "cache_implementation 'static' is a setting"),
        ({"generation_kwargs": {"eos_token_id": 9}}, r"eos_token_id 9 are not the end tokens of the run"),
        ({"model": "odd"}, "Odd takes no "),
    ],
)
def test_what_it_cannot_do_is_left_to_trl_and_said_once(make, prompts, tokenizer, caplog, changes, reason):
    if changes.get("model"):
        changes = {"model": Odd(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=1, n_positions=256))}
    with caplog.at_level(logging.INFO, logger="dasd"):
        trainer = make(**changes)
        written = rollouts(trainer, prompts)
        rollouts(trainer, prompts)
    said = [record.getMessage() for record in caplog.records if "TRL's generation writes the rollouts" in record.getMessage()]
    assert len(said) == 1
    assert reason.replace("\\", "") in said[0]
    assert len(written) == len(prompts)
    with pytest.raises(ValueError, match="sampler dasd cannot write these rollouts: " + reason):
        make(sampler="dasd", **changes)


def test_a_models_own_settings_hold_where_the_run_leaves_them_open(make, tokenizer):
    model = tiny(tokenizer)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, no_repeat_ngram_size=2, do_sample=True)
    with pytest.raises(ValueError, match="no_repeat_ngram_size 2"):
        make(model, sampler="dasd")
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, top_k=2, min_p=0.5, do_sample=True)
    settings = sampling.filled(make(model, sampler="dasd").generation_config, model)
    assert (settings.top_k, settings.min_p) == (0, 0.5)  # TRL says 0, and nothing of min_p


def test_a_sharded_model_is_left_to_trl(make):
    trainer = make()
    assert trainer._samples_itself
    trainer.is_fsdp_enabled = True
    assert not trainer._chooses_itself()
    trainer.sampler = "dasd"
    with pytest.raises(ValueError, match="sharded over processes"):
        trainer._chooses_itself()


def test_the_setting_reaches_the_trainer(make):
    assert trainer_arguments(validate(RunConfig, {})).sampler == "auto"
    assert trainer_arguments(validate(RunConfig, {"training": {"sampler": "trl"}})).sampler == "trl"
    assert not make(sampler="trl")._samples_itself
    with pytest.raises(BadInput, match=r"training\.sampler"):
        validate(RunConfig, {"training": {"sampler": "vllm"}})
    with pytest.raises(ValueError, match="sampler must be one of auto, dasd, trl, got 'ours'"):
        SelfDistillationConfig("out", bf16=False, sampler="ours")


def test_a_policy_that_breaks_ends_the_run_and_a_broken_base_is_refused(make, prompts, tmp_path):
    trainer = make(sampler="dasd")
    torch.nn.init.constant_(trainer.model.model.norm.weight, float("inf"))
    with pytest.raises(BadInput, match="not finite numbers at token 1"), stopping(1, str(tmp_path)):
        rollouts(trainer, prompts)
    with pytest.raises(RunFailed, match=r"while the rollouts of step 2 were sampled: .*not finite"), stopping(2, str(tmp_path)):
        rollouts(trainer, prompts)
