"""What of a verl run is dasd's? The key `dasd` of verl's config, in the words of `dasd train`, and what verl cannot do with it.

+dasd.method.name=dasd +dasd.method.beta=0.1 +dasd.teacher.context=solution
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from dasd.config import BadInput, make_config
from dasd.config.core import Section
from dasd.config.parts import MethodConfig, TeacherConfig
from dasd.credit import Method, make_method, unmet_needs
from dasd.teacher.context import PrivilegedContext

# What a worker's pass over the completions gives. Whole distributions, contrasted hints and sums over steps are not there.
GIVEN = frozenset({"teacher_logps", "entropies", "correct", "teacher_entropies"})
WEIGHTS = ("live", "frozen", "adapter_off")


class DasdConfig(Section):
    """The key `dasd` of verl's config."""

    method: MethodConfig = MethodConfig()
    teacher: TeacherConfig = TeacherConfig()
    success_threshold: float = Field(1.0, description="a rollout is correct if its reward is at least this")


def read(values: Mapping[str, Any] | None) -> tuple[DasdConfig, Method, PrivilegedContext]:
    """The settings over the method's preset, checked, with the method and what its teacher sees. Raises BadInput."""
    config = make_config(DasdConfig, dict(values or {}))
    teacher = config.teacher
    try:
        method = make_method(config.method.name, config.method.settings)
        context = PrivilegedContext(teacher.context, teacher.template, teacher.fraction)
    except (ValueError, TypeError) as error:
        raise BadInput(f"dasd: {error}") from None
    if unmet := unmet_needs(method):
        raise BadInput(f"dasd.method.name {config.method.name}: {unmet}")
    if missing := sorted(method.needs - GIVEN):
        raise BadInput(
            f"dasd.method.name {config.method.name} needs {missing[0]}, which dasd does not compute under verl: train it with "
            "`dasd train`, or take a method of one number a token (dasd, rlrt, egrsd, grpo)"
        )
    if teacher.weights not in WEIGHTS:
        raise BadInput(f"dasd.teacher.weights {teacher.weights} is not there under verl: take {', '.join(WEIGHTS)}")
    return config, method, context


def check(
    config: Any, settings: DasdConfig, method: Method, has_reference: bool, reference_is_actor: bool, has_critic: bool
) -> None:
    """Raises BadInput where verl's own settings leave the method without what it reads.

    has_reference         verl keeps a reference policy
    reference_is_actor    it is the actor without its LoRA adapter
    """
    if has_critic:
        raise BadInput(
            "dasd gives each token the verifier's advantage of its rollout: leave the critic out, and take "
            "algorithm.adv_estimator=grpo or another that compares the rollouts of a prompt"
        )
    weights = settings.teacher.weights
    if weights == "frozen" and not (has_reference and not reference_is_actor):
        raise BadInput(
            "dasd.teacher.weights frozen is verl's reference policy, which this run has not: add "
            "actor_rollout_ref.actor.use_kl_loss=true (kl_loss_coef=0), without LoRA, or take live"
        )
    if weights == "adapter_off" and not reference_is_actor:
        raise BadInput("dasd.teacher.weights adapter_off needs actor_rollout_ref.model.lora_rank: set one, or take live")
    correction = config.algorithm.get("rollout_correction")
    if method.needs & {"teacher_logps", "entropies"} and correction and correction.get("bypass_mode"):
        raise BadInput(
            "dasd compares the teacher with the actor's own log-probs, not with the rollout engine's: set "
            "algorithm.rollout_correction.bypass_mode=false"
        )
