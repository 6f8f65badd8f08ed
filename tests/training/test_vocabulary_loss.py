"""Is the gradient of methods that compare whole distributions that of a plain computation, however TRL batches?"""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from dasd.credit import METHODS, TokenSignals, assign_credit, chunked_divergence
from dasd.data.problems import as_row
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import PrivilegedContext
from dasd.training import distributions
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer
from training.conftest import tiny

VOCABULARY = [name for name, method in METHODS.items() if "teacher_distribution" in method.needs]
REGIMES = {
    "one batch": {},
    "two steps a batch": {"per_device_train_batch_size": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 1},
    "accumulation and iterations": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_iterations": 2},
}


def parity_reward(completion_ids, **_):
    """Right or wrong, both in about every group."""
    return [float(sum(ids) % 2) for ids in completion_ids]


class Steps(TrainerCallback):
    """The weights before each optimisation step, and its gradient."""

    def on_step_begin(self, args, state, control, model=None, **_):
        self.trainer.steps.append({
            "step": state.global_step, "batches": [],
            "model": copy.deepcopy(model.state_dict()), "teacher": copy.deepcopy(self.trainer.teacher.state_dict()),
        })  # fmt: skip

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.trainer.steps[-1]["gradient"] = {name: value.grad.clone() for name, value in model.named_parameters()}


class Watched(SelfDistillationTrainer):
    """Keeps what went into each loss, as it came."""

    def __init__(self, *args, **kwargs):
        self.steps, self.rows = [], []
        callback = Steps()
        callback.trainer = self
        super().__init__(*args, callbacks=[callback], **kwargs)

    def score_rollouts(self, rows, batch):
        first = len(self.rows)
        self.rows += rows
        return super().score_rollouts(rows, batch) | {"row_index": first + torch.arange(len(rows))}

    def _compute_loss(self, model, inputs):
        kept = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        self.steps[-1]["batches"].append(kept)
        return super()._compute_loss(model, inputs)


@pytest.fixture
def run(train, problems):
    """Two problems, one without reference: half of each batch has no teacher."""

    def start(method, **changes):
        rows = [as_row(problem) | {"solution": solution} for problem, solution in zip(problems, (problems[0].solution, ""))]  # noqa: B905
        return train(
            Watched, dataset=Dataset.from_list(rows), reward=parity_reward, max_grad_norm=0.0, learning_rate=3e-3, max_steps=3,
            kind=lambda **settings: SelfDistillationConfig(method=method, **settings), **changes,
        )  # fmt: skip

    return start


def logits_after(model, prompt, completion):
    """(T, V) logits that predict the completion's tokens, one row, no padding."""
    return model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].float()


