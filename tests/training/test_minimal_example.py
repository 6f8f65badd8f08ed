"""Is the one-file example the method of the package: its scores, its credit, its update, its verifier?"""

import ast
import importlib.util
import os
import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from dasd.credit import DirectionAdaptive, TokenSignals, assign_credit
from dasd.data.problems import as_row
from dasd.prompts import tokenize_prompt
from dasd.tasks import make_task
from dasd.tasks.base import Problem
from dasd.tasks.countdown import CountdownSpec, read_problem
from dasd.teacher.context import PrivilegedContext
from dasd.training.trainer import SelfDistillationTrainer

PATH = Path(__file__).parents[2] / "examples" / "minimal_dasd.py"
BETA, RHO = 0.1, 0.8


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("minimal_dasd", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tuned_reward(completion_ids, **_):
    return [float(len(ids) + sum(ids) % 7) for ids in completion_ids]


class Recorder(SelfDistillationTrainer):
    """Keeps each batch, its rows, the advantages its tokens got, and the weights at that moment."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def score_rollouts(self, rows, batch):
        self.rows = list(rows)
        return super().score_rollouts(rows, batch) | {"row_index": torch.arange(len(rows))}  # follows TRL's shuffle

    def credit(self, batch, student_logps, entropies):
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        credit = super().credit(batch, student_logps, entropies)
        kept = {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
        self.seen.append((kept, [self.rows[i] for i in batch["row_index"]], credit.advantages.clone(), weights))
        return credit


@pytest.fixture
def recorded(train, tiny_model, tokenizer):
    """Three steps of the package's trainer: (batch, rows, advantages, weights) of each.

    The random model's distributions are sharpened: it writes almost uniformly, and where entropies hardly vary the division by
    their deviation blows up the last digit in which TRL's fused head and plain transformers differ. Its end token is made
    likelier, so that completions are ragged.
    """
    with torch.no_grad():
        tiny_model.model.norm.weight.mul_(2.0)
        tiny_model.model.embed_tokens.weight[tokenizer.eos_token_id] *= 2.0
    settings = {"method_settings": {"beta": BETA, "rho": RHO}, "loss_type": "grpo", "lr_scheduler_type": "constant"}
    seen = train(Recorder, reward=tuned_reward, max_steps=3, max_completion_length=40, **settings).seen
    assert len(seen) == 3
    assert any((batch["completion_mask"] == 0).any() for batch, *_ in seen)
    return seen


def as_lists(batch):
    return [ids[: int(n)].tolist() for ids, n in zip(batch["completion_ids"], batch["completion_mask"].sum(1), strict=True)]


def as_prompts(example, tokenizer, rows):
    students = [example.student_prompt(tokenizer, row["problem"]) for row in rows]
    return students, [example.teacher_prompt(tokenizer, row["problem"], row["solution"]) for row in rows]


def test_scores_and_credit_are_the_trainers(example, recorded, tiny_model, tokenizer):
    tiny_model.eval()
    for batch, rows, advantages, weights in recorded:
        tiny_model.load_state_dict(weights)
        completions, (prompts, told) = as_lists(batch), as_prompts(example, tokenizer, rows)
        with torch.no_grad():
            student, entropies, mask = example.score(tiny_model, prompts, completions, tokenizer.pad_token_id)
            teacher, _, _ = example.score(tiny_model, told, completions, tokenizer.pad_token_id)
        torch.testing.assert_close(mask, batch["completion_mask"])
        torch.testing.assert_close(teacher * mask, batch["teacher_logps"] * mask, atol=1e-5, rtol=0)
        ours, _ = example.dasd_advantages(student, teacher, entropies, mask, batch["advantages"], BETA, RHO)
        assert (ours - batch["advantages"][:, None] * mask).abs().max() > 0.05  # the teacher says something
        torch.testing.assert_close(ours, advantages, atol=1e-5, rtol=0)


def test_verifier_advantages_are_trls(example, recorded):
    for batch, rows, _, _ in recorded:
        order = sorted(range(len(rows)), key=lambda i: rows[i]["id"])  # groups side by side
        completions = as_lists(batch)
        rewards = torch.tensor(tuned_reward([completions[i] for i in order]))
        torch.testing.assert_close(example.group_advantages(rewards, 4), batch["advantages"][order], atol=1e-5, rtol=0)


def test_updates_are_the_trainers(example, recorded, tiny_model, tokenizer):
    """Two steps of the example from the trainer's weights on its rollouts end at its weights.

    Tolerance: 1 % of a step. Adam's first step divides each gradient by its own size, so the rounding of a tiny one shows.
    The second step depends on the size of the first gradient too, hence on clipping.
    """
    tiny_model.eval()
    optimizer = torch.optim.AdamW(tiny_model.parameters(), lr=1e-3, weight_decay=0.0)
    for (batch, rows, _, before), (_, _, _, after) in pairwise(recorded):
        tiny_model.load_state_dict(before)
        prompts, told = as_prompts(example, tokenizer, rows)
        completions, pad = as_lists(batch), tokenizer.pad_token_id
        example.update(tiny_model, optimizer, prompts, told, completions, batch["advantages"], pad, BETA, RHO)
        for name, value in tiny_model.state_dict().items():
            assert (value - before[name]).abs().max() > 3e-4
            torch.testing.assert_close(value, after[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("beta", "rho"), [(0.1, 0.8), (0.5, 0.5), (0.3, 0.95), (0.0, 0.2)])
def test_credit_is_direction_adaptive(example, seed, beta, rho):
    """Ragged rollouts, with one of one token, one of none, one of equal entropies, one without gaps; NaN at padding."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([37, 1, 0, 12, 25, 9, 2, 40])
    mask = (torch.arange(40) < lengths[:, None]).long()
    student, teacher = (-4 * torch.rand(8, 40, generator=draw) ** 6 for _ in range(2))  # a few gaps reach the clip
    entropies = torch.rand(8, 40, generator=draw) ** 3 * 4
    entropies[3], teacher[4] = 0.7, student[4]
    for tensor in (student, teacher, entropies):
        tensor[mask == 0] = torch.nan
    advantages = torch.randn(8, generator=draw)
    credit = assign_credit(TokenSignals(student, teacher, entropies, mask, advantages), DirectionAdaptive(beta, rho))
    ours, omega = example.dasd_advantages(student, teacher, entropies, mask, advantages, beta, rho)
    torch.testing.assert_close(ours, credit.advantages, atol=1e-6, rtol=0)
    torch.testing.assert_close(omega, credit.omega, atol=1e-6, rtol=0)


def test_it_is_short_and_stands_alone():
    source = PATH.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 250
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.partition(".")[0])
    assert imported <= {*sys.stdlib_module_names, "torch", "transformers"}
    assert {"torch", "transformers"} <= imported


