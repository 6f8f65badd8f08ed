"""Who teaches nothing? What a step's metrics say of the verifier and the teacher, one sentence a fact, with the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def silences(logs: Mapping[str, float], has_teacher: bool) -> dict[str, str]:
    """Name of each fact -> the sentence that tells it. `logs` are the metrics of one step (or of the steps since the last)."""
    said = {}
    if logs.get("grad_norm") == 0.0:
        said["nothing"] = "The gradient is 0: neither verifier nor teacher teaches anything in such a step."
    if has_no_reward(logs):
        rest = "; the teacher alone trains the model in such a step" if _teaches(logs) else ""
        said["no reward"] = (
            f"No completion has a reward: verifier and rewards failed on all of them{rest}. What they said stands above; "
            "`dasd doctor` tries them."
        )
    elif logs.get("frac_reward_zero_std") == 1.0:
        rest = "; the teacher alone trains the model in such a step" if _teaches(logs) else ""
        said["verifier"] = (
            f"No reward varies inside its group, so the verifier says nothing{rest}. Take easier or harder problems, a larger "
            "group or a higher temperature."
        )
    if not has_teacher:
        return said
    if logs.get("teacher/skipped") == 1.0:
        said["no teacher"] = (
            "No rollout has a teacher: no privileged context (an empty column, or no peer that the verifier accepts)."
        )
    elif logs.get("gap/abs", 1.0) == 0.0:
        said["no gap"] = (
            "Teacher and student agree on every token (no gap above rounding), so the teacher says nothing; see whether its "
            "prompt shows the reference, with `dasd doctor`."
        )
    elif logs.get("tokens/repelled") == 0.0 and logs.get("tokens/attracted") == 0.0:
        said["no direction"] = (
            "No token is attracted or repelled, though teacher and student differ: the entropies of each rollout are all equal."
        )
    return said


def has_no_reward(logs: Mapping[str, Any]) -> bool:
    """Whether a step's rewards are known, and there is none."""
    return "reward" in logs and (logs["reward"] is None or math.isnan(logs["reward"]))


def _teaches(logs: Mapping[str, float]) -> bool:
    """Whether the teacher's term moves anything: credit of its own, or a divergence."""
    return logs.get("credit/teacher", 0.0) > 0.0 or logs.get("divergence", 0.0) != 0.0
