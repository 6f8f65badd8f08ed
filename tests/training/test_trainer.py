"""Does the trainer hand TRL exactly the credit of `dasd.credit`, however TRL batches?"""

import logging
from functools import partial

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from dasd.analysis.scores import score_completion
from dasd.credit import METHODS, TokenSignals, assign_credit
from dasd.data.problems import as_row
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import PrivilegedContext
from dasd.training.run import as_dataset
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer

DEFERRED = {}  # the policy has not moved: credit is assigned inside the loss
RECORDED = {"num_iterations": 2}  # it will have moved: credit is assigned with the rollouts
REGIMES = {
    "one step a batch": DEFERRED,
    "gradient accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "num_iterations 2": RECORDED,
    "several steps a batch": {"per_device_train_batch_size": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 1},
    "accumulation and iterations": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_iterations": 2},
}


class Spy(SelfDistillationTrainer):
    """Keeps what went into and came out of credit assignment, with the weights at that moment."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def score_rollouts(self, rows, batch):
        extra = super().score_rollouts(rows, batch)
        order = torch.arange(len(rows))  # follows TRL's shuffle and split, so that rows can be found again
        self.rows = list(rows)
        return extra | {"row_index": order}

    def credit(self, batch, student_logps, entropies):
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        credit = super().credit(batch, student_logps, entropies)
        kept = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        self.seen.append((kept, [self.rows[i] for i in batch["row_index"]], credit.advantages, weights))
        return credit


@pytest.mark.parametrize("regime", REGIMES)
def test_advantages_are_the_credit_of_plain_scores(train, tiny_model, tokenizer, regime):
    """Rows scored one by one with plain transformers, without padding, give the batch's advantages."""
    trainer = train(Spy, method_settings={"beta": 0.5}, **REGIMES[regime])
    assert trainer.seen
    context = PrivilegedContext()
    for batch, rows, advantages, weights in trainer.seen:
        tiny_model.load_state_dict(weights)
        tiny_model.eval()
        for i, row in enumerate(rows):
            length = int(batch["completion_mask"][i].sum())
            ids = batch["completion_ids"][i, :length].tolist()
            student, entropies = score_completion(tiny_model, tokenize_prompt(tokenizer, row["prompt"]), ids)
            teacher, _ = score_completion(tiny_model, tokenize_prompt(tokenizer, context.prompt(row)), ids)
            # the verifier's advantage: A_t minus the term, found from the batch where it is still (B,)
            verifier = batch["advantages"][i] if batch["advantages"].dim() == 1 else None
            assert verifier is not None
            signals = TokenSignals(student[None], teacher[None], entropies[None], torch.ones(1, length), verifier[None].float())
            expected = assign_credit(signals, trainer.method).advantages[0]
            assert (expected - verifier).abs().max() > 1e-3  # the teacher says something
            torch.testing.assert_close(advantages[i, :length], expected, atol=2e-4, rtol=0)
            assert advantages[i, length:].abs().sum() == 0


def test_agreement_is_with_the_teachers_most_likely_token(train, tiny_model, tokenizer):
    with torch.no_grad():
        tiny_model.model.norm.weight.mul_(4.0)  # the random model writes almost uniformly: hardly a first choice among it
    trainer = train(Spy, max_steps=1)
    [(batch, rows, _, weights)] = trainer.seen
    tiny_model.load_state_dict(weights)
    tiny_model.eval()
    agreed, tokens = 0, 0
    for i, row in enumerate(rows):
        length = int(batch["completion_mask"][i].sum())
        ids, prompt = batch["completion_ids"][i, :length], tokenize_prompt(tokenizer, PrivilegedContext().prompt(row))
        with torch.no_grad():
            logits = tiny_model(torch.tensor([prompt + ids.tolist()])).logits[0, len(prompt) - 1 : -1]
        expected = logits.argmax(-1) == ids
        assert torch.equal(batch["teacher_agrees"][i, :length], expected)
        agreed, tokens = agreed + int(expected.sum()), tokens + length
    log = trainer.state.log_history[0]
    assert log["teacher/agreement"] == pytest.approx(agreed / tokens)
    assert 0 < log["teacher/agreement"] < 1
    assert 0 <= log["teacher/agreement_forks"] <= 1


@pytest.mark.parametrize("regime", REGIMES)
def test_beta_zero_trains_exactly_like_trl_grpo(tiny_model, tokenizer, problems, train, regime, monkeypatch):
    """Every row with its own prompt: read once, sums are rounded in another order (test_passes.py has their gradients)."""
    monkeypatch.setattr("dasd.training.trl_adapter.trains_on_shared_prompts", lambda *_: False)
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    train(SelfDistillationTrainer, method_settings={"beta": 0.0}, sampler="trl", **REGIMES[regime])
    ours = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    tiny_model.load_state_dict(start)
    train(GRPOTrainer, kind=GRPOConfig, disable_dropout=True, **REGIMES[regime])
    moved = 0.0
    for name, value in tiny_model.state_dict().items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0)
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-4


