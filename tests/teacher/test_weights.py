"""Are the teacher's weights those its kind promises, and the student's untouched by lending?"""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from dasd.teacher.weights import KINDS, TeacherWeights

COPIES = ("frozen", "ema", "snapshot")


class Scalar(nn.Module):
    """One trainable number, and one that is not."""

    def __init__(self, value, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=dtype))
        self.fixed = nn.Parameter(torch.tensor([7.0]), requires_grad=False)

    def move_to(self, value):
        """As an optimiser does: in place."""
        with torch.no_grad():
            self.weight.fill_(value)


def lent_value(teacher):
    with teacher.lent():
        return teacher.model.weight.item()


def values(teacher, students):
    """What the teacher is scored with after each optimisation step that leaves the student at these values."""
    seen = []
    for step, student in enumerate(students, start=1):
        teacher.model.move_to(student)
        teacher.after_step(step)
        seen.append(lent_value(teacher))
    return seen


def test_ema_by_hand():
    """teacher <- 3/4 teacher + 1/4 student, from 0 toward 8: 2, 3.5, and from there toward 0: 2.625."""
    assert values(TeacherWeights(Scalar(0.0), "ema", ema_rate=0.25), [8.0, 8.0, 0.0]) == [2.0, 3.5, 2.625]


def test_the_rate_is_the_students_share():
    assert values(TeacherWeights(Scalar(0.0), "ema", ema_rate=1.0), [8.0, 3.0]) == [8.0, 3.0]
    assert values(TeacherWeights(Scalar(0.0), "ema", ema_rate=0.05), [1.0])[0] == pytest.approx(0.05)


def test_frozen_stays_and_live_follows():
    assert values(TeacherWeights(Scalar(1.0), "frozen"), [2.0, 3.0, 4.0]) == [1.0, 1.0, 1.0]
    assert values(TeacherWeights(Scalar(1.0), "live"), [2.0, 3.0, 4.0]) == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(("sync", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [0, 0, 3, 3, 3, 6, 6]), (10, [0] * 7)])
def test_snapshot_is_taken_after_every_so_many_steps(sync, expected):
    assert values(TeacherWeights(Scalar(0.0), "snapshot", sync_steps=sync), range(1, 8)) == expected


def test_bfloat16_average_does_not_round_away():
    """Each update is far below bfloat16's resolution at 1 (2^-8); a hundred of them are 1 + (1 - 0.999^100) * 0.03125."""
    student = Scalar(1.0, torch.bfloat16)
    teacher = TeacherWeights(student, "ema", ema_rate=0.001)
    values(teacher, [1.03125] * 100)
    assert teacher.state_dict()["weight"].item() == pytest.approx(1.0 + 0.03125 * (1 - 0.999**100), abs=1e-6)
    with teacher.lent():
        assert student.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_fixed_parameters_are_no_part_of_a_copy(kind):
    assert set(TeacherWeights(Scalar(1.0), kind).state_dict()) == ({"weight"} if kind in COPIES else set())


# ---------------------------------------------------------------- lending


def parameters(model):
    return {name: value.clone() for name, value in model.named_parameters()}