def test_it_runs_as_a_script(tiny_model, tokenizer, tmp_path):
    tiny_model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    command = [sys.executable, PATH, "--model", tmp_path / "tiny", "--steps", "2", "--problems", "2", "--group-size", "2"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    number = r"[0-9]+\.[0-9]+"
    line = rf"step +([0-9]+)  reward {number}  length {number}  repelled {number}"
    assert [int(match[1]) for match in re.finditer(line, done.stdout)] == [1, 2]


def test_sampling_is_from_the_whole_distribution(example, tiny_model, tokenizer, monkeypatch):
    """No top-k, and completions end with the first end token or at the limit."""
    tiny_model.eval()
    torch.manual_seed(0)
    monkeypatch.setattr(example, "MAX_NEW_TOKENS", 20)
    prompts = [example.student_prompt(tokenizer, f"Use 3 7 8 to make {n}.") for n in (9, 29)] * 128
    completions = example.generate(tiny_model, tokenizer, prompts)
    assert len({ids[0] for ids in completions[::2]}) > 60  # of 128 draws
    end = tokenizer.eos_token_id
    assert any(end in ids for ids in completions)
    for ids in completions:
        assert end not in ids[:-1]
        assert len(ids) == 20 or ids[-1] == end


def test_prompts_are_the_packages(example, tokenizer, problems):
    for problem in problems:
        row = as_row(problem)
        prompts, told = as_prompts(example, tokenizer, [row])
        assert prompts[0] == tokenize_prompt(tokenizer, row["prompt"])
        assert told[0] == tokenize_prompt(tokenizer, PrivilegedContext().prompt(row))


PROBLEM = "Use 3 7 8 to make 29."
COMPLETIONS = {
    "answer: 3 * 7 = 21, 21 + 8 = 29.": True,
    "perhaps 3 + 8 = 11. check 11 < 29. wait, maybe 3 * 7 = 21. answer: 3 * 7 = 21, 21 + 8 = 29": True,
    "answer: 8 + 7 = 15. answer:7*3=21,8+21=29. ": True,
    "3 * 7 = 21, 21 + 8 = 29.": False,
    "answer: 3 * 7 = 21.": False,
    "answer: 3 * 7 = 22, 22 + 7 = 29.": False,
    "answer: 7 * 7 = 49, 49 - 8 = 41, 41 - 12 = 29.": False,
    "answer: 21 + 8 = 29, 3 * 7 = 21.": False,
    "answer: 3 * 7 = 21, 21 + 8 = 29..": False,
    "answer: 3 * 7 = 21, 21 + 8 = 29, ": False,
    "answer: 3 * 7 = 21, 21 + 8 = 29. so it is.": False,
    "answer: 3 - 3 = 0, 7 / 0 = 0, 8 + 21 = 29.": False,
    "answer: 3 / 7 = 0, 0 + 8 = 8.": False,
    "answer: 0000003 * 7 = 21, 21 + 8 = 29.": False,
    "answer: ٣ * 7 = 21, 21 + 8 = 29.": False,
    "answer: __import__('os'), 21 + 8 = 29.": False,
    "answer:": False,
    "": False,
}


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_verifier_is_the_packages(example, completion):
    assert example.is_right(PROBLEM, completion) is COMPLETIONS[completion]
    assert make_task("countdown").grade(Problem("", PROBLEM, "29"), completion).correct is COMPLETIONS[completion]


def test_problems_are_sound_and_verifiers_agree_on_damaged_answers(example):
    rng, task = random.Random(0), make_task("countdown")
    spec, verdicts = CountdownSpec(), []
    for _ in range(300):
        text, reference = example.make_problem(rng)
        numbers, target = read_problem(text)
        assert len(numbers) == spec.num_numbers
        assert all(spec.number_range[0] <= number <= spec.number_range[1] for number in numbers)
        assert spec.target_range[0] <= target <= spec.target_range[1]
        problem = Problem("", text, str(target), reference)
        right = f"answer: {reference}."
        assert example.is_right(text, right)
        assert task.grade(problem, right).correct
        place = rng.randrange(len(right))
        damaged = right[:place] + rng.choice(["", " ", ",", *"0123456789+-*/="]) + right[place + rng.randrange(2) :]
        verdicts.append(example.is_right(text, damaged))
        assert verdicts[-1] == task.grade(problem, damaged).correct, damaged
    assert {True, False} == set(verdicts)
