"""Would this teacher help this student, token by token? An intervention study, before anything is trained.

At chosen tokens of the student's own rollouts a token is forced (see `positions`), the student writes on `continuations` times,
and what comes out is graded. `probe.jsonl` holds one line for each rollout; a killed probe goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dasd.analysis.positions import Position, choose_positions, interventions
from dasd.analysis.scores import hidden_states, score_states
from dasd.config import ProbeConfig
from dasd.data.problems import as_row, load_problems
from dasd.evaluation.health import EPISTEMIC_MARKERS, count_phrases
from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import end_tokens, uniforms, write
from dasd.files import append_lines, repair_lines
from dasd.folders import claim
from dasd.model_fit import completion_room, context_length
from dasd.models import LanguageModelHead, load_model
from dasd.progress import track
from dasd.prompts import Prompt, tokenize_prompt
from dasd.tasks import make_task
from dasd.tasks.base import Problem, Task, grade_completions
from dasd.teacher.context import PrivilegedContext

RECORDS = "probe.jsonl"
PROBLEMS_AT_ONCE = 10  # what a kill can cost
Record = dict[str, Any]


def run_probe(config: ProbeConfig, output: Path) -> list[Record]:
    """Probes with a progress bar and returns one record for each rollout and context. Raises BadInput."""
    problems, task = load_problems(config.data), make_task(config.data.task, config.data.answer_format)
    model, tokenizer = load_model(config.model)
    claim(output, config)
    prober = Prober(model, tokenizer, task, problems, config)
    records: list[Record] = repair_lines(output / RECORDS, keep=lambda record: True)
    done = {(record["problem_id"], record["context"]) for record in records}
    with track("Probing", len(problems) * len(config.contexts)) as advance:
        for start in range(0, len(problems), PROBLEMS_AT_ONCE):
            batch = problems[start : start + PROBLEMS_AT_ONCE]
            for context in config.contexts:
                left = [problem for problem in batch if (problem.id, context) not in done]
                if left:
                    fresh = prober.probe(context, left, prober.rollouts(left))
                    append_lines(output / RECORDS, fresh)
                    records += fresh
                advance(len(batch))
    return records


@dataclass
class Branch:
    """One action at one position: the completion up to and with the forced token, to be continued."""

    problem: Problem
    prefix: list[int]
    seeds: list[int]
    tails: list[list[int]] = field(default_factory=list)


class Prober:
    """Samples, scores, intervenes and grades with one model."""

    def __init__(self, model: Any, tokenizer: Any, task: Task, problems: Sequence[Problem], config: ProbeConfig) -> None:
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, config
        self.rows = [as_row(problem) for problem in problems]
        self.prompts = {row["id"]: self._ids(row["prompt"]) for row in self.rows}
        self.ends = end_tokens(model, tokenizer)
        self.room = self._room()
        self.head = LanguageModelHead.of(model, config.temperature)

    def _ids(self, prompt: Prompt) -> list[int]:
        return tokenize_prompt(self.tokenizer, prompt, **self.config.model.chat_template_kwargs)

    def _room(self) -> int:
        """Tokens a completion may have, beside the longest prompt of student and teachers."""
        lengths = [len(ids) for ids in self.prompts.values()]
        for kind in self.config.contexts:
            told = (PrivilegedContext(kind, fraction=self.config.fraction).prompt(row, others=self.rows) for row in self.rows)
            lengths += [len(self._ids(prompt)) for prompt in told if prompt is not None]
        chosen = "max_completion_length" in self.config.model_fields_set
        limit = context_length(self.model.config)
        return completion_room(self.config.max_completion_length, max(lengths), limit, chosen, "--max_completion_length")

    def rollouts(self, problems: Sequence[Problem]) -> list[list[int]]:
        """One completion of the student for each problem."""
        seeds = [_seed(self.config.seed, problem.id, "rollout") for problem in problems]
        return self._write([self.prompts[problem.id] for problem in problems], range(len(problems)), seeds)

    def probe(self, context: str, problems: Sequence[Problem], rollouts: Sequence[list[int]]) -> list[Record]:
        """Interventions at chosen tokens of each rollout, written on and graded."""
        records, branches = [], []
        for problem, completion in zip(problems, rollouts, strict=True):
            plan = self._plan(context, problem, completion)
            record: Record = {"problem_id": problem.id, "context": context, "token_ids": completion, "positions": []}
            records.append(record | self._grade(problem, completion))
            for position, forced in plan:
                of_position = [self._branch(context, problem, completion, position, *choice) for choice in forced.items()]
                record["positions"].append((position, forced, of_position))
                branches += of_position
        self._continue(branches)
        for record in records:
            record["positions"] = [
                {
                    **asdict(position),
                    "forced": forced,
                    "outcomes": dict(zip(forced, map(self._outcomes, of_position), strict=True)),
                }
                for position, forced, of_position in record["positions"]
            ]
        return records

    def _plan(self, context: str, problem: Problem, completion: list[int]) -> list[tuple[Position, dict[str, int | None]]]:
        """Positions and the forced token of each action; none where the context finds nothing for this problem."""
        row = as_row(problem)
        told = PrivilegedContext(context, fraction=self.config.fraction).prompt(row, others=self.rows)
        if told is None:
            return []
        student = hidden_states(self.model, self.prompts[problem.id], completion)
        teacher = hidden_states(self.model, self._ids(told), completion)
        _, entropies = score_states(self.model, student, completion, self.config.temperature)
        seed = _seed(self.config.seed, problem.id, "positions")
        positions = choose_positions(entropies.tolist(), self.config.positions, self.config.rho, seed)
        index = [position.index for position in positions]
        pairs = zip(self.head(student[index]).log_softmax(-1), self.head(teacher[index]).log_softmax(-1), strict=True)
        return [(position, interventions(*pair)) for position, pair in zip(positions, pairs, strict=True)]

    def _branch(
        self, context: str, problem: Problem, completion: list[int], position: Position, action: str, token: int | None
    ) -> Branch:
        prefix = completion[: position.index] + ([] if token is None else [token])
        # The control draws the same continuations whatever the context.
        place = (problem.id, action if token is None else context, position.index, action)
        return Branch(problem, prefix, [_seed(self.config.seed, *place, i) for i in range(self.config.continuations)])

    def _continue(self, branches: Sequence[Branch]) -> None:
        """Fills in the tails; a prefix that has ended, or has no room left, is continued by nothing."""
        room = {id(branch): self.room - len(branch.prefix) for branch in branches}
        ended = [branch for branch in branches if room[id(branch)] <= 0 or (branch.prefix and branch.prefix[-1] in self.ends)]
        for branch in ended:
            branch.tails = [[] for _ in branch.seeds]
        left = sorted((b for b in branches if not b.tails), key=lambda branch: len(branch.prefix))
        at_once = max(1, self.config.batch_size // self.config.continuations)
        for start in range(0, len(left), at_once):
            chosen = left[start : start + at_once]
            rows = [place for place, branch in enumerate(chosen) for _ in branch.seeds]
            prompts = [self.prompts[branch.problem.id] + branch.prefix for branch in chosen]
            written = self._write(prompts, rows, [seed for branch in chosen for seed in branch.seeds], room[id(chosen[0])])
            for place, tail in zip(rows, written, strict=True):
                chosen[place].tails.append(tail[: room[id(chosen[place])]])

    def _write(
        self, prompts: Sequence[list[int]], rows: Sequence[int], seeds: Sequence[int], length: int | None = None
    ) -> list[list[int]]:
        length = length or self.room
        params = SamplingParams(length, self.config.temperature)
        return write(self.model, prompts, rows, uniforms(seeds, length), params, sorted(self.ends), self.tokenizer.pad_token_id)

    def _outcomes(self, branch: Branch) -> dict[str, list[float]]:
        grades = [self._grade(branch.problem, branch.prefix + tail) for tail in branch.tails]
        return {name: [grade[name] for grade in grades] for name in grades[0]}

    def _grade(self, problem: Problem, completion: list[int]) -> dict[str, float]:
        text = self.tokenizer.decode(completion, skip_special_tokens=True)
        steps, cut_off = self.task.check_steps(problem, text), not completion or completion[-1] not in self.ends
        return {
            "correct": float(grade_completions(self.task, [(problem, text)], [cut_off])[0].correct),
            "steps_right": steps.right,
            "steps_checked": steps.checked,
            "epistemic": count_phrases(text, EPISTEMIC_MARKERS),
            "length": len(completion),
        }


def _seed(*place: Any) -> int:
    """A seed of its own for each place in the study, the same in every run."""
    digest = hashlib.sha256("/".join(map(str, place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
