"""Are the divergences right, in value and in gradient, by hand, by a slow twin and against TRL's own, at any chunk size?"""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dasd.credit import Divergence, chunked_divergence
from reference import divergence_twin

log = math.log
KINDS = ("forward_kl", "reverse_kl", "jsd")


def logits(*probs):
    return torch.tensor([probs]).log()


def value(student, teacher, share=None, **settings):
    """The divergence of two distributions given as probabilities."""
    share = None if share is None else torch.tensor([share])
    return Divergence(**settings)(logits(*student), logits(*teacher), share).item()


def with_gradient(function, *inputs):
    """The value at these inputs and the gradient of its sum, weighted by 1, -2, 3 ..., to each."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    found = function(*inputs)
    weights = torch.tensor([(-1.0) ** n * (n + 1) for n in range(len(found))])
    return found.detach(), *torch.autograd.grad((weights * found).sum(), inputs)


# ---------------------------------------------------------------- by hand

HALF, QUARTER = (0.5, 0.5), (0.75, 0.25)


def test_forward_kl_is_of_the_teacher_from_the_student():
    assert value(HALF, QUARTER, kind="forward_kl") == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5), rel=1e-6)  # 0.130812


def test_reverse_kl_is_of_the_student_from_the_teacher():
    assert value(HALF, QUARTER, kind="reverse_kl") == pytest.approx(0.5 * log(2 / 3) + 0.5 * log(2), rel=1e-6)  # 0.143841


def test_jsd_is_the_mean_of_two_kls_to_the_middle():
    # M = (5/8, 3/8): KL(T || M) = 3/4 log(6/5) + 1/4 log(2/3), KL(S || M) = 1/2 log(4/5) + 1/2 log(4/3)
    teacher, student = 0.75 * log(6 / 5) + 0.25 * log(2 / 3), 0.5 * log(4 / 5) + 0.5 * log(4 / 3)
    assert value(HALF, QUARTER, kind="jsd") == pytest.approx(0.5 * teacher + 0.5 * student, rel=1e-5)


def test_mixture_is_the_teachers_share_of_the_middle_and_of_the_sum():
    # mixture = 0.2: M = 0.2 (3/4, 1/4) + 0.8 (1/2, 1/2) = (0.55, 0.45)
    teacher = 0.75 * log(0.75 / 0.55) + 0.25 * log(0.25 / 0.45)
    student = 0.5 * log(0.5 / 0.55) + 0.5 * log(0.5 / 0.45)
    assert value(HALF, QUARTER, kind="jsd", mixture=0.2) == pytest.approx(0.2 * teacher + 0.8 * student, rel=1e-4)


def test_jsd_of_what_never_overlaps_is_log_2():
    assert value((1.0, 0.0), (0.0, 1.0), kind="jsd") == pytest.approx(log(2), rel=1e-6)


def test_the_cap_cuts_each_summand_before_the_sum_which_may_be_negative():
    # summands 3/4 log 3/2 = 0.304, cut to 0.05, and 1/4 log 1/2 = -0.173, kept
    assert value(HALF, QUARTER, summand_cap=0.05) == pytest.approx(0.05 + 0.25 * log(0.5), rel=1e-6)
    assert value(HALF, QUARTER, summand_cap=0.05) < 0


def test_a_summand_that_is_cut_gives_no_gradient():
    # only -T_1 log S_1 is left: its gradient to the logits is 1/4 * (S - (0, 1)) = (1/8, -1/8)
    _, gradient, _ = with_gradient(
        lambda s, t: Divergence(summand_cap=0.05)(s, t) + 0 * t.sum(), logits(*HALF), logits(*QUARTER)
    )
    torch.testing.assert_close(gradient, torch.tensor([[0.125, -0.125]]))


S3, T3 = (0.5, 0.3, 0.2), (0.2, 0.5, 0.3)


@pytest.mark.parametrize(
    ("settings", "student", "teacher"),
    [
        ({"top_k": 1}, (0.5, 0.5), (0.2, 0.8)),  # the student's first entry, and a bucket with the other two
        ({"top_k": 1, "support": "teacher"}, (0.3, 0.7), (0.5, 0.5)),
        ({"top_k": 2, "tail": "renormalise"}, (5 / 8, 3 / 8), (2 / 7, 5 / 7)),
        ({"top_k": 2, "tail": "renormalise", "support": "teacher"}, (3 / 5, 2 / 5), (5 / 8, 3 / 8)),
        ({"top_k": 1, "tail": "renormalise"}, (1.0,), (1.0,)),  # nothing left to compare
        ({"top_k": 3, "tail": "renormalise"}, S3, T3),
        ({"top_k": 9, "tail": "renormalise"}, S3, T3),  # more than there are: all
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_top_k_compares_what_is_left_of_the_vocabulary(kind, settings, student, teacher):
    assert value(S3, T3, kind=kind, **settings) == pytest.approx(value(student, teacher, kind=kind), abs=1e-6)


def test_a_dropped_tail_leaves_the_other_summands_as_they_are():
    # the teacher's two likeliest: 0.5 log(0.5 / 0.3) + 0.3 log(0.3 / 0.2); the gradient is 0.8 S - T there, 0.8 S elsewhere
    logits, teacher = torch.tensor([S3]).log().requires_grad_(), torch.tensor([T3]).log()
    found = Divergence(top_k=2, support="teacher", tail="drop")(logits, teacher)
    assert found.item() == pytest.approx(0.5 * log(0.5 / 0.3) + 0.3 * log(0.3 / 0.2))
    found.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.4, 0.24 - 0.5, 0.16 - 0.3]]))
    # negative where the student has more there
    assert value(S3, T3, top_k=1, tail="drop") == pytest.approx(0.2 * log(0.2 / 0.5), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_tail_is_compared_as_it_is(kind):
    # of two entries the bucket holds exactly the second one, at a ten-thousandth; float32 knows it to a thousandth
    rare, rarer = (0.99, 0.01), (0.9999, 0.0001)
    assert value(rarer, rare, kind=kind, top_k=1) == pytest.approx(value(rarer, rare, kind=kind), rel=5e-3)


def test_an_empty_tail_holds_1e_minus_7():
    # S = (1, 1e-7), T = (1/2, 1/2): 1/2 log 1/2 + 1/2 log(1/2 / 1e-7), not infinity
    expected = 0.5 * log(0.5) + 0.5 * (log(0.5) + 7 * log(10))
    assert value((1.0, 0.0), HALF, top_k=1) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_student_share_mixes_the_student_into_the_target(kind):
    # 0.5 * (0.5, 0.5) + 0.5 * (0.9, 0.1) = (0.7, 0.3)
    assert value(HALF, (0.9, 0.1), 0.5, kind=kind) == pytest.approx(value(HALF, (0.7, 0.3), kind=kind), rel=1e-5)
    assert value(HALF, (0.9, 0.1), 0.0, kind=kind) == value(HALF, (0.9, 0.1), kind=kind)
    assert value(HALF, (0.9, 0.1), 1.0, kind=kind) == pytest.approx(0.0, abs=1e-7)


def test_the_target_is_a_constant_even_where_it_holds_the_student():
    student = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    teacher = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    target = (0.3 * student.softmax(-1) + 0.7 * teacher.softmax(-1)).log()
    for kind in KINDS:
        mixed = with_gradient(lambda s, kind=kind: Divergence(kind)(s, teacher, torch.full((3,), 0.3)), student)
        fixed = with_gradient(lambda s, kind=kind: Divergence(kind)(s, target), student)
        torch.testing.assert_close(mixed, fixed, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- the slow twin: values, and its differences for gradients

SETTINGS = [
    *({"kind": kind} for kind in KINDS),
    {"kind": "jsd", "mixture": 0.2},
    {"kind": "forward_kl", "summand_cap": 0.05},
    *(
        {"kind": kind, "top_k": 3, "support": support, "tail": tail}
        for kind in KINDS
        for support in ("student", "teacher")
        for tail in ("bucket", "renormalise", "drop")
    ),
    {"kind": "jsd", "top_k": 2, "summand_cap": 0.02, "mixture": 0.7},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: " ".join(map(str, s.values())))
@pytest.mark.parametrize("shares", [None, [0.0, 0.25, 1.0, 0.6]], ids=["teacher", "mixed"])
def test_agrees_with_the_twin_in_value_and_gradient(settings, shares):
    rng = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 4, 6, generator=rng) * 1.5
    shares = None if shares is None else torch.tensor(shares)
    found, gradient = with_gradient(lambda s: Divergence(**settings)(s, teacher, shares), student)
    for n in range(4):
        row, share = student[n].double().tolist(), None if shares is None else float(shares[n])
        other = teacher[n].double().tolist()
        assert found[n].item() == pytest.approx(
            divergence_twin.divergence(row, other, student_share=share, **settings), rel=1e-5, abs=2e-6
        )
        if share is not None:  # the target does not move with the student
            pairs = zip(divergence_twin.distribution(row), divergence_twin.distribution(other), strict=True)
            other = [math.log(share * s + (1 - share) * t) for s, t in pairs]
        for v in range(6):
            step = [1e-5 * (v == w) for w in range(6)]
            ends = [
                divergence_twin.divergence([a + sign * b for a, b in zip(row, step, strict=True)], other, **settings)
                for sign in (1, -1)
            ]
            slope = (-1.0) ** n * (n + 1) * (ends[0] - ends[1]) / 2e-5
            assert gradient[n, v].item() == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: " ".join(map(str, s.values())))
def test_only_the_student_gets_gradient_and_low_precision_is_computed_in_float32(settings):
    rng = torch.Generator().manual_seed(4)
    student, teacher = (torch.randn(4, 6, generator=rng).bfloat16().requires_grad_() for _ in range(2))
    found = Divergence(**settings)(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, Divergence(**settings)(student.float(), teacher.float()))
    found.sum().backward()
    assert teacher.grad is None
    assert student.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_is_zero_only_between_equals_and_jsd_is_at_most_log_2(kind):
    rng = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, 200, 7, generator=rng) * torch.logspace(-2, 2, 200)[:, None]
    found = Divergence(kind)(student, teacher)
    assert (found[:150] > 0).all()
    assert (found > -1e-6).all()  # far apart both may be certain of the same entry: 0 up to rounding
    assert kind != "jsd" or (found <= log(2) + 1e-6).all()
    torch.testing.assert_close(Divergence(kind)(student, student + 3.0), torch.zeros(200), rtol=0, atol=5e-6)


# ---------------------------------------------------------------- logits of minus infinity


@pytest.mark.parametrize("settings", [s for s in SETTINGS if s.get("tail") != "renormalise"], ids=str)
def test_entries_that_both_sides_forbid_do_not_count(settings):
    rng = torch.Generator().manual_seed(6)
    student, teacher = torch.randn(2, 4, 6, generator=rng)
    forbidden = torch.full((4, 2), -math.inf)
    plain = with_gradient(lambda s: Divergence(**settings)(s, teacher), student)
    wide = with_gradient(
        lambda s: Divergence(**settings)(s, torch.cat([teacher, forbidden], -1)), torch.cat([student, forbidden], -1)
    )
    torch.testing.assert_close(wide[0], plain[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(wide[1][:, :6], plain[1], rtol=1e-5, atol=1e-6)
    assert (wide[1][:, 6:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "student", "teacher", "expected"),
    [
        # what the teacher forbids and the student says costs the forward KL nothing there: 1 * log(1 / 0.5)
        ("forward_kl", (0.5, 0.5), (1.0, 0.0), log(2)),
        ("reverse_kl", (0.5, 0.5), (1.0, 0.0), math.inf),
        ("forward_kl", (1.0, 0.0), (0.5, 0.5), math.inf),
        ("reverse_kl", (1.0, 0.0), (0.5, 0.5), log(2)),
        # M = (3/4, 1/4): (1 * log(4/3) + 1/2 log(2/3) + 1/2 log 2) / 2
        ("jsd", (0.5, 0.5), (1.0, 0.0), 0.5 * (log(4 / 3) + 0.5 * log(2 / 3) + 0.5 * log(2))),
        ("jsd", (1.0, 0.0), (0.5, 0.5), 0.5 * (log(4 / 3) + 0.5 * log(2 / 3) + 0.5 * log(2))),
    ],
)
def test_entries_that_one_side_forbids(kind, student, teacher, expected):
    found, gradient = with_gradient(lambda s: Divergence(kind)(s, logits(*teacher)), logits(*student))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert math.isinf(expected) or torch.isfinite(gradient).all()


# ---------------------------------------------------------------- chunks


def problem(tokens=13, hidden=4, vocab=9):
    """Hidden states and heads of a student and a teacher."""
    rng = torch.Generator().manual_seed(7)
    return [
        0.7 * torch.randn(shape, generator=rng)
        for shape in ((tokens, hidden), (vocab, hidden), (tokens, hidden), (vocab, hidden))
    ]


def chunked(settings, elements, share=None):
    """Value and gradients to the student's hidden states and head, with at most `elements` logits at a time."""
    hidden, weight, other, teacher_weight = problem()
    return with_gradient(
        lambda h, w: chunked_divergence(
            Divergence(**settings), h, lambda x: x @ w.T, other, lambda x: x @ teacher_weight.T, 9, share, elements
        ),
        hidden,
        weight,
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: " ".join(map(str, s.values())))
@pytest.mark.parametrize("share", [None, torch.linspace(0, 1, 13)], ids=["teacher", "mixed"])
def test_chunk_size_never_matters(settings, share):
    hidden, weight, other, teacher_weight = problem()
    whole = with_gradient(lambda h, w: Divergence(**settings)(h @ w.T, other @ teacher_weight.T, share), hidden, weight)
    for elements in (1, 30):  # one token at a time, three
        torch.testing.assert_close(chunked(settings, elements, share), whole, rtol=5e-5, atol=1e-5)


