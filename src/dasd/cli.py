"""The `dasd` command. Heavy imports stay inside the commands, so that help and typing errors answer at once.

Exit codes: 0 done, 1 the run failed, 2 bad input. Bad input gets one message and no traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from dasd import processes
from dasd.assets import QUICKSTART
from dasd.config import BadInput, EvalConfig, ProbeConfig, RunConfig, RunFailed, TokensConfig, load_config, nearest

SECONDS_FOR_MAIN = 5.0  # other processes wait this long for process 0 to fail of the same cause, which it then says


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    known, overrides = parser.parse_known_args(arguments)
    if not hasattr(known, "command"):
        parser.print_help()
        return 2
    _quiet_libraries()
    try:
        if processes.count() > 1 and known.command is not _train:
            raise BadInput(
                f"a launcher started {processes.count()} processes, and only dasd train runs on several: leave it out"
            )
        return known.command(known, overrides) or 0
    except BadInput as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(f"{error}; give the same command again to go on from where it was", 1)
    except KeyboardInterrupt:
        return _fail("stopped; give the same command again to go on from where it was", 1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return _fail(f"{error.strerror}: {error.filename or ''}; what was written before is intact", 1)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dasd",
        description="Direction-adaptive self-distillation for reasoning models.",
        epilog="Any setting can be given as --dotted.key VALUE, e.g. dasd train config.yaml --method.beta 0.2",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, command: Callable, help: str, settings: type[BaseModel] | None = None) -> argparse.ArgumentParser:
        epilog = f"settings, given as --key VALUE:\n{_list_settings(settings)}" if settings else None
        child = commands.add_parser(
            name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        child.set_defaults(command=command)
        return child

    add("quickstart", _quickstart, "evaluate the bundled model, train it, evaluate again, report", RunConfig)
    child = add("train", _train, "train as a YAML config says", RunConfig)
    child.add_argument("config", type=Path, help="YAML file")
    _add_dry_run(child)
    child = add("eval", _evaluate, "sample a model on test problems, grade, summarise", EvalConfig)
    child.add_argument("model", nargs="+", help="'bundled', a model folder, or a hub id")
    child.add_argument("--config", type=Path, help="YAML file with settings")
    child.add_argument("--output", type=Path, help="folder: OUTPUT/MODEL/BENCHMARK/samples.jsonl (default: runs/eval)")
    child.add_argument("--shard", default="1/1", metavar="I/N", help="sample this part only; the last one to end summarises")
    child.add_argument("--regrade", action="store_true", help="grade the samples on file again; no model is loaded")
    child = add("compare", _compare, "compare two evaluated runs, problem by problem")
    child.add_argument("run_a", type=Path, help="folder that dasd eval wrote for one model")
    child.add_argument("run_b", type=Path, help="another one, on the same benchmarks")
    child.add_argument(
        "--output", type=Path, default=Path("runs/compare"), help="folder for comparison.html, .csv, summary.json"
    )
    child = add(
        "probe", _probe, "where would this teacher help this student? an intervention study before training", ProbeConfig
    )
    child.add_argument("model", help="'bundled', a model folder, or a hub id")
    child.add_argument("--config", type=Path, help="YAML file with the same settings")
    child.add_argument(
        "--output", type=Path, help="folder for probe.jsonl, summary.json and probe.html (default: runs/probe/MODEL)"
    )
    child = add("tokens", _tokens, "see what the teacher does to every token of some rollouts, as a page", TokensConfig)
    child.add_argument("source", help="a run folder of dasd train or quickstart, 'bundled', a model folder, or a hub id")
    child.add_argument("--checkpoint", choices=["base", "final"], help="of a run: which model (default: final if there)")
    child.add_argument(
        "--output", type=Path, help="folder for rollouts.json and tokens.html (default: the run, or runs/tokens/MODEL)"
    )
    child = add("merge", _merge, "merge a trained LoRA adapter into its base: a plain model")
    child.add_argument("source", type=Path, help="a run folder of dasd train, one of its checkpoints, or any adapter folder")
    child.add_argument("--output", type=Path, required=True, help="folder of the merged model, new or empty")
    child = add("report", _report, "write report.html for a run folder")
    child.add_argument("run", type=Path, help="run folder")
    child = add("doctor", _doctor, "check environment, config and data before a run", RunConfig)
    child.add_argument("config", type=Path, nargs="?", help="YAML file; without one, the quickstart's")
    return parser


def _add_dry_run(child: argparse.ArgumentParser) -> None:
    child.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="check the settings and estimate memory; writes nothing"
    )
    plan = child.add_argument_group("with --dry-run", "the GPUs it is planned for, which need not be here")
    plan.add_argument("--gpu_memory", type=float, metavar="GIB", help="of one GPU (default: this machine's, if it has one)")
    plan.add_argument("--processes", type=int, help="GPUs that train, one process each (default: 1)")
    plan.add_argument("--sharding", choices=["none", "zero2", "zero3", "fsdp2"], help="how they share a model (default: none)")
    plan.add_argument("--prompt_length", type=int, metavar="TOKENS", help="of the longest prompt (default: 512)")


def _quickstart(known: argparse.Namespace, overrides: list[str]) -> None:
    config = load_config(RunConfig, QUICKSTART, overrides)
    from dasd.quickstart import quickstart

    quickstart(config)


def _train(known: argparse.Namespace, overrides: list[str]) -> int | None:
    config = load_config(RunConfig, known.config, overrides)
    names = ("gpu_memory", "processes", "sharding", "prompt_length")
    planned = {name: value for name in names if (value := getattr(known, name)) is not None}
    if known.dry_run:
        from dasd.training.dry_run import Hardware, dry_run

        return dry_run(config, Hardware(**planned))
    if planned:
        raise BadInput(f"--{next(iter(planned))} belongs to --dry-run; a run takes the GPUs that accelerate launch gives it")
    from dasd.progress import console
    from dasd.report import build_report
    from dasd.training.run import train

    final = train(config)
    if processes.is_main():
        console.print(f"Trained model: {final}\nReport: {build_report(Path(config.output))}", soft_wrap=True)
    return None


def _evaluate(known: argparse.Namespace, overrides: list[str]) -> None:
    config = load_config(EvalConfig, known.config, overrides)
    from dasd.evaluation.compare import one_run, read_run
    from dasd.evaluation.examples import examples
    from dasd.evaluation.folder import Shard, model_slug
    from dasd.evaluation.runner import run_models
    from dasd.evaluation.tables import overview_table, summary_table
    from dasd.progress import console

    # One model on one dataset may write straight into the folder it is given.
    single = known.output is not None and len(known.model) == 1 and not config.benchmarks
    output = known.output or Path("runs/eval")
    folders = {model: output if single else output / model_slug(model) for model in known.model}
    results = run_models(config, known.model, lambda model: folders[model], Shard.parse(known.shard), known.regrade)
    finished = {model: result for model, result in results.items() if result is not None}
    if len(finished) < len(results):
        console.print("Not all samples are there yet: the summary is written by the shard that ends last.")
    elif config.benchmarks:
        for model, result in finished.items():
            console.print(overview_table(model, result))
            if len(result["benchmarks"]) > 1:
                from dasd.report import build_comparison  # a second for drawing: not for a single benchmark

                page = build_comparison(one_run(result), examples(read_run(folders[model])), folders[model] / "eval.html")
                console.print(f"Page: {page}", soft_wrap=True)
    else:
        for model, result in finished.items():
            for summary in result["benchmarks"].values():
                console.print(summary_table(model, summary))
    console.print(f"Samples and summary: {output}", soft_wrap=True)


def _compare(known: argparse.Namespace, overrides: list[str]) -> None:
    _no_overrides(overrides)
    from dasd.evaluation.compare import as_csv, compare_runs, read_run
    from dasd.evaluation.examples import examples
    from dasd.evaluation.tables import comparison_tables
    from dasd.files import write_json, write_text
    from dasd.progress import console
    from dasd.report import build_comparison

    run_a, run_b = read_run(known.run_a), read_run(known.run_b)
    result = compare_runs(run_a, run_b)
    write_json(known.output / "summary.json", result)
    write_text(known.output / "comparison.csv", as_csv(result))
    page = build_comparison(result, examples(run_a, run_b), known.output / "comparison.html")
    for side in ("a", "b"):
        console.print(f"{side.upper()}: {result[side]['model']} ({result[side]['path']})", soft_wrap=True)
    for table in comparison_tables(result):
        console.print(table)
    for entry in result["benchmarks"]:
        for setting, values in entry["settings_differ"].items():
            console.print(f"{entry['name']}: {setting} differs, {values[0]} and {values[1]}", style="yellow", soft_wrap=True)
    console.print(f"Page: {page}\nFigures: {known.output}/summary.json, {known.output}/comparison.csv", soft_wrap=True)


def _probe(known: argparse.Namespace, overrides: list[str]) -> None:
    config = load_config(ProbeConfig, known.config, ["--model.path", known.model, *overrides])
    from dasd.analysis.probe import run_probe
    from dasd.analysis.probe_summary import probe_tables, summarize_probe
    from dasd.evaluation.folder import model_slug
    from dasd.files import write_json
    from dasd.progress import console
    from dasd.report import build_probe_page

    output = known.output or Path("runs/probe") / model_slug(known.model)
    summary = summarize_probe(run_probe(config, output), config.seed)
    write_json(output / "summary.json", summary)
    page = build_probe_page(output)
    for table in probe_tables(summary):
        console.print(table)
    for context, found in summary.items():
        console.print(f"\n{context}", style="bold")
        console.print("\n".join(found["verdict"]), soft_wrap=True)
    console.print(f"\nPage: {page}", soft_wrap=True)


def _tokens(known: argparse.Namespace, overrides: list[str]) -> None:
    from dasd.analysis.token_map import config_of_run, is_run, read_tokens
    from dasd.evaluation.folder import model_slug
    from dasd.files import write_text
    from dasd.progress import console
    from dasd.report import build_token_map

    source, base = Path(known.source), None
    if is_run(source):
        config, base = config_of_run(source, known.checkpoint, overrides)
    elif known.checkpoint:
        raise BadInput(f"--checkpoint is of a run folder, and {source} has no config.yaml of a run: leave it out")
    else:
        config = load_config(TokensConfig, None, ["--model.path", known.source, *overrides])
    output = known.output or (source if base else Path("runs/tokens") / model_slug(known.source))
    write_text(output / "rollouts.json", json.dumps(read_tokens(config, base), ensure_ascii=False))
    console.print(f"Token map: {build_token_map(output)}", soft_wrap=True)


def _merge(known: argparse.Namespace, overrides: list[str]) -> None:
    _no_overrides(overrides)
    from dasd.merge import merge
    from dasd.progress import console

    console.print(f"Merged model: {merge(known.source, known.output)}", soft_wrap=True)


def _report(known: argparse.Namespace, overrides: list[str]) -> None:
    _no_overrides(overrides)
    from dasd.progress import console
    from dasd.report import build_report

    try:
        path = build_report(known.run)
    except ValueError as error:
        raise BadInput(str(error)) from None
    console.print(f"Report: {path}", soft_wrap=True)


def _doctor(known: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(RunConfig, known.config or QUICKSTART, overrides)
    from dasd.doctor import examine

    return examine(config)


def _no_overrides(overrides: list[str]) -> None:
    if overrides:
        raise BadInput(f"unexpected argument {overrides[0]!r}")


def _list_settings(section: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> str:
    lines = []
    for name, field in section.model_fields.items():
        inner, default = field.annotation, getattr(defaults, name, field.default)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            lines.append(_list_settings(inner, f"{prefix}{name}.", default))
            continue
        choices = f" ({', '.join(map(str, get_args(inner)))})" if str(inner).startswith("typing.Literal") else ""
        lines.append(f"  --{prefix + name:<34} {field.description}{choices} [{default}]")
    return "\n".join(lines)


def _quiet_libraries() -> None:
    """Our progress and warnings are what a user should see, not the libraries' bars and notices."""
    import logging
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(trl|transformers|accelerate|datasets|torch|peft)\b")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it counts every retry
    logging.getLogger("dasd").setLevel(logging.INFO if processes.is_main() else logging.ERROR)


def _fail(message: str, code: int) -> int:
    """Says once why a run ends: what stops one process mostly stops all, and the launcher ends the others with the first."""
    if processes.is_main():
        print(f"dasd: {message}", file=sys.stderr)
    else:
        time.sleep(SECONDS_FOR_MAIN)  # ended here where process 0 fails too
        print(f"dasd (process {processes.rank()}): {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Names the nearest command for a misspelt one."""

    def error(self, message: str) -> Any:
        if "invalid choice" in message and "'" in message:
            word = message.split("'")[1]
            names = ["quickstart", "train", "eval", "compare", "probe", "tokens", "merge", "report", "doctor"]
            message = f"unknown command {word!r}{nearest(word, names)} Commands: {', '.join(names)}"
        sys.exit(_fail(message, 2))


if __name__ == "__main__":
    main()
