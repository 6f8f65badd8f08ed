"""Is the loss of a method what public code and a re-derivation say, value and gradient, on ragged and hostile tensors?

Where a method's form is installed (TRL's SDPO, SDFT, GKD) it is asked; the rest is re-derived from logits, one token at a time.
"""

import math

import pytest
import torch

from dasd.credit import METHODS, TokenSignals, assign_credit
from reference import divergence_twin

B, V = 4, 130
RAGGED, SINGLE = (7, 3, 0, 5), (1, 1, 0, 1)  # tokens of each rollout; one is empty
TAUGHT = (True, True, True, False)
CORRECT = (False, True, False, False)


class Case:
    """Logits of student and teacher with what training would know of them; what is masked is NaN, some logits are extreme."""

    def __init__(self, seed=0, lengths=RAGGED):
        rng, T = torch.Generator().manual_seed(seed), max(lengths)
        self.lengths, self.mask = lengths, torch.arange(T) < torch.tensor(lengths)[:, None]
        self.student, self.teacher = 3 * torch.randn(2, B, T, V, generator=rng)
        self.ids = torch.randint(V, (B, T), generator=rng)
        if lengths == RAGGED:
            self.student[0, 0, 3], self.teacher[0, 0, 3] = 60.0, 60.0  # both certain: every other entry underflows
            self.student[0, 1, 5], self.teacher[0, 1, 9] = 90.0, 90.0  # certain of different entries
            self.teacher[1, 0] = self.student[1, 0]  # of one opinion
            self.student[1, 1], self.teacher[1, 1] = 0.0, 0.0  # without any
            self.ids[0, 0], self.ids[0, 1] = 3, 7  # what both were certain of, and what neither thought of
        for logits in (self.student, self.teacher):
            logits[~self.mask] = math.nan
        self.has_teacher = torch.tensor(TAUGHT)
        self.advantages = torch.tensor([-0.7, 1.1, 0.3, 0.0])
        self.old = self.chosen(self.student) + 0.4 * torch.randn(B, T, generator=rng)

    def chosen(self, logits):
        return logits.log_softmax(-1).gather(-1, self.ids[..., None])[..., 0]

    def entropy(self, logits):
        logps = logits.log_softmax(-1)
        return -(logps.exp() * logps).sum(-1)

    def loss(self, name):
        """Ours, as the trainer puts it together: (value, gradient to the student's logits)."""
        student = self.student.clone().requires_grad_()
        chosen, S = self.chosen(student), self.chosen(self.student)
        T_ = torch.where(self.has_teacher[:, None], self.chosen(self.teacher), S)
        signals = TokenSignals(
            S, T_, self.entropy(self.student), self.mask, self.advantages, correct=torch.tensor(CORRECT),
            teacher_entropies=self.entropy(self.teacher), ratio=(S - self.old).clamp(-20, 20).exp(),
            has_teacher=self.has_teacher, teacher_entropy_history=[1.0] * 6,
        )  # fmt: skip
        credit = assign_credit(signals, METHODS[name])
        taught = self.mask & self.has_teacher[:, None]
        counts = {"tokens": self.mask.sum(), "taught": taught.sum(), "rollouts": taught.any(1).sum()}
        ratio, A = (chosen - self.old).exp(), credit.advantages * (1.0 if credit.loss_weights is None else credit.loss_weights)
        policy = -torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)
        total = policy[self.mask].sum() / counts["tokens"]
        for term in credit.terms:
            at = term.weights != 0
            share = None if term.student_share is None else term.student_share[at]
            values = term.divergence(student[at], self.teacher[at], share)
            total = total + (term.weights[at] * values).sum() / counts[term.average]
        total.backward()
        return total.detach(), student.grad


@pytest.fixture(params=[(0, RAGGED), (1, RAGGED), (2, RAGGED), (0, SINGLE), (1, SINGLE)], ids=str)
def case(request):
    return Case(*request.param)


def gradient_of(function, case):
    student = case.student.clone().requires_grad_()
    value = function(student)
    value.backward()
    return value.detach(), student.grad


def same(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=2e-5, atol=1e-6)
    found, wanted = (gradient.nan_to_num() for gradient in (ours[1], theirs[1]))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-6)
    assert wanted.norm() > 1e-3


@pytest.fixture(scope="module")
def trl():
    from trl.experimental.gkd import GKDTrainer
    from trl.experimental.sdpo import loss_utils

    return {"sdpo": loss_utils, "gkd": GKDTrainer}


