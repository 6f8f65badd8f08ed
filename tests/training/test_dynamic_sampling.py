"""Do groups that teach nothing give way to fresh ones, and is the batch then as if it had been sampled so?"""

import math

import pytest
import torch
from datasets import Dataset

from dasd.analysis.scores import score_completion
from dasd.data.problems import as_row
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import PrivilegedContext
from dasd.training.dynamic_sampling import idle_groups
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer

SIZE = 4


def hard(idle_ids):
    """Idle on the named problems, varying within the group on others."""

    def reward(completion_ids, id, **_):
        varied = [float(sum(ids) % 5 + index % 2) for index, ids in enumerate(completion_ids)]
        return [0.0 if problem in idle_ids else value for value, problem in zip(varied, id, strict=True)]

    return reward


class Kept(SelfDistillationTrainer):
    """Keeps each batch of rollouts with its rows and the weights, and counts the rounds of generation."""

    def __init__(self, *args, **kwargs):
        self.kept, self.rounds = [], []
        super().__init__(*args, **kwargs)

    def _generate_batch(self, inputs):
        batch = super()._generate_batch(inputs)
        self.rounds.append((self.state.global_step, [row["id"] for row in inputs][::SIZE], batch["rewards"].tolist()))
        return batch

    def score_rollouts(self, rows, batch):
        batch["verifier"] = batch["advantages"].clone()  # before credit takes their place
        extra = super().score_rollouts(rows, batch)
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.kept.append((list(rows), {**batch, **extra}, weights))
        return extra


@pytest.fixture
def table(problems):
    """Prompts of unlike lengths, so that what is merged must be padded."""
    rows = [as_row(problem) for problem in problems]
    for index, row in enumerate(rows):
        row["prompt"] = [{"role": "user", "content": row["problem"] + " Use each number once." * (index % 3)}]
    return Dataset.from_list(rows)


@pytest.fixture
def resample(train, table, tiny_model, tokenizer):
    """Trains with dynamic sampling on `table`, of which the named problems are idle."""
    with torch.no_grad():  # likelier end tokens: completions of unlike lengths
        tiny_model.model.embed_tokens.weight[tokenizer.eos_token_id] *= 2.0

    def start(idle, rounds=3, method="dasd", **changes):
        kind = lambda **settings: SelfDistillationConfig(method=method, **settings)  # noqa: E731
        settings = {"per_device_train_batch_size": 16, "max_resamples": rounds, "max_completion_length": 30} | changes
        return train(Kept, dataset=table, reward=hard({table[i]["id"] for i in idle}), kind=kind, **settings)

    @torch.no_grad()
    def check(trainer):
        """Every row of every batch: ids, masks, prompts, credit's signals and counts belong together."""
        for rows, batch, weights in trainer.kept:
            tiny_model.load_state_dict(weights)
            tiny_model.eval()
            ids, mask, pad = batch["completion_ids"], batch["completion_mask"], tokenizer.pad_token_id
            assert len(rows) == len(ids) == 16
            assert int(batch["num_items_in_batch"]) == int(mask.sum())
            assert all(len({row["id"] for row in rows[i : i + SIZE]}) == 1 for i in range(0, 16, SIZE))
            assert (batch["prompt_mask"].diff(dim=1) >= 0).all()  # padded on the left, so that completions follow
            for i, row in enumerate(rows):
                length = int(mask[i].sum())
                assert mask[i, :length].all()
                assert (ids[i, length:] == pad).all()
                prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
                assert prompt == tokenize_prompt(tokenizer, row["prompt"])
                assert (batch["prompt_ids"][i][~batch["prompt_mask"][i].bool()] == pad).all()
                completion = ids[i, :length].tolist()
                told = PrivilegedContext().prompt(row)
                teacher, _ = score_completion(tiny_model, tokenize_prompt(tokenizer, told), completion)
                if "teacher_logps" in batch:
                    torch.testing.assert_close(batch["teacher_logps"][i, :length], teacher, atol=2e-4, rtol=0)
                student, entropies = score_completion(tiny_model, prompt, completion)
                if "old_per_token_logps" in batch:
                    torch.testing.assert_close(batch["old_per_token_logps"][i, :length], student, atol=2e-4, rtol=0)
                    torch.testing.assert_close(batch["old_entropies"][i, :length], entropies, atol=2e-4, rtol=0)
            rewards = batch["rewards"].view(-1, SIZE)
            advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
            torch.testing.assert_close(batch["verifier"].view(-1, SIZE), advantages, atol=1e-4, rtol=0)

    start.check = check
    return start


REGIMES = {
    "deferred": {},
    "recorded": {"num_iterations": 2},
    "vocabulary": {"method": "sdft"},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
}


