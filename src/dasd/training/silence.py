"""Who teaches nothing, and did training harm? What the metrics of a step say of verifier and teacher, and those of all steps of
the run, one sentence a fact, with the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, variance
from typing import Any

CERTAIN = 3.0  # standard errors


def silences(logs: Mapping[str, float], has_teacher: bool) -> dict[str, str]:
    """Name of each fact -> the sentence that tells it. `logs` are the metrics of one step (or of the steps since the last)."""
    said = {}
    if cut_off := logs.get("completions/clipped_ratio") == 1.0:
        said["cut off"] = (
            "Every completion of a step ran into max_completion_length, so none has an end. Give more tokens; or, where the "
            "first steps had ends, the model is unlearning to end: a smaller learning rate, or less of the teacher."
        )
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
        remedy = "" if cut_off else " Take easier or harder problems, a larger group or a higher temperature."
        said["verifier"] = f"No reward varies inside its group, so the verifier says nothing{rest}.{remedy}"
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


def fall(history: Sequence[Mapping[str, Any]]) -> str | None:
    """What there is to say of a run that ends with less than half of the reward that it began with; None of any other.

    `history` are the metrics of each logged step. The first and the last fifth are compared, three steps each at least, and
    must be apart by more than `CERTAIN` standard errors of their means; of less than nine steps nothing is said.
    """
    steps = [logs for logs in history if "reward" in logs and not has_no_reward(logs)]
    if len(steps) < 9:
        return None
    some = max(3, len(steps) // 5)
    first, last = steps[:some], steps[-some:]
    before, after = ([logs["reward"] for logs in part] for part in (first, last))
    error = math.sqrt((variance(before) + variance(after)) / some)
    if not (mean(before) > 0 and mean(after) < mean(before) / 2 and mean(before) - mean(after) > CERTAIN * error):
        return None
    cut = [mean(logs.get("completions/clipped_ratio", 0.0) for logs in part) for part in (first, last)]
    limit = f", the share of completions without an end went from {cut[0]:.2f} to {cut[1]:.2f}" if cut[0] != cut[1] else ""
    return (
        f"Training made this model worse: reward fell from {mean(before):.3g} in the first {some} steps to {mean(after):.3g} "
        f"in the last {some}{limit}. A smaller learning rate, or less of the teacher, is what to try."
    )


def has_no_reward(logs: Mapping[str, Any]) -> bool:
    """Whether a step's rewards are known, and there is none."""
    return "reward" in logs and (logs["reward"] is None or math.isnan(logs["reward"]))


def _teaches(logs: Mapping[str, float]) -> bool:
    """Whether the teacher's term moves anything: credit of its own, or a divergence."""
    return logs.get("credit/teacher", 0.0) > 0.0 or logs.get("divergence", 0.0) != 0.0
