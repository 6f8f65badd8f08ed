"""Are the teacher's scores and the credit under verl those of `dasd train`, for the same model and rollouts?

verl's own FSDP2 engine computes the log-probs, on a CPU and without Ray: `make test-verl`. The other side is what TRL's trainer
saw in a step on prescribed completions of different lengths.
"""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("verl")
import verl_cpu  # noqa: F401 (before any engine)
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.padding import no_padding_2_padding

from dasd.assets.build import build_tokenizer
from dasd.config import BadInput
from dasd.prompts import tokenize_prompt
from dasd.tasks.countdown import make_problems
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationTrainer
from dasd.verl import plugin, settings  # noqa: F401
from dasd.verl.alignment import behind_prompts, credit, rollout_advantages, unpadded
from dasd.verl.prompts import as_row, teacher_prompts
from dasd.verl.trainer import padded, samples_of
from training.conftest import length_reward, make_arguments, tiny
from training.same_update import prescribed

CASES = {
    "dasd": {},
    "answer": {"method": "rlsd", "context": "answer"},
    "some without a hint": {"context": "hint"},
    "peers": {"method": "rlrt", "context": "peer"},
    "no context": {"context": "none"},
    "no teacher": {"method": "grpo"},
    "another temperature": {"temperature": 0.7},
}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """The tiny model, where verl can load it."""
    folder = tmp_path_factory.mktemp("model")
    tiny(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder):
    """verl's engine for the actor: FSDP2, one process, float32."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    names = {"strategy": "fsdp2", "model_dtype": "fp32", "dtype": "float32", "use_torch_compile": False}
    plain = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
    model = HFModelConfig(
        path=str(folder), use_remove_padding=False, override_config={"attn_implementation": "sdpa"},
        enable_gradient_checkpointing=False,
    )  # fmt: skip
    engine = EngineRegistry.new(
        model_type="language_model", backend="fsdp2", model_config=model, checkpoint_config=CheckpointConfig(),
        engine_config=FSDPEngineConfig(**names, mixed_precision=plain),
        optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=1),
    )  # fmt: skip
    engine.initialize()
    yield engine
    torch.distributed.destroy_process_group()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        del os.environ[name]


class Recording(SelfDistillationTrainer):
    """Notes rows, batch and credit as they are in the order of the rows."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations):
        return [prescribed(0, place, len(self.tokenizer)) for place in range(len(prompt_ids))], None

    def score_rollouts(self, rows, batch):
        self.rows = [dict(row) for row in rows]
        return super().score_rollouts(rows, batch)

    def credit(self, batch, student_logps, entropies):
        assigned = super().credit(batch, student_logps, entropies)
        self.seen = dict(batch) | {"student": student_logps, "entropies": entropies, "credit": assigned.advantages}
        return assigned


def differing(row, index):
    """The row with a prompt of a length of its own, and every other one with a hint."""
    asked = row["prompt"][0]["content"] + " the" * index
    return {"hint": None if index % 2 else "try 3 * 7", "prompt": [{"role": "user", "content": asked}]}


@pytest.fixture(scope="module")
def by_trl(tokenizer, tmp_path_factory):
    """(rows, what TRL's trainer saw) of a case, once."""
    done = {}

    def run(case):
        if case not in done:
            rows = as_dataset(make_problems(16, 0, "train"))
            rows = rows.map(differing, with_indices=True)
            output = tmp_path_factory.mktemp("trl")
            arguments = make_arguments(
                output_dir=str(output), max_steps=1, num_iterations=2, **CASES[case]
            )  # a pass of its own
            trainer = Recording(tiny(tokenizer), length_reward, arguments, train_dataset=rows, processing_class=tokenizer)
            trainer.train()
            done[case] = trainer.rows, trainer.seen
        return done[case]

    return run


def as_verl_has_it(rows, seen):
    """The same rollouts as verl's queue gives them: nested fields, columns as in its datasets."""
    lengths = seen["completion_mask"].sum(1).tolist()

    def nested(values):
        return torch.nested.as_nested_tensor(
            [row[:length] for row, length in zip(values, lengths, strict=True)], layout=torch.jagged
        )

    mask = seen["completion_mask"]
    rewards = torch.zeros_like(mask, dtype=torch.float32)
    rewards[torch.arange(len(mask)), torch.tensor(lengths) - 1] = seen["rewards"].float()
    return TensorDict(
        {
            "responses": nested(seen["completion_ids"]),
            "response_mask": nested(mask),
            "rm_scores": nested(rewards),
            "advantages": nested(seen["advantages"][:, None] * mask),
        }
        | {
            name: tu.NonTensorStack(*values)
            for name, values in {
                "uid": [row["id"] for row in rows],
                "raw_prompt": [row["prompt"] for row in rows],
                "extra_info": [{"solution": row["solution"], "hint": row["hint"]} for row in rows],
                "reward_model": [{"style": "rule", "ground_truth": row["answer"]} for row in rows],
            }.items()
        },
        batch_size=len(rows),
    )


