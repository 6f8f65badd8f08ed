"""How far uphill does one update go? Of many methods on the same rollouts, before anything is trained.

Of a method with the updates u_b (minus the gradient of its loss on batch b, at weights that do not move) and of a reference,
the verifier alone, with updates v_b:

    gain = sum over weights of  mean(v_b) * mean(u_b) / rms(u_b)

is the first-order change of the verifier's objective by one step of Adam at learning rate 1, whose step is mean over rms:
mean(v_b) comes from every other batch, mean and rms of u_b from the rest, so from other problems; both ways are averaged.
A method's *relative gain* is its gain over the reference's, less 1: 0 is as far uphill as the reference, -1 not uphill at all.

It asks what carries over to other problems, noise included; it knows nothing of what many steps do. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dasd.config import RunConfig
from dasd.config.core import portable

DRAWS = 1_000
WEIGHTS_AT_A_TIME = 4_096
LEAST_BATCHES = 4
Updates = np.ndarray  # (batches, weights) float32
# What of TRL's options decides which rollouts there are.
ROLLOUTS_IN_TRL = (
    "generation_batch_size", "shuffle_dataset", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs",
)  # fmt: skip
# What rollouts, rewards and loss of the first update are made of, in `training` and in its `trl`; whatever may matter counts.
# Not how long, how fast and in how large batches a run goes on.
OF_UPDATE = (
    "loss_type", "temperature", "max_completion_length", "dynamic_sampling", "overlong_buffer", "rewards", "reward_weights",
    "lora_rank",
)  # fmt: skip
OF_ADAPTER = ("lora_alpha", "lora_targets", "lora_embeddings")
OF_UPDATE_IN_TRL = (
    "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "disable_dropout", "beta", "use_bias_correction_kl",
    "epsilon", "epsilon_high", "delta", "sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos", "vespo_lambda_pos",
    "vespo_k_neg", "vespo_lambda_neg", "importance_sampling_level", "reward_weights", "multi_objective_aggregation",
    "scale_rewards", "mask_truncated_completions", "top_entropy_quantile", "entropy_coef", "use_adaptive_entropy",
    "entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target", "off_policy_mask_threshold",
    "router_aux_loss_coef",
)  # fmt: skip


def told_apart_by(run: RunConfig) -> dict[str, Any]:
    """What makes two configs of one name two: the model's path, the task, method and teacher, and of the training what the
    first update is made of, as JSON has them. Options of TRL are there where they are given.
    """
    said = portable(run)
    single = {section: {key: said[section][key]} for section, key in (("model", "path"), ("data", "task"))}
    training = {key: said["training"][key] for key in (*OF_UPDATE, *(OF_ADAPTER if run.training.lora_rank else ()))}
    if of_trl := {key: value for key, value in said["training"]["trl"].items() if key in OF_UPDATE_IN_TRL}:
        training["trl"] = of_trl
    return {**single, "method": said["method"], "teacher": said["teacher"], "training": training}


def relative_gains(updates: Mapping[str, Updates], reference: str, seed: int = 0) -> dict[str, dict[str, Any]]:
    """`mean`, `low`, `high` of each method's relative gain, and the mean `cosine` of a single update with the reference's mean
    over the other half of the batches.

    The interval is 95 %, from bootstrap draws of the batches within each half, the same draws for all. Raises ValueError for
    fewer than LEAST_BATCHES batches, updates of different shapes or with numbers that are not finite, and a reference whose own
    gain may be 0.
    """
    ours = updates[reference]
    if len(ours) < LEAST_BATCHES:
        raise ValueError(f"{len(ours)} batches: at least {LEAST_BATCHES} are needed, half of them for each side")
    for name, theirs in {reference: ours, **updates}.items():
        if theirs.shape != ours.shape:
            raise ValueError(f"updates of {name} have shape {theirs.shape}, those of {reference} {ours.shape}")
        # A weight with NaN in it would count as one that nothing moves.
        if broken := [batch for batch, update in enumerate(theirs, start=1) if not np.isfinite(update).all()]:
            raise ValueError(
                f"update {broken[0]} of {name} is not finite (NaN or infinite), so its gain is not known: leave {name} out, or "
                "delete its updates and mend its settings"
            )
    draws = draws_of_halves(len(ours), seed)
    base = _gains(ours, ours, draws)
    if not np.quantile(base, 0.025) > 0:
        raise ValueError(f"the gain of {reference} itself cannot be told from 0 on these rollouts: give more batches")
    found = {}
    for name, theirs in updates.items():
        relative = _gains(theirs, ours, draws) / base - 1
        low, high = np.quantile(relative[1:], [0.025, 0.975])
        ends = {"mean": float(relative[0]), "low": float(low), "high": float(high)}
        found[name] = {**ends, "cosine": _cosine(theirs, ours), "verdict": _verdict(name == reference, low, high)}
    return found


def _verdict(is_reference: bool, low: float, high: float) -> str:
    return "reference" if is_reference else "more" if low > 0 else "less" if high < 0 else "undecided"


def _halves(batches: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(batches) % 2 == 0, np.arange(batches) % 2 == 1


def draws_of_halves(batches: int, seed: int) -> list[np.ndarray]:
    """Of each half (1 + DRAWS, batches) weights of its batches: all alike, then drawn with replacement."""
    rng = np.random.default_rng(seed)
    shares = [half / half.sum() for half in _halves(batches)]
    return [np.stack([share, *rng.multinomial(n := int((share > 0).sum()), share, DRAWS) / n]) for share in shares]


def _gains(theirs: Updates, ours: Updates, draws: Sequence[np.ndarray]) -> np.ndarray:
    """(D,) gains of `theirs` for each row of the draws' weights."""
    total = np.zeros(len(draws[0]))
    for start in range(0, ours.shape[1], WEIGHTS_AT_A_TIME):
        part = slice(start, start + WEIGHTS_AT_A_TIME)
        u, v = theirs[:, part].astype(np.float64), ours[:, part].astype(np.float64)
        for here, there in (draws, draws[::-1]):
            mean, square = here @ u, here @ np.square(u)
            step = np.divide(mean, np.sqrt(square), out=np.zeros_like(mean), where=square > 0)
            total += np.einsum("dw,dw->d", there @ v, step) / 2
    return total


def _cosine(theirs: Updates, ours: Updates) -> float:
    found: list[float] = []
    halves = _halves(len(ours))
    for here, there in (halves, halves[::-1]):
        aim = ours[there].mean(0, dtype=np.float64)
        for u in theirs[here].astype(np.float64):
            size = float(np.linalg.norm(u) * np.linalg.norm(aim))
            found.append(float(u @ aim) / size if size > 0 else 0.0)
    return float(np.mean(found))
