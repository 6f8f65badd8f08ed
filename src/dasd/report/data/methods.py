"""What does each method do? A name and one line, for a reader who has not met it. Formulas and sources: docs/method.md."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from typing import Any

_TEACHER = "a teacher that has seen the solution"

METHODS = {
    "dasd": (
        "Direction-Adaptive Self-Distillation (DASD)",
        f"The student is pulled toward {_TEACHER} where it is sure, and pushed away from it where it is undecided, on top of "
        "the verifier's reward.",
    ),
    "dasd_paper": (
        "DASD as printed",
        f"As DASD, with the paper's quantile: the surest fifth is pulled toward {_TEACHER}, all else pushed away.",
    ),
    "dasd_vocab": (
        "DASD over the vocabulary",
        f"As DASD, but whole distributions are compared with those of {_TEACHER}: a divergence that shrinks where the student "
        "is sure and grows where it is undecided.",
    ),
    "lookahead": (
        "Lookahead",
        f"Tokens of like entropy are pulled toward {_TEACHER}, or pushed away from it, as one more step of the verifier alone "
        "would move them; where that says nothing, they are left to the verifier.",
    ),
    "grpo": (
        "GRPO",
        "Answers to one problem are compared; every token of an answer gets the same credit, and there is no teacher.",
    ),
    "dr_grpo": ("Dr. GRPO", "GRPO without division by the group's spread and with a constant length normaliser; no teacher."),
    "dapo": (
        "DAPO",
        "GRPO with a wider upper clip, fresh groups for those whose rewards are all alike, and a penalty on overlong answers; "
        "no teacher.",
    ),
    "forking": ("Forking tokens", "GRPO that learns from the tokens of highest entropy only; there is no teacher."),
    "hepo": (
        "High-entropy policy gradient (HEPO)",
        "GRPO that learns from the tokens of highest entropy in each answer only; there is no teacher.",
    ),
    "opsa": (
        "On-policy self-adaptation (OPSA)",
        "The tokens that the model itself found least likely are made less likely still; no teacher and no verifier.",
    ),
    "rlsd": ("RLSD", f"The verifier decides the direction; {_TEACHER} decides how much of it each token gets."),
    "rlrt": (
        "RLRT",
        "In right answers, tokens that a teacher with another right answer finds unlikely get more of the verifier's credit.",
    ),
    "antisd": (
        "Anti-self-distillation",
        f"Tokens that {_TEACHER} prefers lose credit, and others gain; the push pauses while the teacher's entropy is low.",
    ),
    "rlcsd": (
        "Contrastive self-distillation (RLCSD)",
        "A token gains where the right hint makes it likelier than wrong hints do; the verifier's sign is kept.",
    ),
    "sipo": (
        "SIPO",
        "A token gains where the reference makes it likelier than a failed answer does, even where the verifier says nothing.",
    ),
    "egrsd": (
        "Entropy-guided self-distillation (EGRSD)",
        f"The verifier decides the direction; {_TEACHER} decides the size, less where that teacher is itself undecided.",
    ),
    "distilled_rl": (
        "Distilled RL",
        f"In answers better than their group, tokens that {_TEACHER} likes get more of the verifier's credit.",
    ),
    "opsd": ("On-policy self-distillation (OPSD)", f"The student imitates the distributions of {_TEACHER}; no verifier."),
    "opsd_sampled": (
        "OPSD on sampled tokens",
        f"A token's credit is how much more likely {_TEACHER} finds it than the student does; no verifier.",
    ),
    "pw_opsd": ("Position-weighted OPSD", f"The student imitates {_TEACHER}, late tokens more than early ones; no verifier."),
    "ad_opsd": (
        "Adaptive-anchor OPSD",
        f"The student imitates {_TEACHER}, and where it is undecided a mixture of that teacher and itself; no verifier.",
    ),
    "sdpo": (
        "SDPO",
        "The student imitates itself when shown a successful answer to the same problem, over its most likely tokens.",
    ),
    "sdft": ("SDFT", f"The student moves toward the likeliest tokens of {_TEACHER} (reverse KL); no verifier."),
    "eopd": (
        "Entropy-routed distillation (EOPD)",
        f"The student imitates {_TEACHER} at its own tokens, and over the likeliest ones where the teacher is undecided.",
    ),
    "srpo": (
        "SRPO",
        "Right answers learn from the verifier as in GRPO, wrong ones from a teacher that has seen a successful answer.",
    ),
    "conformity": ("Conformity", f"Every token is pulled toward {_TEACHER}, on top of the verifier's reward."),
    "novelty": ("Novelty", f"Every token is pushed away from {_TEACHER}, on top of the verifier's reward."),
    "fork_only": ("Fork-only", f"Undecided tokens are pushed away from {_TEACHER}; the others ignore it."),
    "scaffold_only": ("Scaffold-only", f"Sure tokens are pulled toward {_TEACHER}; the others ignore it."),
}
_NO_METHOD = ("A training run", "How a policy changed in training, and what its teacher did to its tokens.")


def describe_method(name: str) -> tuple[str, str]:
    """The method's full name and what it does; an unknown one, such as your own, keeps its name."""
    return METHODS.get(name, (name, _NO_METHOD[1]) if name else _NO_METHOD)


def formula_of(method: Any) -> str:
    """The rule of a method for each token as its docstring (or its module's) has it; empty where it has none in one line."""
    for text in (inspect.getdoc(type(method)), inspect.getdoc(sys.modules[type(method).__module__])):
        found = re.search(r"`(A_t = [^`]+)`|^ {4}(A_t = .+)$", text or "", re.MULTILINE)
        if found is not None:
            return " ".join((found[1] or found[2]).split())
    return ""


def settings_of(method: Any) -> dict[str, Any]:
    """All settings of a method, defaults too; none for a callable that is no dataclass."""
    if not is_dataclass(method):
        return {}
    return {field.name: getattr(method, field.name) for field in fields(method)}