@pytest.mark.parametrize("regime", ["one step a batch", "num_iterations 2"])
def test_the_student_is_never_scored_twice(train, regime):
    """Forward passes a step: one for the teacher, and the one TRL makes anyway (one more where it recorded the policy)."""
    calls = []

    class Counting(SelfDistillationTrainer):
        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            calls.append("student")
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

        def score(self, *args, **kwargs):
            calls.append("teacher")
            return super().score(*args, **kwargs)

    train(Counting, **REGIMES[regime])
    assert calls.count("teacher") == (2 if regime == "one step a batch" else 1)
    assert calls.count("student") == (2 if regime == "one step a batch" else 3)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"])
def test_every_loss_type_trains(train, tiny_model, loss_type):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    trainer = train(loss_type=loss_type, method_settings={"beta": 0.5})
    assert all(torch.isfinite(value).all() for value in tiny_model.state_dict().values())
    assert any((value != start[name]).any() for name, value in tiny_model.state_dict().items())
    assert trainer.state.log_history[0]["grad_norm"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_logs(train, method):
    # Some rollouts of each problem are right and some are wrong, for teachers that are shown one or the other.
    kind = partial(SelfDistillationConfig, method=method, success_threshold=15.0)
    logs = train(method=None, kind=kind).state.log_history[0]
    assert {"reward", "gap/abs", "credit/sign_flips"} <= set(logs)
    if "teacher_logps" in METHODS[method].needs:
        assert logs["gap/abs"] > 0
        # Contrasted hints are failed rollouts: a problem that was solved each time has none. All others are taught.
        assert logs["teacher/skipped"] < 1 if "contrast_logps" in METHODS[method].needs else logs["teacher/skipped"] == 0


def test_rollouts_without_reference_keep_the_verifiers_advantage(train, problems):
    rows = [as_row(problem) | {"solution": problem.solution if i % 2 else ""} for i, problem in enumerate(problems)]
    from datasets import Dataset

    trainer = train(Spy, dataset=Dataset.from_list(rows), method_settings={"beta": 0.5}, max_steps=4)
    skipped = [entry["teacher/skipped"] for entry in trainer.state.log_history if "teacher/skipped" in entry]
    assert sum(skipped) > 0
    for batch, rows_seen, advantages, _ in trainer.seen:
        for i, row in enumerate(rows_seen):
            valid = batch["completion_mask"][i].bool()
            if not row["solution"]:
                assert torch.equal(advantages[i][valid], batch["advantages"][i].float().expand(int(valid.sum())))


def test_teacher_is_scored_in_evaluation_mode_without_gradient(train):
    modes = []

    class Watching(SelfDistillationTrainer):
        def score(self, *args, **kwargs):
            handle = self.model.register_forward_pre_hook(
                lambda module, _: modes.append((module.training, torch.is_grad_enabled()))
            )
            scores = super().score(*args, **kwargs)
            handle.remove()
            assert not scores.logps.requires_grad
            assert self.model.training
            return scores

    train(Watching)
    assert modes
    assert set(modes) == {(False, False)}


def test_metrics_do_not_depend_on_micro_batches(train, tiny_model):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    whole = train(max_steps=1).state.log_history[0]
    tiny_model.load_state_dict(start)
    split = train(max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4).state.log_history[0]
    for name in ("gap/abs", "gap/high", "gap/low", "credit/attracted", "tokens/repelled", "credit/sign_flips", "gap/decile_9"):
        assert split[name] == pytest.approx(whole[name], abs=1e-5), name


@pytest.mark.parametrize(
    ("changes", "rows", "expected"),
    [
        ({"reward": lambda completions, **_: [1.0] * len(completions)}, None, "No reward varies"),
        ({}, "empty", "No rollout has a teacher"),
        ({"context_template": "{problem}"}, None, None),
    ],
)
def test_idle_method_is_said_once_with_the_remedy(train, problems, caplog, changes, rows, expected):
    from datasets import Dataset

    dataset = Dataset.from_list([as_row(problem) | {"solution": ""} for problem in problems]) if rows else None
    if expected is None:
        with pytest.raises(ValueError, match=r"needs \{problem\} and \{context\}"):
            train(dataset=dataset, **changes)
        return
    with caplog.at_level(logging.WARNING, logger="dasd"):
        train(dataset=dataset, **changes)
    said = [record.getMessage() for record in caplog.records if expected in record.getMessage()]
    assert len(said) == 1


def test_active_dropout_is_refused(tiny_model, tokenizer, problems, arguments):
    tiny_model.model.layers[0].mlp.down_proj = torch.nn.Sequential(
        tiny_model.model.layers[0].mlp.down_proj, torch.nn.Dropout(0.1)
    )
    with pytest.raises(ValueError, match="drop out"):
        SelfDistillationTrainer(
            tiny_model, lambda completions, **_: [0.0] * len(completions), arguments(disable_dropout=False),
            train_dataset=as_dataset(problems), processing_class=tokenizer,
        )  # fmt: skip


def test_a_method_of_ones_own(train):
    class Double:
        needs = frozenset()

        def __call__(self, signals):
            from dasd.credit import Credit

            return Credit(2 * signals.rollout_advantages)

    trainer = train(Spy, method=Double())
    batch, _, advantages, _ = trainer.seen[0]
    expected = 2 * batch["advantages"][:, None] * batch["completion_mask"]
    torch.testing.assert_close(advantages, expected.float())