def reference_loss(student, teacher, tokenizer, method, step, batch, rows, counts):
    """Policy loss and divergence of one micro-batch, each rollout on its own, from full logits; `counts` are the step's."""
    total = 0.0
    totals = {name.removeprefix("batch_total/"): float(value) for name, value in batch.items() if "batch_total" in name}
    for i, row in enumerate(rows):
        length = int(batch["completion_mask"][i].sum())
        ids = batch["completion_ids"][i, :length].tolist()
        told = PrivilegedContext().prompt(row)
        logits = logits_after(student, tokenize_prompt(tokenizer, row["prompt"]), ids)
        with torch.no_grad():
            teacher_logits = logits_after(teacher, tokenize_prompt(tokenizer, told or row["prompt"]), ids)
        logps, teacher_logps = logits.log_softmax(-1), teacher_logits.log_softmax(-1)
        chosen = logps.gather(-1, torch.tensor(ids)[:, None])[:, 0]
        old = batch["old_per_token_logps"][i, :length] if "old_per_token_logps" in batch else chosen.detach()
        S = chosen.detach()
        T = teacher_logps.gather(-1, torch.tensor(ids)[:, None])[:, 0] if told else S
        signals = TokenSignals(
            S[None], T[None], -(logps.exp() * logps).sum(-1).detach()[None], torch.ones(1, length),
            batch["advantages"][i : i + 1], correct=torch.tensor([sum(ids) % 2 == 1]),
            teacher_entropies=-(teacher_logps.exp() * teacher_logps).sum(-1)[None],
            ratio=(S - old).exp()[None], has_teacher=torch.tensor([told is not None]), batch_totals=totals or None,
        )  # fmt: skip
        credit = assign_credit(signals, method, step)
        A, ratio = credit.advantages[0], (chosen - old).exp()
        total = total - torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A).sum() / counts["tokens"]
        for term in credit.terms:
            share = None if term.student_share is None else term.student_share[0]
            if told is None:
                assert term.weights.abs().sum() == 0
            total = total + (term.weights[0] * term.divergence(logits, teacher_logits, share)).sum() / counts[term.average]
    return total


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("method", VOCABULARY)
def test_gradient_is_that_of_full_logits(run, tokenizer, method, regime):
    trainer = run(method, teacher_weights="ema", teacher_ema_rate=0.5, **REGIMES[regime])
    assert len(trainer.steps) == 3
    ratios = 0.0
    for step in trainer.steps:
        student, teacher = tiny(tokenizer).eval(), tiny(tokenizer).eval()
        student.load_state_dict(step["model"])
        teacher.load_state_dict(step["model"])
        teacher.load_state_dict(step["teacher"], strict=False)
        student.zero_grad()
        taught = [batch["completion_mask"] * batch["has_teacher"][:, None] for batch in step["batches"]]
        counts = {
            "tokens": sum(batch["completion_mask"].sum() for batch in step["batches"]),
            "taught": sum(mask.sum() for mask in taught),
            "rollouts": sum(mask.any(1).sum() for mask in taught),
        }
        assert counts["taught"] < counts["tokens"]
        first = step["batches"][0]
        named = dict(zip(counts, ("num_items_in_batch", "taught_tokens", "taught_rollouts"), strict=True))
        if "steps_per_generation" in REGIMES[regime]:  # TRL takes the mean count of the steps that share a batch of rollouts
            counts = {name: first[key] / 2 for name, key in named.items()}
        else:
            assert counts == {name: first[key] for name, key in named.items()}
        for batch in step["batches"]:
            rows = [trainer.rows[i] for i in batch["row_index"]]
            reference_loss(student, teacher, tokenizer, trainer.method, step["step"], batch, rows, counts).backward()
        wanted = torch.cat([value.grad.flatten() for value in student.parameters()])
        got = torch.cat([step["gradient"][name].flatten() for name, _ in student.named_parameters()])
        assert wanted.norm() > 1e-3
        assert (got - wanted).norm() <= 1e-5 * wanted.norm()
        if "old_per_token_logps" in step["batches"][0]:
            moved = step["model"]["model.norm.weight"] - trainer.steps[0]["model"]["model.norm.weight"]
            ratios = max(ratios, float(moved.abs().max()))
    if "iterations" in regime:
        assert ratios > 0


@pytest.mark.parametrize("regime", ["one batch", "accumulation and iterations"])
def test_srpos_normaliser_is_of_all_rollouts_of_a_batch_however_it_is_cut(run, regime):
    trainer = run("srpo", **REGIMES[regime])
    for step in trainer.steps[:1]:
        certain, count = 0.0, 0
        for batch in step["batches"]:
            signals = trainer._signals(batch | {"teacher_entropies": batch_entropies(trainer, batch)}, *zeros(batch))
            distilled = signals.taught & ~signals.correct[:, None]
            certain += float((-signals.teacher_entropies).exp()[distilled].sum())
            count += int(distilled.sum())
        assert count > 0
        for batch in step["batches"]:
            assert float(batch["batch_total/distilled"]) == count
            assert float(batch["batch_total/certainty"]) == pytest.approx(certain, rel=1e-5)


def batch_entropies(trainer, batch):
    """The teacher's, whose weights have not moved before the first step."""
    start = tiny(trainer.tokenizer)
    now = copy.deepcopy(trainer.model.state_dict())
    trainer.model.load_state_dict(start.state_dict())
    scored = dict(batch)
    trainer.score_teacher(scored)
    trainer.model.load_state_dict(now)
    batch["teacher_logps"] = scored["teacher_logps"]
    return scored["teacher_entropies"]


