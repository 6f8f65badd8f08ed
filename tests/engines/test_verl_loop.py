"""Does verl's loop run with dasd's trainer, and are the numbers in its queue those of a plain forward pass?

Two steps under Ray with two workers on CPUs, by verl's own command: `make test-verl`. `verl_loop.py` says what is left out.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

pytest.importorskip("verl")
from dasd.assets.build import build_tokenizer
from dasd.credit import TokenSignals, assign_credit, make_method
from dasd.prompts import tokenize_prompt
from dasd.tasks.countdown import make_problems
from dasd.teacher.context import PrivilegedContext
from training.conftest import tiny

FOLDER = Path(__file__).parent
# Ray is told of GPUs, of which a worker of verl asks for one; there are none.
SETTINGS = """
data.train_batch_size=4 data.max_prompt_length=64 data.max_response_length=16 data.dataloader_num_workers=0 data.shuffle=false
actor_rollout_ref.model.use_remove_padding=false actor_rollout_ref.model.enable_gradient_checkpointing=false
+actor_rollout_ref.model.override_config.attn_implementation=sdpa actor_rollout_ref.actor.strategy=fsdp2
actor_rollout_ref.actor.ppo_mini_batch_size=4 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2
actor_rollout_ref.actor.optim.lr=0.001 actor_rollout_ref.actor.fsdp_config.model_dtype=fp32
actor_rollout_ref.actor.fsdp_config.dtype=float32 actor_rollout_ref.actor.use_torch_compile=false
actor_rollout_ref.actor.fsdp_config.use_torch_compile=false actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=4
actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2
+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}
+actor_rollout_ref.rollout.agent.agent_loop_manager_class=verl_loop.Prescribed
actor_rollout_ref.rollout.nnodes=1 actor_rollout_ref.rollout.calculate_log_probs=false
transfer_queue.backend.SimpleStorage.num_data_storage_units=1
algorithm.adv_estimator=grpo reward.num_workers=1 trainer.v1.trainer_mode=dasd_on_cpus trainer.n_gpus_per_node=2
trainer.nnodes=1 trainer.total_training_steps=2 trainer.val_before_train=false trainer.test_freq=-1 trainer.save_freq=-1
trainer.logger=[console] trainer.device=cpu +dasd.method.name=dasd +dasd.teacher.context=solution
+dasd.method.beta={start:0.1,end:0.4,steps:2}
ray_kwargs.ray_init.num_cpus=8 +ray_kwargs.ray_init.num_gpus=2 +ray_kwargs.ray_init.include_dashboard=false
+ray_kwargs.ray_init.object_store_memory=300000000
"""


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def problems():
    return make_problems(16, 0, "train")


@pytest.fixture(scope="module")
def seen(tokenizer, problems, tmp_path_factory):
    """(the model before, what each step left in the queue)."""
    import pandas

    folder = tmp_path_factory.mktemp("loop")
    tiny(tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [
        {
            "data_source": "countdown", "prompt": [{"role": "user", "content": problem.problem}], "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"index": index, "solution": problem.solution},
        }
        for index, problem in enumerate(problems)
    ]  # fmt: skip
    pandas.DataFrame(rows).to_parquet(folder / "train.parquet")
    places = [f"data.train_files={folder}/train.parquet", f"data.val_files={folder}/train.parquet"]
    places += [f"actor_rollout_ref.model.path={folder}/model", f"trainer.default_local_dir={folder}/checkpoints"]
    path = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu,verl_loop", "PYTHONPATH": path, "DASD_SEEN": str(folder / "seen.jsonl"),
    }  # fmt: skip
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *SETTINGS.split(), *places]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    lines = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    return AutoModelForCausalLM.from_pretrained(folder / "model"), lines


@torch.no_grad()
def plainly(model, prompt, ids):
    """(T,) log-probs and entropies of the ids behind a prompt."""
    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    logps = logits.log_softmax(-1)
    return logps[torch.arange(len(ids)), torch.tensor(ids)], -(logps.exp() * logps).sum(-1)


def test_two_steps_run_and_learn(seen):
    _, steps = seen
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert len(step["uid"]) == 16
        assert step["metrics"]["actor/grad_norm"] > 0
        assert step["metrics"]["dasd/teacher/skipped"] == 0
        assert step["metrics"]["dasd/gap/abs"] > 0


def test_credit_in_the_queue_is_that_of_a_plain_forward_pass(seen, tokenizer, problems):
    """Of the first step, row by row: its prompt is found by the log-probs that verl's workers computed."""
    model, (first, second) = seen
    rows, context = first["rows"], PrivilegedContext("solution")
    asked = [{"prompt": [{"role": "user", "content": p.problem}], "solution": p.solution} for p in problems[:4]]
    prompts = [tokenize_prompt(tokenizer, row["prompt"]) for row in asked]
    told = [tokenize_prompt(tokenizer, context.prompt(row)) for row in asked]
    groups = {uid: [i for i, other in enumerate(first["uid"]) if other == uid] for uid in first["uid"]}
    assert [len(members) for members in groups.values()] == [4] * 4
    method, found = make_method("dasd", {"beta": {"start": 0.1, "end": 0.4, "steps": 2}}), set()
    for members in groups.values():
        rewards = torch.tensor([sum(rows["rm_scores"][i]) for i in members])
        verifier = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for advantage, index in zip(verifier, members, strict=True):
            ids, old = rows["responses"][index], torch.tensor(rows["old_log_probs"][index])
            fits = [torch.allclose(plainly(model, prompt, ids)[0], old, atol=1e-5) for prompt in prompts]
            assert sum(fits) == 1
            place = fits.index(True)
            found.add(place)
            student, entropies = plainly(model, prompts[place], ids)
            teacher, _ = plainly(model, told[place], ids)
            signals = TokenSignals(student[None], teacher[None], entropies[None], torch.ones(1, len(ids)), advantage[None])
            expected = assign_credit(signals, method, step=0).advantages[0]
            torch.testing.assert_close(torch.tensor(rows["advantages"][index]), expected, atol=2e-5, rtol=1e-4)
    assert found == {0, 1, 2, 3}
    moved = [
        (plainly(model, tokenize_prompt(tokenizer, row["prompt"]), ids)[0] - torch.tensor(old)).abs().max()
        for row in ({"prompt": [{"role": "user", "content": p.problem}]} for p in problems[4:8])
        for ids, old in zip(second["rows"]["responses"], second["rows"]["old_log_probs"], strict=True)
    ]
    assert min(moved) > 1e-4  # no prompt explains the second step's by the first weights: they were updated
