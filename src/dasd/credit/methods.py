"""Which methods are there? A method is any callable from `TokenSignals` to `Credit`; this is the table of the named ones.

`needs` names what a method reads, so that the trainer computes nothing for nothing: optional tensors of `TokenSignals`,
`teacher_logps` where there is a teacher at all, `teacher_distribution` where whole distributions are compared, `batch_totals`
where sums over the whole batch are needed, which the method's own `batch_totals` takes of a part of it, `evidence` where the
verifier's lookahead is asked, from which the method's own `look` and `update` make it.
Imports torch only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

from dasd.credit.advantage import (
    AntiSelfDistillation,
    EntropyGuided,
    Forking,
    GroupRelative,
    RatioReweighted,
    RewardRescaled,
    SampledSelfDistillation,
    SelfAdaptation,
)
from dasd.credit.contrast import ContrastiveHints, ContrastiveTeacher
from dasd.credit.controls import CONTROLS, Controlled
from dasd.credit.direction import DirectionAdaptive
from dasd.credit.distillation import DirectionAdaptiveVocabulary, Distillation, EntropyRouted, SampleRouted
from dasd.credit.divergence import Divergence
from dasd.credit.lookahead import Lookahead
from dasd.credit.own import is_own, load_own
from dasd.credit.schedule import Schedule, at_step
from dasd.credit.signals import Credit, TokenSignals


class Method(Protocol):
    """Token credit: detached (B, T) advantages from a batch's signals."""

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, signals: TokenSignals) -> Credit: ...


_OF_THE_TEACHER = {  # of a method's needs
    "teacher_entropies", "teacher_distribution", "teacher_entropy_history", "contrast_logps", "batch_totals", "evidence",
}  # fmt: skip
_CAPPED_FORWARD_KL = Divergence("forward_kl", summand_cap=0.05)

METHODS: dict[str, Method] = {
    "dasd": DirectionAdaptive(),
    "dasd_paper": DirectionAdaptive(rho=0.2),  # as printed: the lower fifth is attracted, all else repelled
    "dasd_vocab": DirectionAdaptiveVocabulary(),
    "lookahead": Lookahead(),  # direction from evidence
    # the verifier alone; what tells the next three apart from each other is in dasd.presets
    "grpo": GroupRelative(),
    "dr_grpo": GroupRelative(),
    "dapo": GroupRelative(),
    "forking": Forking(),
    "hepo": Forking(scope="rollout"),
    # the student alone
    "opsa": SelfAdaptation(),
    # verifier and teacher, one number a token
    "rlsd": RewardRescaled(),
    "rlrt": RewardRescaled(side="deviate", lam=0.5, low=0.0, high=2.0, correct_only=True),
    "antisd": AntiSelfDistillation(),
    "rlcsd": ContrastiveHints(),
    "sipo": ContrastiveTeacher(),
    "egrsd": EntropyGuided(),
    "distilled_rl": RatioReweighted(),
    # self-distillation
    "opsd_sampled": SampledSelfDistillation(),
    "opsd": Distillation(_CAPPED_FORWARD_KL),
    "pw_opsd": Distillation(_CAPPED_FORWARD_KL, weighting="position", average="rollouts"),
    "ad_opsd": Distillation(_CAPPED_FORWARD_KL, anchor=0.2),
    "sdpo": Distillation(Divergence("jsd", top_k=100), ratio_cap=2.0, average="taught"),
    "sdft": Distillation(Divergence("reverse_kl")),
    "eopd": EntropyRouted(),
    "srpo": SampleRouted(),
    # ablations of dasd
    "conformity": DirectionAdaptive(map="attract", gate="none"),
    "novelty": DirectionAdaptive(map="repel", gate="none"),
    "fork_only": DirectionAdaptive(map="repel", arm="high", gate="none"),
    "scaffold_only": DirectionAdaptive(map="attract", arm="low", gate="none"),
}
# Settings that make an entry what its name says; they cannot be changed.
_FIXED = {
    "dasd_paper": ("rho", "gap_scale"),
    "rlsd": ("side", "correct_only"),
    "rlrt": ("side", "correct_only"),
    **dict.fromkeys(("opsd", "pw_opsd", "ad_opsd", "sdpo", "sdft"), ("verifier_weight",)),
    "pw_opsd": ("verifier_weight", "weighting"),
    **dict.fromkeys(("conformity", "novelty", "fork_only", "scaffold_only"), ("map", "arm", "flip", "gate")),
}