@pytest.mark.parametrize("regime", REGIMES)
def test_idle_groups_are_replaced_and_the_batch_is_whole(resample, regime):
    trainer = resample(range(8), rounds=4, max_steps=4, **REGIMES[regime])
    resample.check(trainer)
    first = [rewards for _, _, rewards in trainer.rounds if len(rewards) == 16]
    assert any(idle_groups(torch.tensor(rewards), SIZE) for rewards in first)
    kept = [len(idle_groups(batch["rewards"], SIZE)) for _, batch, _ in trainer.kept]
    assert sum(kept) < sum(len(idle_groups(torch.tensor(rewards), SIZE)) for rewards in first)


def test_the_log_counts_what_was_idle_left_and_sampled(resample):
    trainer = resample(range(8), rounds=2, max_steps=3)
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    for step, log in enumerate(logs):
        rounds = [(ids, torch.tensor(rewards)) for at, ids, rewards in trainer.rounds if at == step]
        fresh = sum(len(ids) for ids, rewards in rounds[1:])
        assert log["dynamic_sampling/idle"] == len(idle_groups(rounds[0][1], SIZE)) / 4
        assert log["dynamic_sampling/resampled"] == fresh / 4
        assert log["dynamic_sampling/idle_left"] == len(idle_groups(trainer.kept[step][1]["rewards"], SIZE)) / 4
        assert len(rounds) <= 3
    assert max(log["dynamic_sampling/resampled"] for log in logs) > 0


def test_rounds_are_bounded_where_everything_is_idle(resample):
    trainer = resample(range(16), rounds=2, max_steps=1)
    assert [len(ids) for _, ids, _ in trainer.rounds] == [4, 4, 4]
    assert trainer.state.log_history[0]["dynamic_sampling/idle_left"] == 1


def test_nothing_is_sampled_again_without_need(resample):
    assert len(resample([], rounds=3, max_steps=2).rounds) == 2
    assert len(resample(range(16), rounds=0, max_steps=1).rounds) == 1


def test_the_same_seed_takes_the_same_problems(resample, tiny_model):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    first = resample(range(8), max_steps=2)
    tiny_model.load_state_dict(start)
    second = resample(range(8), max_steps=2)
    assert [round_[1] for round_ in first.rounds] == [round_[1] for round_ in second.rounds]
    assert torch.equal(first.kept[-1][1]["completion_ids"], second.kept[-1][1]["completion_ids"])


SEVERAL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "steps_per_generation": 1}


def drawn(trainer, step):
    """The problems of each round of a step, those that were the batch's own before each new generation left out."""
    rounds = [ids for at, ids, _ in trainer.rounds if at == step]
    return [ids[0] for place, ids in enumerate(rounds) if place % 3]


def test_generations_of_one_step_draw_problems_of_their_own(resample):
    """Four generations with two rounds each, everything idle: they drew the same two problems four times."""
    trainer = resample(range(16), rounds=2, max_steps=1, **SEVERAL)
    found = drawn(trainer, 0)
    assert len(found) == 8
    assert len({tuple(found[at : at + 2]) for at in range(0, 8, 2)}) == 4
    assert len(set(found)) > 4


def test_a_resumed_run_draws_what_the_whole_run_does(resample, tiny_model, tmp_path):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    saved = {"save_strategy": "steps", "save_steps": 1, "output_dir": str(tmp_path / "run")}
    whole = resample(range(16), rounds=2, max_steps=2, **SEVERAL, **saved)
    tiny_model.load_state_dict(start)
    resumed = Kept(
        tiny_model, whole.reward_funcs[0], whole.args, train_dataset=whole.train_dataset,
        processing_class=whole.processing_class,
    )  # fmt: skip
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert drawn(resumed, 1) == drawn(whole, 1)
    assert drawn(whole, 1) != drawn(whole, 0)
    assert torch.equal(resumed.kept[-1][1]["completion_ids"], whole.kept[-1][1]["completion_ids"])


@pytest.mark.parametrize(
    ("rewards", "idle"),
    [
        ([0, 0, 0, 1, 1, 1], [0, 1]),
        ([0, 1, 0, 1, 1, 1], [1]),
        ([0, 0, 1, 1, 0, 1], []),
        ([math.nan, 1, 1, 0, math.nan, 1], [0]),
        ([math.nan, math.nan, math.nan, math.nan, 0, 1], [0]),
    ],
)
def test_idle_groups_by_hand(rewards, idle):
    """A rollout that could not be graded neither varies nor saves its group."""
    assert idle_groups(torch.tensor(rewards, dtype=torch.float32), 3) == idle
