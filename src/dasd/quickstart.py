"""The main job, end to end: evaluate the base, train with the method and with GRPO, evaluate both, report. `dasd quickstart`.

Each part goes on where it was if the job is killed and started again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from dasd.analysis.token_credit import TokenReader, choose_rollouts
from dasd.arms import LOG, beside
from dasd.config import EvalConfig, MethodConfig, RunConfig, SamplerConfig, ValidationConfig
from dasd.config.splits import of_another_split
from dasd.credit import make_method
from dasd.evaluation.benchmarks import data_suite
from dasd.evaluation.runner import run_evaluation, sound
from dasd.evaluation.summary import compare, metric_sums, summarize
from dasd.files import read_json, read_lines, write_json, write_text
from dasd.folders import claim
from dasd.models import load_model
from dasd.progress import console, print_table
from dasd.report import build_report
from dasd.report.data.results import result_rows, rival_rows
from dasd.tasks.base import Problem
from dasd.training.run import METRICS, Result, prepare, privileged_context, train

TEST_PROBLEMS = 200
NUM_SAMPLES = 16
RIVAL = "grpo"  # what the method is compared with: the same run without a teacher
SHOWN = (
    "avg_at_16", "pass_at_16", "step_accuracy", "epistemic_per_response", "backtracks_per_response", "mean_length", "truncated",
)  # fmt: skip


def quickstart(config: RunConfig) -> dict[str, Any]:
    """Runs the job in `config.output` and returns what it writes to `summary.json`. A finished job is only shown again."""
    output = Path(config.output)
    summary_path = output / "summary.json"
    claim(output, config, write=False)
    if summary_path.exists():
        summary = read_json(summary_path)
        console.print(
            f"{output} is finished: shown again. For a fresh run give another --output, or delete it.", soft_wrap=True
        )
    else:
        summary = _run(config, output)
        write_json(summary_path, summary)
    report = build_report(output)
    show(summary)
    final = output / "checkpoints" / "final"
    console.print(f"Report: {report}\nTrained model: {final}\nTook {summary['wall_s']:.0f} s.", soft_wrap=True)
    return summary


def _run(config: RunConfig, output: Path) -> dict[str, Any]:
    # Whatever is wrong is said before anything is written.
    place, whose = ValidationConfig(split="test", limit=TEST_PROBLEMS), "dasd quickstart evaluates on the test split"
    test = of_another_split(config.data, place, "data", whose, "train with `dasd train` and evaluate with `dasd eval`")
    sound(data_suite(test), skip_unsound=False)
    prepare(config)
    claim(output, config)
    clock = _Clock(output / "seconds.json")
    evaluation = EvalConfig(
        model=config.model,
        data=test,
        num_samples=NUM_SAMPLES,
        temperature=config.training.temperature,
        max_completion_length=config.training.max_completion_length,
        sampler=SamplerConfig(batch_size=640),
    )
    problems, before = run_evaluation(evaluation, output / "before", "Evaluating the base model")
    clock.save()
    rival = _rival(config)
    if rival is None:
        after, against = train_and_evaluate(config, evaluation), None
    else:
        console.print(f"{RIVAL} trains beside it, on the same problems ({rival.output}/{LOG}).", soft_wrap=True)
        with beside(train_and_evaluate, rival, evaluation, folder=Path(rival.output)):
            after = train_and_evaluate(config, evaluation)
        against = _evaluate(rival, evaluation)  # reads what is on file
    clock.save()
    _write_rollouts(output, config, problems, before)
    ids = [problem.id for problem in problems]
    base, ours = (metric_sums(ids, records, NUM_SAMPLES) for records in (before, after))
    summary = {
        "method": config.method.name,
        "num_problems": len(problems),
        "num_samples": NUM_SAMPLES,
        "before": summarize(base, NUM_SAMPLES),
        "after": summarize(ours, NUM_SAMPLES),
        "difference": compare(base, ours),
        "teacher_share": _teacher_share(output),
    }
    if against is not None:
        theirs = metric_sums(ids, against, NUM_SAMPLES)
        summary["rival"] = {"method": RIVAL, "after": summarize(theirs, NUM_SAMPLES), "difference": compare(theirs, ours)}
    return {**summary, "wall_s": round(clock.save(), 1)}


def train_and_evaluate(config: RunConfig, evaluation: EvalConfig) -> list[dict[str, Any]]:
    """The samples of the trained model; what is on file of either is not done again."""
    if Result.read(Path(config.output)) is None:
        train(config)
    return _evaluate(config, evaluation)


def _evaluate(config: RunConfig, evaluation: EvalConfig) -> list[dict[str, Any]]:
    final = Path(config.output) / "checkpoints" / "final"
    trained = evaluation.model_copy(
        update={"model": evaluation.model.model_copy(update={"path": str(final), "revision": None})}
    )
    return run_evaluation(trained, Path(config.output) / "after", f"Evaluating {config.method.name}")[1]


def _rival(config: RunConfig) -> RunConfig | None:
    """The same run with the verifier alone; None where that is what is run."""
    if config.method.name == RIVAL:
        return None
    return config.model_copy(update={"output": f"{config.output}/{RIVAL}", "method": MethodConfig(name=RIVAL)})


def _teacher_share(output: Path) -> float | None:
    """The teacher's share of all credit, mean over the steps; None for a method without teacher."""
    shares = [line["credit/teacher"] for line in read_lines(output / METRICS) if line.get("credit/teacher") is not None]
    return fmean(shares) if shares else None


