"""Reward functions from a user's own file: `training.rewards: [path/to/file.py:function]`, in TRL's signature, async or not.

Each runs in a worker process with a hard time limit. Where a call for a whole batch fails, its completions are tried one by
one, so that the failure costs those alone that cause it: they have no reward at all, and are counted. `trainer_state` has
`global_step`, `max_steps` and `epoch` alone. Imports no torch: workers load this file.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dasd.config import BadInput, RunFailed
from dasd.tasks.own import load_function
from dasd.tasks.workers import WorkerPool

logger = logging.getLogger("dasd")
SECONDS = 30.0  # for a batch; an attribute `seconds` of the function says otherwise
FAILED = math.nan  # in place of a reward; None is a function's own word for "not applicable"


class OwnReward:
    """One reward function of a file, called safely. Raises ValueError where the file or the function is not there."""

    def __init__(self, name: str) -> None:
        path, _, function = name.rpartition(":")
        self.path, self.function = str(Path(path).expanduser().resolve()), function
        self.seconds = float(getattr(load_function(self.path, function), "seconds", SECONDS))
        self.__name__ = function
        self._pool = WorkerPool("dasd.training.own_rewards", "call", warm_up=(self.path, self.function, {}, {}))

    def __call__(
        self, completions: Sequence[Any], log_metric: Callable[[str, float], None] | None = None, log_extra: Any = None,
        trainer_state: Any = None, environments: Any = None, **columns: Sequence[Any],
    ) -> list[float | None]:  # fmt: skip
        """Rewards in order, FAILED (NaN) where there is none because the function failed."""
        state = {key: getattr(trainer_state, key, None) for key in ("global_step", "max_steps", "epoch")}
        table = {"completions": list(completions), **{key: list(value) for key, value in columns.items()}}
        [answer] = self._pool.map([(self.path, self.function, table, state)], self.seconds)
        if isinstance(answer, int):
            raise RunFailed(
                f"reward {self.function} of {self.path} returned {answer} rewards for {len(completions)} completions: it must "
                "return one for each, None where it does not apply"
            )
        if isinstance(answer, tuple):
            values, metrics = answer
            if failed := _failures(values):
                logger.warning(
                    "reward %s gave %d of %d completions a number that is not finite", self.function, failed, len(values)
                )
        else:
            rows = [{key: [column[i]] for key, column in table.items()} for i in range(len(completions))]
            answers = self._pool.map([(self.path, self.function, row, state) for row in rows], self.seconds)
            silent = f"no answer in {self.seconds:g} s, or its process ended"
            values = [each[0][0] if isinstance(each, tuple) else FAILED for each in answers]
            metrics = {}
            reason = next((each for each in answers if isinstance(each, str)), silent)
            logger.warning(
                "reward %s failed on %d of %d completions: %s", self.function, _failures(values), len(values), reason
            )
        if log_metric is not None:
            log_metric(f"rewards/{self.function}/failed", _failures(values) / max(len(values), 1))
            for key, value in metrics.items():
                log_metric(key, value)
        return values


def tried(reward: OwnReward, gold: Sequence[str], junk: Sequence[str], rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Mean reward of right completions and of junk for the same problems. Raises BadInput where the function fails on one.

    rows  a dataset row for each completion
    """
    means = []
    for texts in (gold, junk):
        columns: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0] if key != "prompt"}
        prompts = [row["prompt"] for row in rows]
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        ids = [[0] * max(1, len(text.split())) for text in texts]  # as many as words: no tokenizer is at hand
        values = reward(completions, prompts=prompts, completion_ids=ids, **columns)
        if failures := _failures(values):
            raise BadInput(
                f"training.rewards: {reward.function} failed on {failures} of {len(texts)} completions, the log says why"
            )
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else math.nan)
    return means[0], means[1]


def call(
    path: str, function: str, table: dict[str, list[Any]], state: dict[str, Any]
) -> tuple[list[float | None], dict] | str | int:
    """(rewards, metrics that the function logged); or why there are none; or of a wrong number of rewards the number. Runs in a
    worker."""
    if not table:  # the file is run once before the first batch, in nobody's time
        load_function(path, function)
        return 0
    metrics: dict[str, float] = {}
    try:
        result = load_function(path, function)(
            **table, trainer_state=SimpleNamespace(**state), log_metric=metrics.__setitem__, log_extra=lambda *_: None
        )
        values = asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result
        if isinstance(values, str | Mapping):
            raise TypeError(f"it must return one number for each completion, got {type(values).__name__} {values!r:.80}")
        rewards = [None if value is None else float(value) for value in values]
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    if len(rewards) != len(table["completions"]):
        return len(rewards)
    return [value if value is None or math.isfinite(value) else FAILED for value in rewards], metrics


async def _awaited(result: Any) -> Any:
    return await result


def _failures(values: Sequence[float | None]) -> int:
    return sum(value is not None and math.isnan(value) for value in values)
