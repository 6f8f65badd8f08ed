"""What is on file of an evaluation, and whose is it?

One folder for each model and suite: `eval.json` says what decides the samples, `samples.jsonl` (or one file for each shard)
holds them, `problems.jsonl` what was asked; once all samples are there, `answers.json` says which answers are the same
(`dasd.evaluation.answers`) and `summary.json` the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from dasd.config import BadInput, EvalConfig
from dasd.evaluation.benchmarks import Suite
from dasd.evaluation.entropies import read_entropies
from dasd.evaluation.verdicts import digest, read_verdicts
from dasd.files import read_json, read_lines, write_json, write_lines
from dasd.tasks.base import Problem

SAMPLES, IDENTITY, SUMMARY, PROBLEMS = "samples.jsonl", "eval.json", "summary.json", "problems.jsonl"
ANSWERS = "answers.json"
Record = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` equal parts of the work, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        try:
            index, count = map(int, text.split("/"))
        except ValueError:
            index = count = 0
        if not 1 <= index <= count:
            raise BadInput(f"--shard {text!r} must be I/N with I from 1 to N, e.g. --shard 1/4")
        return cls(index, count)

    @property
    def file(self) -> str:
        return f"samples-{self.index}-of-{self.count}.jsonl" if self.count > 1 else SAMPLES


WHOLE = Shard(1, 1)


@dataclass(frozen=True)
class Evaluation:
    """One model on one suite, in one folder. `config` has the suite's defaults filled in."""

    suite: Suite
    config: EvalConfig
    output: Path

    @property
    def ids(self) -> list[str]:
        return [problem.id for problem in self.suite.problems]

    @property
    def pairs(self) -> list[tuple[Problem, int]]:
        return [(problem, sample) for problem in self.suite.problems for sample in range(self.config.num_samples)]

    @property
    def identity(self) -> Record:
        """What decides the samples. How many there are, and how a backend is run, is no part of it."""
        decides = {"model", "temperature", "top_p", "max_completion_length", "seed", "with_context"}
        settings = self.config.model_dump(mode="json", include=decides) | {"backend": self.config.sampler.backend}
        settings |= {"system_prompt": self.config.data.system_prompt}
        return {"suite": self.suite.name, "settings": settings, "fingerprint": self.suite.fingerprint}

    def records(self) -> list[Record]:
        """What is on file of this evaluation, each (problem, sample) once, in the order of the problems."""
        found = read_samples(self.output)
        return [found[key] for problem, sample in self.pairs if (key := (problem.id, sample)) in found]


def read_identity(path: Path) -> Any:
    """What an evaluation's `eval.json` holds. Without it nobody knows whose the samples beside it are. Raises BadInput."""
    return read_json(path, f"delete the folder {path.parent} and evaluate again")


def check_identity(evaluation: Evaluation) -> None:
    """Refuses a folder that belongs to another evaluation."""
    path, ours = evaluation.output / IDENTITY, evaluation.identity
    if not path.exists():
        if sample_files(evaluation.output):
            raise BadInput(f"{evaluation.output} holds samples of unknown origin (no {IDENTITY}): give another --output")
        return
    theirs = read_identity(path).get("identity", {})
    if theirs != ours:
        settings = theirs.get("settings", {})
        changed = [key for key, value in ours["settings"].items() if settings.get(key) != value]
        changed += [what for key, what in (("suite", "benchmark"), ("fingerprint", "problems")) if theirs.get(key) != ours[key]]
        raise BadInput(
            f"{evaluation.output} holds an evaluation with other settings ({', '.join(changed)}): give another --output, or "
            "delete it"
        )


def write_shared(path: Path, value: Record) -> None:
    """A JSON file that several shards may write at the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        write_json(path, value)


def claim(evaluation: Evaluation, sampler: Record) -> None:
    """Marks the folder as this evaluation's and says who wrote the samples. Shards may do so at the same moment."""
    path, suite = evaluation.output / IDENTITY, evaluation.suite
    with FileLock(path.with_name(f".{path.name}.lock")):
        earlier = read_identity(path) if path.exists() else {"samplers": []}
        samplers = [*earlier["samplers"], *([sampler] if sampler not in earlier["samplers"] else [])]
        facts = {"task": suite.task, "prompt": suite.prompt, "source": suite.source, "problems": evaluation.ids}
        write_json(
            path, {"identity": evaluation.identity, "num_samples": evaluation.config.num_samples, **facts, "samplers": samplers}
        )
        write_problems(evaluation)


def write_problems(evaluation: Evaluation) -> None:
    """What was asked and what is right, for whoever reads the samples."""
    asked = [{"id": p.id, "problem": p.problem, "answer": p.answer} for p in evaluation.suite.problems]
    write_lines(evaluation.output / PROBLEMS, asked)


def sample_files(output: Path) -> list[Path]:
    return sorted(output.glob("samples*.jsonl"))


def read_samples(output: Path) -> dict[tuple[str, int], Record]:
    """(problem id, sample) -> record, over all sample files of a folder.

    `answer` names the class of the extracted answer; `entropies` and `verdict` are there where they have been worked out.
    """
    classes = read_json(output / ANSWERS) or {}
    records = [record for path in sample_files(output) for record in read_lines(path)]
    entropies, judged = read_entropies(output), read_verdicts(output)
    for record in records:
        extracted, key = record["extracted"], (record["problem_id"], record["sample"])
        record["answer"] = classes.get(record["problem_id"], {}).get(extracted, extracted)
        if key in entropies and record["token_ids"] is not None and len(entropies[key]) == len(record["token_ids"]):
            record["entropies"] = entropies[key]
        if key in judged and judged[key]["text"] == digest(record["text"]):
            record["verdict"] = judged[key]
    return {(record["problem_id"], record["sample"]): record for record in records}


def model_slug(model: str) -> str:
    """A model's path or hub id as a folder name."""
    return model.strip("./").replace("/", "--") or "model"