def test_sdpo_is_trls_over_taught_tokens(trl, case):
    taught = case.mask & case.has_teacher[:, None]

    def theirs(student):
        sdpo = trl["sdpo"]
        each = sdpo.compute_topk_self_distillation_loss(
            student[taught], case.teacher[taught], distillation_topk=100, distillation_alpha=0.5, distillation_add_tail=True
        )
        now = case.chosen(student)[taught]
        return sdpo.apply_importance_sampling_clipping(each, now, case.old[taught], 2.0).mean()

    same(case.loss("sdpo"), gradient_of(theirs, case))


def test_sdft_is_trls_gkd_at_reverse_kl(trl, case):
    case.has_teacher = torch.ones(B, dtype=torch.bool)
    labels = torch.where(case.mask, case.ids, -100)
    same(case.loss("sdft"), gradient_of(lambda s: trl["gkd"].generalized_jsd_loss(s, case.teacher, labels, beta=1.0), case))


def test_pw_opsd_is_a_mean_of_means(case):
    """Capped summands of KL(teacher, student), later tokens more, in each rollout and then over rollouts with a teacher."""

    def theirs(student):
        means = []
        for b in range(B):
            n = case.lengths[b]
            if n and TAUGHT[b]:
                s, t = student[b, :n].log_softmax(-1), case.teacher[b, :n].log_softmax(-1)
                each = (t.exp() * (t - s)).clamp(max=0.05).sum(-1)
                position = (torch.arange(1, n + 1) - 0.5) / n
                means.append(((0.25 + 0.75 * torch.sigmoid((position - 0.3) / 0.1)) * each).mean())
        return torch.stack(means).mean()

    same(case.loss("pw_opsd"), gradient_of(theirs, case))


def test_eopd_is_a_sampled_reverse_kl_and_the_teachers_sixteen_where_it_is_unsure(case):

    def theirs(student):
        total = 0.0
        for b, t in case.mask.nonzero().tolist():
            s, q = student[b, t].log_softmax(-1), case.teacher[b, t].log_softmax(-1)
            if TAUGHT[b]:
                chosen = s[case.ids[b, t]]
                A = (q[case.ids[b, t]] - chosen).detach()
                ratio = (chosen - case.old[b, t]).exp()
                total = total - torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)
                if -(q.exp() * q).sum() > 0.8:
                    top = q.topk(16).indices
                    total = total + (q[top].exp() * (q[top] - s[top])).sum()
        return total / case.mask.sum()

    same(case.loss("eopd"), gradient_of(theirs, case))


def test_srpo_routes_by_reward_and_weighs_by_the_teachers_certainty(case):
    routed = [(b, t) for b, t in case.mask.nonzero().tolist() if TAUGHT[b] and not CORRECT[b]]
    sure = {at: math.exp(-float(case.entropy(case.teacher)[at])) for at in routed}

    def theirs(student):
        total = 0.0
        for b, t in case.mask.nonzero().tolist():
            chosen = student[b, t].log_softmax(-1)[case.ids[b, t]]
            ratio, A = (chosen - case.old[b, t]).exp(), case.advantages[b]
            if (b, t) in sure:
                s, q = (logits[b, t].double().softmax(-1) for logits in (student, case.teacher))
                top = s.detach().topk(100).indices
                s, q = (torch.cat([p[top], (1 - p[top].sum()).clamp(min=1e-7)[None]]) for p in (s, q))
                parts = [(p * (p / ((s + q) / 2)).log()).sum() / 2 for p in (s, q)]
                weight = sure[b, t] / (sum(sure.values()) / len(sure))
                total = total + weight * ratio.detach().clamp(max=2.0) * sum(parts)
            else:
                total = total - torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)
        return total / case.mask.sum()

    ours, wanted = case.loss("srpo"), gradient_of(theirs, case)
    torch.testing.assert_close(ours[0].double(), wanted[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[1].nan_to_num(), wanted[1].nan_to_num(), rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"rlcsd", "sipo"}))
def test_every_loss_is_finite_and_leaves_what_is_masked_alone(name, case):
    value, gradient = case.loss(name)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient[case.mask]).all()
    assert (gradient[~case.mask].nan_to_num() == 0).all()


def test_divergences_agree_with_the_twin_at_the_hostile_tokens():
    case = Case(0)
    for name in ("opsd", "sdpo", "sdft", "eopd", "srpo"):
        divergence = METHODS[name].divergence
        settings = {
            field: getattr(divergence, field) for field in ("kind", "mixture", "summand_cap", "top_k", "support", "tail")
        }
        for at in ((1, 0), (1, 1), (1, 2), (3, 4)):
            found = divergence(case.student[at][None], case.teacher[at][None]).item()
            wanted = divergence_twin.divergence(
                case.student[at].double().tolist(), case.teacher[at].double().tolist(), **settings
            )
            assert found == pytest.approx(wanted, rel=1e-4, abs=2e-6), (name, at)
