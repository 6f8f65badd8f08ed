"""What does every part of a probe work with? One model that samples and scores, a task that grades, the problems."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from dasd.analysis.probe_file import STUDENT
from dasd.analysis.scores import hidden_states
from dasd.config import ProbeConfig
from dasd.data.problems import as_row
from dasd.evaluation.health import EPISTEMIC_MARKERS, count_phrases
from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import uniforms, write
from dasd.model_fit import completion_room, context_length, end_tokens
from dasd.models import LanguageModelHead
from dasd.prompts import Prompt, tokenize_prompt
from dasd.tasks.base import Problem, Task, grade_completions
from dasd.teacher.context import PrivilegedContext


class Workbench:
    """`prompt` is what the student, or the teacher in a context, reads before a completion."""

    def __init__(self, model: Any, tokenizer: Any, task: Task, problems: Sequence[Problem], config: ProbeConfig) -> None:
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, config
        self.problems = {problem.id: problem for problem in problems}
        self.rows = {problem.id: as_row(problem) for problem in problems}
        self.ends = end_tokens(model.generation_config, tokenizer)
        self.head = LanguageModelHead.of(model, config.temperature)
        self.prompt = lru_cache(maxsize=None)(self._prompt)
        self.room = self._room()  # tokens that a completion may have

    def _prompt(self, name: str, reader: str = STUDENT) -> list[int] | None:
        """Token ids of a problem's prompt; None where a context finds nothing for it."""
        if reader == STUDENT:
            return self._ids(self.rows[name]["prompt"])
        context = PrivilegedContext(reader, fraction=self.config.fraction)
        told = context.prompt(self.rows[name], others=list(self.rows.values()))
        return None if told is None else self._ids(told)

    def _room(self) -> int:
        """Raises BadInput where neither role's prompt leaves room for the completions that were asked for."""
        readers = (STUDENT, *self.config.contexts)
        longest = max(len(self.prompt(name, reader) or []) for name in self.problems for reader in readers)
        chosen = "max_completion_length" in self.config.model_fields_set
        limit = context_length(self.model.config)
        return completion_room(self.config.max_completion_length, longest, limit, chosen, "--max_completion_length")

    def _ids(self, prompt: Prompt) -> list[int]:
        return tokenize_prompt(self.tokenizer, prompt, **self.config.model.chat_template_kwargs)

    def states(self, name: str, completion: list[int], reader: str = STUDENT) -> Tensor:
        """(T, d) hidden states that predict the completion's tokens."""
        return hidden_states(self.model, self.prompt(name, reader) or [], completion)

    def write(
        self, prompts: Sequence[list[int]], rows: Sequence[int], seeds: Sequence[int],
        finished: Callable[[int, list[int]], None], tokens: Callable[[int], None], **given: Any,
    ) -> None:  # fmt: skip
        """Continues `prompts[rows[i]]` with the random numbers of `seeds[i]`; see `samplers.transformers.write`."""
        length = max(given.get("limits") or [self.room])
        params, noise = SamplingParams(length, self.config.temperature), uniforms(seeds, length)
        ends, pad = sorted(self.ends), self.tokenizer.pad_token_id
        write(self.model, prompts, rows, noise, params, ends, pad, finished=finished, tokens=tokens, **given)

    def grade(self, name: str, completions: Sequence[list[int]]) -> list[dict[str, float]]:
        """What is measured of each completion of a problem."""
        problem = self.problems[name]
        texts = [self.tokenizer.decode(completion, skip_special_tokens=True) for completion in completions]
        cut_off = [not completion or completion[-1] not in self.ends for completion in completions]
        grades = grade_completions(self.task, [(problem, text) for text in texts], cut_off)
        found = []
        for text, ids, grade in zip(texts, completions, grades, strict=True):
            steps = self.task.check_steps(problem, text)
            found.append({
                "correct": float(grade.correct),
                "steps_right": steps.right,
                "steps_checked": steps.checked,
                "epistemic": count_phrases(text, EPISTEMIC_MARKERS),
                "length": len(ids),
            })  # fmt: skip
        return found

    def seed(self, *place: Any) -> int:
        """A seed of its own for each place in the study, the same in every run."""
        digest = hashlib.sha256("/".join(map(str, (self.config.seed, *place))).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1