def test_the_teacher_gets_no_gradient_and_no_tokens_are_still_part_of_the_graph():
    hidden, weight, other, teacher_weight = (tensor.requires_grad_() for tensor in problem())

    def divergence(h, o):
        return chunked_divergence(Divergence(), h, lambda x: x @ weight.T, o, lambda x: x @ teacher_weight.T, 9, None, 20)

    divergence(hidden, other).sum().backward()
    assert other.grad is None
    assert teacher_weight.grad is None
    assert weight.grad.abs().sum() > 0
    none = divergence(hidden[:0], other[:0])
    assert none.shape == (0,)
    none.sum().backward()
    with torch.no_grad():
        assert not divergence(hidden, other).requires_grad


class LargestTensor(TorchDispatchMode):
    """The most elements of any tensor that an operation gives, forward or backward."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


def largest(elements, settings, tokens=64, vocab=50):
    hidden, weight, other, teacher_weight = problem(tokens, 4, vocab)
    share = torch.linspace(0, 1, tokens)
    with LargestTensor() as seen:
        with_gradient(
            lambda h, w: chunked_divergence(
                Divergence(**settings), h, lambda x: x @ w.T, other, lambda x: x @ teacher_weight.T, vocab, share, elements
            ),
            hidden,
            weight,
        )
    return seen.elements


@pytest.mark.parametrize("settings", SETTINGS[:5], ids=lambda s: " ".join(map(str, s.values())))
def test_no_tensor_is_larger_than_a_chunk_in_either_pass(settings):
    # 64 tokens of 50 logits are 3200; a chunk of 300 logits is 6 tokens; hidden states are 256 and the heads 200
    assert largest(300, settings) == 300
    assert largest(10**6, settings) == 3200


def test_logits_of_one_chunk_are_gone_before_the_next_are_made():
    hidden, weight, other, teacher_weight = problem(64, 4, 50)
    made, alive = [], []

    def head(matrix):
        def project(states):
            alive.append(sum(reference() is not None for reference in made))
            found = states @ matrix.T
            made.append(weakref.ref(found))
            return found

        return project

    weight.requires_grad_()
    divergence = chunked_divergence(Divergence("jsd"), hidden, head(weight), other, head(teacher_weight), 50, None, 300)
    assert len(made) == 2 * 11  # ceil(64 / 6) chunks, two models
    divergence.sum().backward()
    assert len(made) == 4 * 11  # and once more in the backward pass
    assert max(alive) <= 2  # of this chunk the other model's; at most one more that is on its way out
    assert sum(reference() is not None for reference in made) == 0


# ---------------------------------------------------------------- TRL


@pytest.fixture(scope="module")
def trl():
    """TRL's functions, by name. Its alpha: 0 forward KL, 1 reverse KL, in between the teacher's share of the mixture."""
    from trl.experimental.sdft import loss_utils as sdft
    from trl.experimental.sdpo import loss_utils as sdpo
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    return {"sdft": sdft, "sdpo": sdpo, "chunked": ChunkedDivergenceFunction.apply}


ALPHAS = [
    (0.0, {"kind": "forward_kl"}),
    (1.0, {"kind": "reverse_kl"}),
    (0.5, {"kind": "jsd"}),
    (0.2, {"kind": "jsd", "mixture": 0.2}),
]


def pair(seed, tokens=12, vocab=40):
    student, teacher = torch.randn(2, tokens, vocab, generator=torch.Generator().manual_seed(seed)) * 2
    return student, teacher


@pytest.mark.parametrize("module", ["sdpo", "sdft"])
@pytest.mark.parametrize(("alpha", "settings"), ALPHAS, ids=str)
def test_whole_vocabulary_agrees_with_trl(trl, module, alpha, settings):
    student, teacher = pair(8)
    theirs = with_gradient(
        lambda s: trl[module].compute_full_logit_self_distillation_loss(s, teacher, distillation_alpha=alpha), student
    )
    ours = with_gradient(lambda s: Divergence(**settings)(s, teacher), student)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    raw = trl[module].compute_divergence(student.log_softmax(-1), teacher.log_softmax(-1), alpha)
    torch.testing.assert_close(ours[0], raw, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", ["sdpo", "sdft"])
@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
@pytest.mark.parametrize("top_k", [1, 7, 40])
@pytest.mark.parametrize(("alpha", "settings"), ALPHAS, ids=str)
def test_top_k_agrees_with_trl(trl, module, tail, top_k, alpha, settings):
    student, teacher = pair(9)
    theirs = with_gradient(
        lambda s: trl[module].compute_topk_self_distillation_loss(
            s, teacher, distillation_topk=top_k, distillation_alpha=alpha, distillation_add_tail=tail == "bucket"
        ),
        student,
    )
    ours = with_gradient(lambda s: Divergence(top_k=top_k, tail=tail, **settings)(s, teacher), student)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("alpha", "settings"), ALPHAS, ids=str)
def test_chunks_agree_with_trls_kernel(trl, alpha, settings):
    hidden, weight, other, teacher_weight = problem()
    theirs = with_gradient(lambda h, w: trl["chunked"](h, w, None, other, teacher_weight, None, alpha)[0], hidden, weight)
    torch.testing.assert_close(chunked(settings, 20), theirs, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "kl"}, "kind must be one of forward_kl, reverse_kl, jsd, got 'kl'"),
        ({"kind": "jsd", "mixture": 0.0}, "mixture must lie between 0 and 1, got 0.0; .*forward_kl"),
        ({"mixture": 1.0}, "mixture must lie between 0 and 1"),
        ({"summand_cap": 0.0}, "summand_cap must be above 0, got 0.0; null for no cap"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"support": "both"}, "support must be one of student, teacher"),
        ({"tail": "cut"}, "tail must be one of bucket, renormalise, drop, got 'cut'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Divergence(**settings)


def test_plain_is_what_fused_kernels_know():
    assert all(Divergence(kind).is_plain for kind in KINDS)
    assert not Divergence(summand_cap=0.05).is_plain
    assert not Divergence(top_k=100).is_plain