def zeros(batch):
    return torch.zeros(batch["completion_ids"].shape), torch.zeros(batch["completion_ids"].shape)


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("method", VOCABULARY)
def test_plain_divergences_take_the_fused_kernel_of_a_gpu_and_others_the_chunks(run, monkeypatch, method, on_gpu):
    """TRL's kernel has a torch path, so that what a GPU would take runs here too."""
    taken = {"kernel": 0, "chunks": 0}
    kernel = distributions.ChunkedDivergenceFunction

    class Kernel:
        @staticmethod
        def apply(*arguments):
            taken["kernel"] += len(arguments[0])
            return kernel.apply(*arguments)

    def chunks(divergence, hidden, *arguments):
        taken["chunks"] += len(hidden)
        return chunked_divergence(divergence, hidden, *arguments)

    monkeypatch.setattr(distributions, "ChunkedDivergenceFunction", Kernel)
    monkeypatch.setattr(distributions, "chunked_divergence", chunks)
    monkeypatch.setattr(distributions, "has_fused_kernel", lambda hidden: on_gpu)
    run(method)
    plain = on_gpu and method in ("sdft", "dasd_vocab")
    assert taken["kernel" if plain else "chunks"] > 0
    assert taken["chunks" if plain else "kernel"] == 0


@pytest.mark.parametrize("method", sorted(set(VOCABULARY) - {"dasd_vocab", "srpo"}))
def test_without_any_teacher_nothing_is_learnt(train, problems, tiny_model, method):
    """Methods without a verifier: no teacher, no gradient."""
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    rows = [as_row(problem) | {"solution": ""} for problem in problems]
    kind = lambda **settings: SelfDistillationConfig(method=method, **settings)  # noqa: E731
    trainer = train(dataset=Dataset.from_list(rows), reward=parity_reward, kind=kind)
    assert all(torch.equal(value, start[name]) for name, value in tiny_model.state_dict().items())
    assert trainer.state.log_history[0]["teacher/skipped"] == 1


def test_chunks_of_any_size_give_the_same_gradient(tiny_model):
    torch.manual_seed(0)
    hidden, other = torch.randn(2, 37, 32)
    head = distributions.LanguageModelHead.of(tiny_model, 0.7)
    size = head.weight.shape[0]
    gradients = []
    for elements in (size, 5 * size, 10**9):
        leaf = hidden.clone().requires_grad_()
        values = chunked_divergence(METHODS["opsd"].divergence, leaf, head, other, head.detached(), size, None, elements)
        values.sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients[1], gradients[2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_kernel_and_plain_agree_on_heads_of_every_make(kind, bias, softcap):
    """Values and gradients, with the head's bias, scale and soft cap."""
    torch.manual_seed(0)
    weight = torch.randn(50, 8)
    heads = [
        distributions.LanguageModelHead(w, torch.randn(50) if bias else None, 0.5, softcap, 0.8)
        for w in (weight, weight + 0.3 * torch.randn(50, 8))
    ]
    hidden = torch.randn(2, 9, 8)
    divergence = distributions.Divergence(kind, mixture=0.3)
    leaf, plain = hidden[0].clone().requires_grad_(), hidden[0].clone().requires_grad_()
    values = distributions.token_divergences(divergence, leaf, heads[0], hidden[1], heads[1])
    wanted = divergence(heads[0](plain), heads[1](hidden[1]))
    torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-6)
    values.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad, rtol=1e-4, atol=1e-5)


def test_divergences_take_the_head_in_float32_where_trl_does(tokenizer, problems, arguments, monkeypatch):
    """`cast_lm_head_to_fp32` on a bfloat16 model: hidden states times head give the very log-probs that the policy loss has."""
    from dasd.training import trl_adapter
    from dasd.training.run import as_dataset

    compared, scored = [], []
    original = trl_adapter.divergence_loss

    class Kept(SelfDistillationTrainer):
        def credit(self, batch, student_logps, entropies):
            scored.append((batch, student_logps))
            return super().credit(batch, student_logps, entropies)

    def keep(terms, student, head, teacher, teacher_head):
        compared.extend(layer(hidden).detach() for layer, hidden in ((head, student), (teacher_head, teacher)))
        return original(terms, student, head, teacher, teacher_head)

    monkeypatch.setattr(trl_adapter, "divergence_loss", keep)
    settings = arguments(method="opsd", cast_lm_head_to_fp32=True, max_steps=1)
    model = tiny(tokenizer, tie_word_embeddings=False).bfloat16()
    Kept(model, parity_reward, settings, train_dataset=as_dataset(problems), processing_class=tokenizer).train()
    [(batch, logps)] = scored
    valid, ids = batch["completion_mask"].bool(), batch["completion_ids"][..., None]
    for logits, expected in zip(compared, (logps, batch["teacher_logps"]), strict=True):
        ours = logits.log_softmax(-1).gather(-1, ids)[..., 0]
        torch.testing.assert_close(ours[valid], expected[valid].float(), atol=1e-5, rtol=0)
