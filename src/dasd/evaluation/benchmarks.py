"""Which problems are a model's test? Named benchmarks (`benchmarks.yaml`), suites of the bundled tasks, or your own data.

Each becomes a `Suite`: problems, who grades them, the words around them, and the sampling defaults of the benchmark. Datasets
come from the hub, or with `data_dir` from `data_dir/NAME.jsonl` (or .parquet, .json, .csv) in the same columns.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from pydantic import Field

from dasd.config import BUNDLED, BadInput, DataConfig, EvalConfig, Section, nearest, validate
from dasd.config.core import read_yaml
from dasd.data.cells import text_of
from dasd.data.files import READERS, Number
from dasd.data.problems import load_problems, source_names, task_of
from dasd.data.sources import load_rows
from dasd.tasks import countdown_suites, products_suites
from dasd.tasks.base import AnswerFormat, Problem

SUITES = {"countdown": countdown_suites.SUITES, "products": products_suites.SUITES}  # by task, problems made here
MADE_HERE = {"num_samples": 16, "temperature": 1.0}
SUITE_DEFAULTS = {
    "countdown": MADE_HERE | {"max_completion_length": 128},
    "products": MADE_HERE | {"max_completion_length": 160},  # five products, each with a check, take 130
}
PROMPTS = {
    "math": "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "choice": "{problem}\n\nPlease reason step by step, and put the letter of your choice within \\boxed{}.",
}


@dataclass(frozen=True)
class Suite:
    """Problems that can be sampled and graded.

    `task` grades what stands where `answer_format` says, `prompt` is what is said, with `{problem}` in it, `defaults` are
    settings of EvalConfig that hold where the user set none, `source` says where the problems come from.
    """

    name: str
    task: str
    problems: list[Problem]
    prompt: str = "{problem}"
    defaults: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    answer_format: AnswerFormat = "auto"
    task_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of what is asked, in its order; gold answers may be mended without sampling again."""
        asked = (p.problem if p.prompt is None else json.dumps(p.prompt) for p in self.problems)
        return _digest(self.prompt, *(f"{p.id}\0{text}" for p, text in zip(self.problems, asked, strict=True)))

    def settings(self, config: EvalConfig) -> EvalConfig:
        """`config` with this benchmark's defaults where the user has set nothing."""
        return config.model_copy(update={k: v for k, v in self.defaults.items() if k not in config.model_fields_set})


class BenchmarkColumns(Section):
    """Columns of a benchmark's dataset. Multiple choice has `options` (a list; `answer` is a letter) or `wrong_answers`."""

    problem: str
    answer: str
    solution: str | None = None
    context: str | None = None
    options: str | None = None
    wrong_answers: tuple[str, ...] = ()


class Benchmark(Section):
    """An entry of `benchmarks.yaml`."""

    dataset: str
    revision: str | None = None
    subset: str | None = None
    split: str
    columns: BenchmarkColumns
    task: str = "math"
    num_samples: int = Field(16, gt=0)
    max_completion_length: int = Field(32768, gt=0)
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)

    @property
    def defaults(self) -> dict[str, Any]:
        return self.model_dump(include={"num_samples", "max_completion_length", "temperature", "top_p"})


@cache
def benchmarks() -> dict[str, Benchmark]:
    text = Path(__file__).with_name("benchmarks.yaml").read_text(encoding="utf-8")
    return {name: validate(Benchmark, entry) for name, entry in read_yaml(text).items()}


def benchmark_names() -> list[str]:
    return [*benchmarks(), *(f"{task}/{name}" for task, suites in SUITES.items() for name in suites)]


def choose(patterns: Sequence[str]) -> list[str]:
    """The benchmarks that the patterns (`aime24`, `countdown/*`) name, each once. Raises BadInput naming the nearest."""
    names, chosen = benchmark_names(), []
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise BadInput(f"no benchmark is named {pattern!r}{nearest(pattern, names)} Benchmarks: {', '.join(names)}")
        chosen += [name for name in matching if name not in chosen]
    return chosen


def load_suites(config: EvalConfig) -> list[Suite]:
    """What `config` says is to be evaluated: its benchmarks, or where it names none its `data`. Raises BadInput."""
    names = choose(config.benchmarks)
    suites = [load_suite(name, config.data_dir) for name in names] if names else [data_suite(config.data)]
    return [_first(suite, config.limit) for suite in suites]


def data_suite(data: DataConfig) -> Suite:
    """The problems of a `data` section, asked as they stand."""
    own = task_of(data).name
    name = "+".join(own if name == BUNDLED else name for name in source_names(data))
    return Suite(
        f"{name}:{data.split}",
        data.task,
        load_problems(data),
        source=data.model_dump(mode="json"),
        answer_format=data.answer_format,
        task_settings=data.task_settings,
    )