def show(summary: dict[str, Any]) -> None:
    """The table at the end."""
    rows = {row.name: row for row in result_rows(summary)}
    rival, name = summary.get("rival"), summary["method"]
    against = {row.name: row for row in rival_rows(summary)}
    table = Table(title=f"{summary['num_problems']} test problems, {summary['num_samples']} samples each; 95 % intervals")
    headings = ["", "before", name, f"{name} \N{MINUS SIGN} before"]
    for heading in headings + ([rival["method"], f"{name} \N{MINUS SIGN} {rival['method']}"] if rival else []):
        table.add_column(heading, justify="left" if not heading else "right")
    for figure in SHOWN:
        row = rows[figure]
        cells = [row.label, row.plain(0), row.plain(1), f"{row.change()}  {row.change_interval()}"]
        if figure in against:
            versus = against[figure]
            cells += [versus.plain(0), f"{versus.change()}  {versus.change_interval()}"]
        table.add_row(*cells)
    if summary.get("teacher_share") is not None:
        share = f"{100 * summary['teacher_share']:.1f} %"
        table.add_row("Teacher's share of credit", "", share, "", *(["0 %", ""] if rival else []))
    print_table(table)
    console.print("; ".join(f"{rows[figure].label}: {rows[figure].meaning}" for figure in SHOWN) + ".", style="dim")


def _write_rollouts(output: Path, config: RunConfig, problems: list[Problem], records: list[dict[str, Any]]) -> None:
    """Three rollouts of the base model as the method saw them at the first step."""
    model, tokenizer = load_model(config.model)
    method = make_method(config.method.name, config.method.settings)
    context = privileged_context(config)
    by_id = {problem.id: problem for problem in problems}
    reader = TokenReader(
        model, tokenizer, method, context, problems, config.training.temperature,
        template=config.model.chat_template_kwargs, teacher_template=config.teacher.chat_template_kwargs,
    )  # fmt: skip
    for record, advantage in choose_rollouts(records):
        group = [other for other in records if other["problem_id"] == record["problem_id"]]
        others = [other for other in group if other["text"] != record["text"]]
        peers = [other["text"] for other in others if other["status"] == "correct"]
        failed = [other["text"] for other in others if other["status"] in ("incorrect", "no_answer")]
        reader.read(record, by_id[record["problem_id"]], advantage, peers, failed)
    note = "Samples of the base model on test problems, with the credit the method gives them before the first step."
    write_text(output / "rollouts.json", json.dumps(reader.document(note), ensure_ascii=False))


class _Clock:
    """Seconds of work, over kills and restarts."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.monotonic()
        try:
            self.earlier = float(json.loads(path.read_text())["seconds"])
        except (OSError, ValueError, KeyError):
            self.earlier = 0.0

    def save(self) -> float:
        seconds = self.earlier + time.monotonic() - self.started
        write_json(self.path, {"seconds": round(seconds, 1)})
        return seconds