def scored(engine, inputs, temperature, micro_batch):
    """(B, T) log-probs and entropies by verl's engine, in micro-batches of so many rows, or of so many tokens if negative."""
    dynamic = {"use_dynamic_bsz": True, "max_token_len_per_gpu": -micro_batch}
    fixed = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": micro_batch}
    tu.assign_non_tensor(
        inputs, calculate_entropy=True, compute_loss=False, temperature=temperature, use_remove_padding=False,
        use_fused_kernels=False, **(fixed if micro_batch > 0 else dynamic),
    )  # fmt: skip
    with engine.eval_mode():
        output = engine.infer_batch(inputs, loss_function=None)["model_output"]
    return [no_padding_2_padding(output[name], inputs) for name in ("log_probs", "entropy")]


def by_verl(engine, tokenizer, rows, seen, case, micro_batch=4, wider=0):
    """The same through dasd.verl: (student's log-probs, entropies, teacher's log-probs or None, Credit)."""
    values = CASES[case]
    teacher = {"context": values.get("context", "solution"), "weights": "live"}
    given = {"method": {"name": values.get("method", "dasd")}, "teacher": teacher}
    _, method, context = settings.read(given)
    data = as_verl_has_it(rows, seen)
    rollouts = padded(data, ("responses", "response_mask", "rm_scores", "advantages"), tokenizer.pad_token_id)
    if wider:
        tensors = {name: torch.nn.functional.pad(value, (0, wider)) for name, value in rollouts.batch.items()}
        rollouts = DataProto.from_dict(tensors=tensors)
    samples, temperature = samples_of(data), values.get("temperature", 1.0)
    own = [tokenize_prompt(tokenizer, sample["raw_prompt"]) for sample in samples]
    assert len(set(map(len, own))) > 1  # prompts differ in length
    student = unpadded(behind_prompts(rollouts, own, tokenizer.pad_token_id))
    logps, entropies = scored(engine, student, temperature, micro_batch)
    width = rollouts.batch["responses"].shape[1] - logps.shape[1]
    logps, entropies = (torch.nn.functional.pad(value, (0, width)) for value in (logps, entropies))
    rollouts.batch["old_log_probs"], rollouts.batch["entropy"] = logps, entropies
    teacher = None
    if "teacher_logps" in method.needs:
        texts = tokenizer.batch_decode([ids.tolist() for ids in data["responses"].unbind()], skip_special_tokens=True)
        correct = (rollouts.batch["rm_scores"].sum(1) >= 1.0).tolist()
        told = teacher_prompts(samples, context, [sample["uid"] for sample in samples], texts, correct)
        known = [sample["raw_prompt"] if prompt is None else prompt for prompt, sample in zip(told, samples, strict=True)]
        ids = [tokenize_prompt(tokenizer, prompt) for prompt in known]
        inputs = unpadded(behind_prompts(rollouts, ids, tokenizer.pad_token_id))
        teacher, uncertainty = (
            torch.nn.functional.pad(value, (0, width)) for value in scored(engine, inputs, temperature, micro_batch)
        )
        rollouts.batch["teacher_log_probs"], rollouts.batch["teacher_entropy"] = teacher, uncertainty
        rollouts.batch["has_teacher"] = torch.tensor([prompt is not None for prompt in told])
    return logps, entropies, teacher, credit(rollouts, method)


@pytest.mark.parametrize("case", CASES)
def test_scores_and_credit_are_those_of_the_other_trainer(by_trl, engine, tokenizer, case):
    rows, seen = by_trl(case)
    mask = seen["completion_mask"].bool()
    logps, entropies, teacher, assigned = by_verl(engine, tokenizer, rows, seen, case)
    torch.testing.assert_close(logps[mask], seen["student"][mask], atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies[mask], seen["entropies"][mask], atol=1e-5, rtol=0)
    assert seen["credit"][mask].abs().max() > 0.1
    if teacher is not None:
        taught = mask & seen["has_teacher"][:, None]
        torch.testing.assert_close(teacher[taught], seen["teacher_logps"][taught], atol=1e-5, rtol=0)
        gap = (teacher - logps)[taught].abs().max()
        assert gap < 1e-5 if case == "no context" else gap > 1e-2
    if case != "no context":  # where the gap is rounding, what it is scaled to is that, too
        torch.testing.assert_close(assigned.advantages[mask], seen["credit"][mask], atol=1e-5, rtol=1e-4)
    assert not assigned.advantages[~mask].any()


@pytest.mark.parametrize(("micro_batch", "wider"), [(1, 0), (8, 0), (2, 5), (-200, 3)])
def test_micro_batches_and_padding_change_nothing(by_trl, engine, tokenizer, micro_batch, wider):
    rows, seen = by_trl("some without a hint")
    expected = by_verl(engine, tokenizer, rows, seen, "some without a hint")[3].advantages
    got = by_verl(engine, tokenizer, rows, seen, "some without a hint", micro_batch, wider)[3].advantages
    torch.testing.assert_close(got[:, : expected.shape[1]], expected, atol=1e-5, rtol=1e-4)
    assert not got[:, expected.shape[1] :].any()


