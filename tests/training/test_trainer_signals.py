"""Does credit get the signals that a method's `needs` name, with the right values, at the right step?"""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from datasets import Dataset

from dasd.analysis.scores import score_completion
from dasd.config import RunConfig, validate
from dasd.credit import METHODS, Schedule, at_step
from dasd.data.problems import as_row
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import PrivilegedContext
from dasd.training import run
from dasd.training import trainer as trainer_module
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer


class Heard(SelfDistillationTrainer):
    """Keeps the signals of every credit assignment, with the step, rows and weights."""

    def __init__(self, *args, **kwargs):
        self.heard, self.rows, self.rewards = [], [], []
        super().__init__(*args, **kwargs)

    def score_rollouts(self, rows, batch):
        first = len(self.rows)
        self.rows += rows
        self.rewards += batch["rewards"].tolist()
        return super().score_rollouts(rows, batch) | {"row_index": first + torch.arange(len(rows))}

    def credit(self, batch, student_logps, entropies):
        original, seen = trainer_module.assign_credit, {}

        def listen(signals, method, step=0):
            seen.update(signals=signals, step=step, history=list(signals.teacher_entropy_history), index=batch["row_index"])
            return original(signals, method, step)

        trainer_module.assign_credit = listen
        try:
            credit = super().credit(batch, student_logps, entropies)
        finally:
            trainer_module.assign_credit = original
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.heard.append(seen | {"ids": batch["completion_ids"], "weights": weights})
        return credit


@pytest.fixture
def hear(train):
    def start(method, **changes):
        return train(Heard, kind=lambda **settings: SelfDistillationConfig(method=method, **settings), **changes)

    return start


@pytest.mark.parametrize(("kind", "hints"), [("solution", 1), ("solution", 3), ("answer", 2)])
def test_rlcsd_hears_every_wrong_hint(hear, tiny_model, tokenizer, kind, hints):
    trainer = hear("rlcsd", method_settings={"wrong_hints": hints, "hints_from": "other_problems"}, context=kind)
    context = PrivilegedContext(kind)
    table = trainer.train_dataset
    for heard in trainer.heard:
        signals = heard["signals"]
        assert signals.contrast_logps.shape == (hints, *signals.student_logps.shape)
        tiny_model.load_state_dict(heard["weights"])
        for i in (0, 5):
            row, length = trainer.rows[heard["index"][i]], int(signals.completion_mask[i].sum())
            ids = heard["ids"][i, :length].tolist()
            prompts = [context.prompt(row), *(context.wrong().prompt(row, others=table, choice=w) for w in range(hints))]
            assert all(prompt != prompts[0] for prompt in prompts[1:])
            rows = [signals.teacher_logps, *signals.contrast_logps]
            for prompt, scored in zip(prompts, rows, strict=True):
                wanted, _ = score_completion(tiny_model.eval(), tokenize_prompt(tokenizer, prompt), ids)
                torch.testing.assert_close(scored[i, :length], wanted, atol=2e-4, rtol=0)