def make_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The named method, or that of a user's file (`path/to/file.py:name`), with these settings in place of its defaults, and
    under `control` (with `control_seed`) if given.

    A number may be a `Schedule` or its mapping (start, end, steps, shape), a divergence a mapping of `Divergence`'s settings.
    What makes a method what its name says cannot be changed. Raises ValueError naming the nearest valid name for an unknown
    method or setting.
    """
    settings = dict(settings or {})
    if not is_own(name) and name not in METHODS:
        raise ValueError(f"unknown method {name!r}{_nearest(name, METHODS)}; methods: {', '.join(METHODS)}")
    method: Any = load_own(name) if is_own(name) else METHODS[name]
    control, seed = settings.pop("control", None), settings.pop("control_seed", None)
    if control is None and seed is not None:
        raise ValueError(f"control_seed is {seed!r} without a control: name one of {', '.join(CONTROLS)}, or leave it out")
    known = fields(method) if is_dataclass(method) else ()
    free = [field.name for field in known if field.name not in _FIXED.get(name, ())]
    for setting, value in settings.items():
        if setting not in free:
            if setting in _FIXED.get(name, ()):
                raise ValueError(f"method {name} has {setting} fixed at {getattr(method, setting)!r}: that is what it is")
            choices = f"its settings: {', '.join(free)}" if free else "it has no settings"
            raise ValueError(f"method {name} has no setting {setting!r}{_nearest(setting, free)}; {choices}")
        if isinstance(value, Mapping):
            settings[setting] = _build(f"{name}.{setting}", getattr(method, setting), value)
    method = _replaced(name, method, settings) if settings else method
    return method if control is None else Controlled(method, control, seed or 0)


def assign_credit(signals: TokenSignals, method: Method, step: int = 0) -> Credit:
    """Credit of every token of a batch under `method`, any of `METHODS` or your own callable, at optimisation step `step`."""
    return at_step(method, step)(signals)


def needs_of(method: Any) -> frozenset[str]:
    """What a method reads; of a plain callable, which does not say, what one with a teacher does."""
    return frozenset(getattr(method, "needs", {"teacher_logps", "entropies"}))


def has_teacher(method: Any) -> bool:
    """Whether there is a teacher at all: whoever reads anything of one reads its log-probs."""
    return "teacher_logps" in needs_of(method)


def unmet_needs(method: Any) -> str | None:
    """What speaks against the method's `needs`, in a sentence: it reads of a teacher that it does not have; None if nothing."""
    if has_teacher(method) or not (unmet := sorted(needs_of(method) & _OF_THE_TEACHER)):
        return None
    return f"this method needs {unmet[0]}, which comes with a teacher: its `needs` must have teacher_logps, too"


def _build(name: str, default: Any, values: Mapping[str, Any]) -> Any:
    """A `Divergence` with some settings replaced, or a `Schedule`."""
    kind = Divergence if isinstance(default, Divergence) else Schedule
    known = [field.name for field in fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError(f"{name} has no setting {key!r}{_nearest(key, known)}; its settings: {', '.join(known)}")
    if is_dataclass(default) and isinstance(default, kind):
        return _replaced(name, default, values)
    try:
        return kind(**values)
    except TypeError:
        raise ValueError(f"{name} as a schedule needs start, end and steps, got {', '.join(values)}") from None


def _replaced(name: str, default: Any, values: Mapping[str, Any]) -> Any:
    """`default` with these settings. Raises ValueError where one is not of the type that its field declares."""
    hints = get_type_hints(type(default))
    for setting, value in values.items():
        choices = get_args(hints[setting]) if isinstance(hints[setting], UnionType) else (hints[setting],)
        kinds = [str if get_origin(choice) is Literal else choice for choice in choices]
        number = isinstance(value, int) and not isinstance(value, bool) and float in kinds
        if not number and not any(type(value) is kind for kind in kinds):
            wanted = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
            raise ValueError(f"{name}: {setting} must be {wanted}, got {value!r}")
    return replace(default, **values)


_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a word",
    Schedule: "a schedule",
    Divergence: "a mapping of a divergence's settings",
    type(None): "null",
}


def _nearest(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