def nudge(model, size=0.1):
    """Every trainable parameter moves, in place."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", COPIES)
def test_the_whole_model_is_the_teachers_inside_and_bitwise_the_students_after(tiny_model, kind):
    """With tied embeddings: the head follows the lent embedding."""
    assert tiny_model.lm_head.weight is tiny_model.model.embed_tokens.weight
    teacher, ids = TeacherWeights(tiny_model, kind), torch.arange(10)[None]
    old, old_logits = parameters(tiny_model), tiny_model(ids).logits
    nudge(tiny_model)
    new, new_logits = parameters(tiny_model), tiny_model(ids).logits
    addresses = [parameter.data_ptr() for parameter in tiny_model.parameters()]
    with teacher.lent():
        assert same(parameters(tiny_model), old)
        assert tiny_model.lm_head.weight is tiny_model.model.embed_tokens.weight
        assert torch.equal(tiny_model(ids).logits, old_logits)
    assert same(parameters(tiny_model), new)
    assert [parameter.data_ptr() for parameter in tiny_model.parameters()] == addresses  # the optimiser's own tensors
    assert torch.equal(tiny_model(ids).logits, new_logits)
    assert not torch.equal(new_logits, old_logits)


@pytest.mark.parametrize("kind", COPIES)
def test_the_student_comes_back_after_an_exception(tiny_model, kind):
    teacher = TeacherWeights(tiny_model, kind)
    nudge(tiny_model)
    new = parameters(tiny_model)
    lent = []
    with pytest.raises(IndexError), teacher.lent():
        lent.append(parameters(tiny_model)) or lent[1]
    assert not same(lent[0], new)
    assert same(parameters(tiny_model), new)


def test_a_graph_made_before_lending_has_the_students_gradient_after():
    student = Scalar(3.0)
    teacher = TeacherWeights(student, "frozen")
    student.move_to(5.0)
    loss = (student.weight * student.weight).sum()
    with teacher.lent(), torch.no_grad():
        assert student.weight.item() == 3.0
    loss.backward()
    assert student.weight.grad.item() == 10.0


# ---------------------------------------------------------------- state


@pytest.mark.parametrize("kind", COPIES)
def test_state_goes_to_another_teacher(kind):
    first = TeacherWeights(Scalar(1.0), kind, ema_rate=0.5, sync_steps=2)
    values(first, [3.0, 5.0])
    second = TeacherWeights(Scalar(5.0), kind, ema_rate=0.5, sync_steps=2)
    second.load_state_dict(first.state_dict())
    assert lent_value(second) == lent_value(first)
    assert second.model.weight.item() == 5.0


def test_another_models_state_is_refused(tiny_model):
    teacher = TeacherWeights(Scalar(1.0), "ema")
    with pytest.raises(ValueError, match=r"another model's: it differs in .* and \d+ more"):
        teacher.load_state_dict(TeacherWeights(tiny_model, "ema").state_dict())


# ---------------------------------------------------------------- LoRA


@pytest.fixture
def adapted(tiny_model):
    """(base logits, the model with an adapter that already says something)."""
    ids = torch.arange(10)[None]
    with torch.no_grad():
        base = tiny_model(ids).logits
    model = get_peft_model(tiny_model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    return base, model, ids


@torch.no_grad()
def test_adapter_off_is_the_base_model(adapted):
    base, model, ids = adapted
    own = model(ids).logits
    with TeacherWeights(model, "adapter_off").lent():
        assert torch.equal(model(ids).logits, base)
    assert torch.equal(model(ids).logits, own)
    assert not torch.allclose(own, base, atol=1e-3)


@torch.no_grad()
def test_the_adapter_comes_back_after_an_exception(adapted):
    _, model, ids = adapted
    own = model(ids).logits
    with pytest.raises(RuntimeError, match="x"), TeacherWeights(model, "adapter_off").lent():
        raise RuntimeError("x")
    assert torch.equal(model(ids).logits, own)


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_holds_the_adapter_alone(adapted, kind):
    _, model, ids = adapted
    teacher, own = TeacherWeights(model, kind), model(ids).logits
    assert teacher.state_dict()
    assert all("lora_" in name for name in teacher.state_dict())
    assert sum(t.numel() for t in teacher.state_dict().values()) == model.get_nb_trainable_parameters()[0]
    nudge(model)
    with teacher.lent():
        assert torch.equal(model(ids).logits, own)
    assert not torch.equal(model(ids).logits, own)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "emma"}, "one of live, frozen, ema, snapshot, adapter_off, got 'emma'"),
        ({"kind": "ema", "ema_rate": 0.0}, r"\(0, 1\], got 0.0: it is the student's share"),
        ({"kind": "ema", "ema_rate": 1.5}, r"\(0, 1\], got 1.5"),
        ({"kind": "snapshot", "sync_steps": 0}, "at least 1, got 0"),
        ({"kind": "adapter_off"}, "need a model with a LoRA adapter: set one up, or use 'frozen'"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        TeacherWeights(Scalar(1.0), **settings)


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_a_model_that_zero3_shards_is_refused(kind):
    model = Scalar(1.0)
    model.weight.ds_id = 0  # as DeepSpeed ZeRO-3 marks its parameters
    with pytest.raises(ValueError, match="ZeRO-3 shards the model: use 'live', 'adapter_off', FSDP2"):
        TeacherWeights(model, kind)
    assert TeacherWeights(model, "live").state_dict() == {}