@pytest.mark.parametrize("method", ["rlcsd", "sipo"])
def test_wrong_hints_are_failed_rollouts_of_the_same_problem(hear, tiny_model, tokenizer, method):
    """Groups of four with three right, two, one and none: a rollout's teacher is told two failed ones of the others at most."""
    marks = [1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    trainer = hear(
        method, method_settings={"wrong_hints": 2}, context="solution",
        reward=lambda completions, **_: marks[: len(completions)],
        per_device_train_batch_size=16, max_completion_length=8, max_steps=1,
    )  # fmt: skip
    (heard,) = trainer.heard
    signals, order = heard["signals"], heard["index"].tolist()
    place = {row: at for at, row in enumerate(order)}
    texts = {
        row: tokenizer.decode(heard["ids"][at][signals.valid[at]], skip_special_tokens=True) for at, row in enumerate(order)
    }
    tiny_model.load_state_dict(heard["weights"])
    told = 0
    for row in range(16):
        group = range(row // 4 * 4, row // 4 * 4 + 4)
        others = [*range(row + 1, group.stop), *range(group.start, row)]
        failed = [texts[i] for i in others if not marks[i] and texts[i].strip() and texts[i] != texts[row]]
        assert signals.has_contrast[:, place[row]].tolist() == [len(failed) > 0, len(failed) > 1]
        assert bool(signals.has_teacher[place[row]]) == (len(failed) > 0)
        for hint, text in enumerate(failed[:2]):
            prompt = PrivilegedContext("peer").prompt(trainer.rows[row], peers=[text])
            ids = heard["ids"][place[row]][signals.valid[place[row]]].tolist()
            wanted, _ = score_completion(tiny_model.eval(), tokenize_prompt(tokenizer, prompt), ids)
            torch.testing.assert_close(signals.contrast_logps[hint, place[row], : len(ids)], wanted, atol=2e-4, rtol=0)
            told += 1
    assert told >= 8
    if method == "rlcsd":
        totals = trainer.method.batch_totals(signals)
        assert signals.batch_totals == {name: float(total) for name, total in totals.items()}
        assert totals["with_term"] > 0


def test_loss_weights_are_in_the_advantages_that_the_loss_reads(hear, monkeypatch):
    """OPSA: only the least likely fifth counts in the mean, so its advantages are five times as large there."""
    seen = []
    loss = trainer_module.SelfDistillationTrainer._get_per_token_logps_and_entropies

    def watched(self, *arguments, **settings):
        waiting = self._batch_awaiting_credit
        scores = loss(self, *arguments, **settings)
        if waiting is not None:
            seen.append((waiting["advantages"], self._credit))
        return scores

    monkeypatch.setattr(trainer_module.SelfDistillationTrainer, "_get_per_token_logps_and_entropies", watched)
    hear("opsa", max_steps=1)
    ((advantages, credit),) = seen
    assert torch.equal(advantages, credit.advantages * credit.loss_weights)
    assert (credit.loss_weights > 4).any()
    assert (advantages <= 0).all()


def test_correct_is_by_the_first_reward_at_the_threshold_and_never_where_the_grader_failed(hear):
    def graded(completion_ids, **_):
        return [[0.4, 0.5, None, 0.9][i % 4] for i in range(len(completion_ids))]

    def bonus(completion_ids, **_):
        return [100.0] * len(completion_ids)

    trainer = hear("rlrt", reward=[graded, bonus], success_threshold=0.5)
    assert len(trainer.heard) == 2
    for heard in trainer.heard:
        wanted = [[False, True, False, True][int(i) % 4] for i in heard["index"]]
        assert heard["signals"].correct.tolist() == wanted
    assert sum(math.isnan(reward) for reward in trainer.rewards) == len(trainer.rewards) // 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ],
)
def test_antisd_remembers_one_median_for_each_batch_of_rollouts(hear, changes):
    trainer = hear("antisd", method_settings={"warmup_steps": 2}, max_steps=3, **changes)
    history = trainer._teacher_entropy_history
    assert len(history) == 3
    parts = len(trainer.heard) // 3
    for step in range(3):
        heard = trainer.heard[step * parts : (step + 1) * parts]
        assert all(part["history"] == history[: step + 1] for part in heard)
        entropies = torch.cat([part["signals"].teacher_entropies[part["signals"].valid] for part in heard])
        assert history[step] == pytest.approx(float(entropies.median()), abs=1e-5)
    logged = [entry["teacher/entropy_median"] for entry in trainer.state.log_history if "reward" in entry]
    assert logged == history


def test_a_batch_without_any_teacher_leaves_no_median(hear, problems):
    """One NaN in the warm-up would switch the method off for good."""
    rows = [as_row(problem) | {"solution": ""} for problem in problems]
    trainer = hear("antisd", dataset=Dataset.from_list(rows))
    assert trainer._teacher_entropy_history == []


SCHEDULED = [
    (method, name)
    for method, found in METHODS.items()
    for name, hint in get_type_hints(type(found)).items()
    if Schedule in get_args(hint)
]


@pytest.mark.parametrize(
    ("method", "name", "changes"),
    [
        *((*one, {}) for one in SCHEDULED),
        ("dasd", "beta", {"num_iterations": 2}),
        ("dasd_vocab", "beta", {"num_iterations": 2}),
    ],
)
def test_a_schedule_follows_the_optimisation_step(hear, method, name, changes):
    """With the rollouts, or at each visit of a batch for methods that are assigned credit then."""
    schedule = {"start": 0.4, "end": 0.0, "steps": 4}
    trainer = hear(method, method_settings={name: schedule}, max_steps=4 if changes else 2, **changes)
    steps = [heard["step"] for heard in trainer.heard]
    assert steps == ([0, 1] if not changes else [0, 2] if method == "dasd" else [0, 1, 2, 3])
    values = [getattr(at_step(trainer.method, step), name) for step in steps]
    assert values == pytest.approx([0.4 * (1 - step / 4) for step in steps])


def test_sums_over_the_batch_are_of_the_steps_own_setting(hear):
    """RLCSD counts its terms before the first rollout is learnt from: at scale 0 there is none."""
    trainer = hear(
        "rlcsd", method_settings={"scale": {"start": 0.5, "end": 0.0, "steps": 1}, "hints_from": "other_problems"}, max_steps=2
    )
    first, second = (heard["signals"].batch_totals for heard in trainer.heard)
    assert first["with_term"] > 0
    assert second["with_term"] == 0


def test_the_schedules_step_goes_on_after_a_resume(hear, tiny_model, tmp_path):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    settings = {"method_settings": {"lam": {"start": 0.5, "end": 0.1, "steps": 4}}, "max_steps": 4}
    saved = {"save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run")}
    whole = hear("rlsd", **settings, **saved)
    tiny_model.load_state_dict(start)
    trainer = Heard(
        tiny_model,
        whole.reward_funcs[0],
        whole.args,
        train_dataset=whole.train_dataset,
        processing_class=whole.processing_class,
    )
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert [heard["step"] for heard in trainer.heard] == [2, 3]


def test_an_evaluation_takes_nothing_from_trainings_sums(train, problems):
    """With a log every two steps and an evaluation between them, the log is still of both steps."""
    evaluated = train(
        max_steps=2, logging_steps=2, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=8,
        eval_dataset=run.as_dataset(problems[:2]),
    )  # fmt: skip
    history = evaluated.state.log_history
    assert [entry["step"] for entry in history if "eval_reward" in entry] == [1, 2]
    assert [entry["step"] for entry in history if "gap/abs" in entry] == [2]


# ---------------------------------------------------------------- overlong


@pytest.mark.parametrize(
    ("length", "penalty"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (101, -1.0)]
)
def test_overlong_shaping_by_hand(task, length, penalty):
    """Of at most 100 tokens the last fifth costs up to 1, in a straight line."""
    config = validate(RunConfig, {"training": {"overlong_buffer": 0.2, "max_completion_length": 100}})
    verifier, shaping = run.rewards(task, config)
    asked = {"id": ["0"], "problem": ["Use 3 7 8 to make 29."], "answer": ["29"]}
    written = [[{"role": "assistant", "content": "no luck"}]]
    batch = {"completions": written, "completion_ids": [[0] * length], **asked}
    assert verifier(**batch) == [0.0]
    assert shaping(**batch) == pytest.approx([penalty])
    assert len(run.rewards(task, validate(RunConfig, {}))) == 1