def load_suite(name: str, data_dir: str | None = None) -> Suite:
    """One benchmark by its full name. Raises BadInput where its data cannot be had or lacks a column."""
    task, _, suite = name.partition("/")
    if task in SUITES:
        return Suite(name, task, SUITES[task][suite](), defaults=SUITE_DEFAULTS[task], source={"dataset": BUNDLED})
    benchmark = benchmarks()[name]
    where = {"dataset": benchmark.dataset, "subset": benchmark.subset, "revision": benchmark.revision}
    if data_dir is not None:
        where = {"dataset": str(_local_file(name, data_dir)), "subset": None, "revision": None}
    data = DataConfig(source=where["dataset"] or "", subset=where["subset"], revision=where["revision"], split=benchmark.split)
    try:
        rows = load_rows(data)
    except BadInput as error:
        remedy = (
            "" if data_dir else f" Without a network, put {name}.jsonl or {name}.parquet into a folder and give --data_dir."
        )
        raise BadInput(f"benchmark {name}: {error}.{remedy}") from None
    _check_columns(name, benchmark.columns, rows.columns)
    problems = [_problem(name, index, row, benchmark.columns) for index, row in enumerate(rows.rows)]
    golds = _digest(*(f"{problem.id}\0{problem.problem}\0{problem.answer}" for problem in problems))
    source = {**where, "split": benchmark.split, "rows": len(problems), "fingerprint": golds}
    return Suite(name, benchmark.task, problems, PROMPTS[benchmark.task], benchmark.defaults, source, "boxed")


def _first(suite: Suite, limit: int | None) -> Suite:
    return replace(suite, problems=suite.problems[:limit])


def _local_file(name: str, data_dir: str) -> Path:
    candidates = [Path(data_dir).expanduser() / f"{name}{suffix}" for suffix in READERS]
    for path in candidates:
        if path.is_file():
            return path
    needed = ", ".join(path.name for path in candidates)
    raise BadInput(f"benchmark {name} is not in --data_dir {data_dir}: put one of {needed} there, or leave out --data_dir")


def _check_columns(name: str, columns: BenchmarkColumns, have: Sequence[str]) -> None:
    wanted = [columns.problem, columns.answer, columns.solution, columns.context, columns.options, *columns.wrong_answers]
    missing = [column for column in wanted if column is not None and column not in have]
    if missing:
        raise BadInput(
            f"benchmark {name} needs a column {missing[0]!r}{nearest(missing[0], have)} The data has: {', '.join(have)}"
        )


def _problem(name: str, index: int, row: Mapping[str, Any], columns: BenchmarkColumns) -> Problem:
    def text(column: str | None) -> str:
        try:
            return "" if column is None else _text(row[column])
        except ValueError as fault:
            raise BadInput(f"benchmark {name}, row {index}: column {column!r} {fault}") from None

    question, answer = text(columns.problem), text(columns.answer)
    if not question or not answer:
        empty = columns.answer if question else columns.problem
        raise BadInput(f"benchmark {name}, row {index}: column {empty!r} is empty; every row needs a problem and an answer")
    parts, solution = [text(columns.context), question], text(columns.solution)
    if columns.options or columns.wrong_answers:
        wrong = [text(column) for column in columns.wrong_answers]
        options, answer = _options(question, answer, row[columns.options] if columns.options else None, wrong)
        parts.append("\n".join(f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)))
    return Problem(id=str(index), problem="\n\n".join(filter(None, parts)), answer=answer, solution=solution or None)


def _options(question: str, answer: str, shown: Any, wrong: Sequence[str]) -> tuple[list[str], str]:
    """Options in the order shown, and the letter of the right one. A right answer in its own column is shuffled among the
    wrong ones, the same way for ever."""
    if shown is not None:
        return [str(option).strip() for option in shown], answer
    options = [answer, *wrong]
    order = random.Random(question).sample(range(len(options)), len(options))
    return [options[i] for i in order], ascii_uppercase[order.index(0)]


def _text(value: Any) -> str:
    """A cell as text: the number 27.0 is 27; a list is joined by commas, without the dollar signs that only mark mathematics.

    Raises ValueError for what has no text.
    """
    if isinstance(value, list | tuple):
        return ", ".join(re.sub(r"(?<!\\)\$", "", _text(item)).strip() for item in value)
    text = (text_of(value) or "").strip()
    return re.sub(r"\.0+$", "", text) if isinstance(value, Number) else text


def _digest(*parts: str) -> str:
    return hashlib.sha256("\1".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