def test_ids_and_masks_by_hand():
    """Two responses, of three tokens of which a tool wrote the second, and of one token."""
    data = DataProto.from_dict(
        tensors={
            "responses": torch.tensor([[5, 6, 7], [8, 0, 0]]),
            "response_mask": torch.tensor([[1, 0, 1], [1, 0, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),  # behind prompts of one token
        }
    )
    told = behind_prompts(data, [[11], [21, 22, 23]], pad=99)
    assert told.batch["input_ids"].tolist() == [[99, 99, 11, 5, 6, 7], [21, 22, 23, 8, 0, 0]]
    assert told.batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
    assert told.batch["position_ids"].tolist() == [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 3, 3]]
    assert told.batch["response_mask"].tolist() == [[1, 0, 1], [1, 0, 0]]
    rows = unpadded(told)
    assert [row.tolist() for row in rows["input_ids"].unbind()] == [[11, 5, 6, 7], [21, 22, 23, 8]]
    assert [row.tolist() for row in rows["loss_mask"].unbind()] == [[1, 0, 1], [1]]
    with pytest.raises(ValueError, match="2 responses need as many prompts, got 1"):
        behind_prompts(data, [[11]], pad=99)
    with pytest.raises(ValueError, match="without tokens"):
        behind_prompts(data, [[11], []], pad=99)


def test_an_advantage_for_each_token_leaves_no_room_for_credit():
    mask = torch.tensor([[0, 1, 1], [0, 0, 0]])
    shared = rollout_advantages(torch.tensor([[9.0, -2.0, -2.0], [3.0, 3.0, 3.0]]), mask)
    assert shared.tolist() == [-2.0, 0.0]
    with pytest.raises(ValueError, match=r"rollout 0 has advantages that differ .*adv_estimator"):
        rollout_advantages(torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), mask)


def test_where_a_privileged_column_is_looked_for():
    sample = {
        "raw_prompt": [{"role": "user", "content": "?"}],
        "reward_model": {"ground_truth": "6"},
        "extra_info": {"hint": "h"},
    }
    assert settings.read({"method": {"name": "rlrt"}})[2].kind == "peer"  # the method's own, as with `dasd train`
    kinds = {kind: settings.read({"teacher": {"context": kind}})[2] for kind in ("answer", "hint", "solution", "peer")}
    assert as_row(sample, kinds["answer"])["answer"] == "6"
    assert as_row(sample, kinds["hint"])["hint"] == "h"
    assert as_row(sample | {"solution": "s"}, kinds["solution"])["solution"] == "s"
    assert as_row(sample, kinds["peer"]).keys() == {"prompt"}
    with pytest.raises(KeyError, match=r"needs a column 'solution': looked for solution, extra_info.solution in raw_prompt"):
        as_row(sample, kinds["solution"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": {"name": "opsd"}},
            "dasd.method.name opsd needs teacher_distribution, which dasd does not compute",
        ),
        ({"teacher": {"weights": "ema"}}, "dasd.teacher.weights ema is not there under verl: take live, frozen, adapter_off"),
        ({"method": {"name": "dasd", "betaa": 1}}, "betaa"),
        ({"teacherr": {}}, "unknown key 'teacherr', did you mean 'teacher'"),
    ],
)
def test_what_verl_cannot_do_is_refused_in_one_sentence(given, message):
    with pytest.raises(BadInput, match=message):
        settings.read(given)


@pytest.mark.parametrize(
    ("given", "has", "bypass", "message"),
    [
        ({}, (False, False, True), False, "leave the critic out"),
        ({"weights": "frozen"}, (False, False, False), False, "is verl's reference policy, which this run has not"),
        ({"weights": "frozen"}, (True, True, False), False, "is verl's reference policy, which this run has not"),
        ({"weights": "adapter_off"}, (True, False, False), False, "needs actor_rollout_ref.model.lora_rank"),
        ({}, (False, False, False), True, "rollout_correction.bypass_mode=false"),
        ({"weights": "frozen"}, (True, False, False), False, None),
        ({"weights": "adapter_off"}, (True, True, False), False, None),
    ],
)
def test_what_verls_own_settings_leave_out_is_refused(given, has, bypass, message):
    config = OmegaConf.create({"algorithm": {"rollout_correction": {"bypass_mode": bypass}}})
    read, method, _ = settings.read({"teacher": given})
    if message is None:
        settings.check(config, read, method, *has)
        return
    with pytest.raises(BadInput, match=message):
        settings.check(config, read, method, *has)


def test_verl_finds_the_trainer_by_itself():
    """In a process of its own, that imports verl alone."""
    code = "from verl.trainer.ppo.v1 import get_trainer_cls; print(get_trainer_cls('dasd').__module__)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1] == "dasd.verl.trainer", done.stderr[-2000:]
