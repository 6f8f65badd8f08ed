"""`dasd eval`: samples, grades, figures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dasd.commands.base import Commands, declare, path
from dasd.config import BadInput, EvalConfig, load_config


def add(commands: Commands) -> None:
    child = declare(commands, "eval", run, "sample a model on test problems, grade, summarise", EvalConfig, figures=True)
    child.add_argument("model", nargs="+", help="'bundled', a model folder, a run folder of dasd train, or a hub id")
    child.add_argument("--config", type=path, help="YAML file with settings")
    child.add_argument("--output", type=path, help="folder: OUTPUT/MODEL/BENCHMARK/samples.jsonl (default: runs/eval)")
    child.add_argument("--shard", default="1/1", metavar="I/N", help="sample this part only; the last one to end summarises")
    child.add_argument(
        "--entropies", action="store_true", help="one more pass over the samples: the model's entropy at every token"
    )
    child.add_argument("--regrade", action="store_true", help="grade the samples on file again; no model is loaded")


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    config = load_config(EvalConfig, known.config, overrides)
    from dasd.evaluation.compare import one_run
    from dasd.evaluation.examples import examples
    from dasd.evaluation.folder import Shard, model_slug
    from dasd.evaluation.readers import read_run
    from dasd.evaluation.runner import Pass, run_models
    from dasd.evaluation.tables import overview_table, summary_table
    from dasd.progress import console, print_table

    # One model on one dataset may write straight into the folder it is given.
    single = known.output is not None and len(known.model) == 1 and not config.benchmarks
    output = known.output or Path("runs/eval")
    folders = {model: output if single else output / model_slug(model) for model in known.model}
    if known.regrade and known.entropies:
        raise BadInput("--regrade loads no model, and --entropies needs one: give one of them at a time")
    if known.regrade and config.judge.base_url is not None:
        raise BadInput("--regrade asks no judge: give --judge.base_url without --regrade, and the samples on file are judged")
    if known.regrade and Shard.parse(known.shard).count > 1:
        raise BadInput("--regrade grades all samples on file, at once: leave out --shard")
    if known.entropies and config.sampler.backend == "openai" and not config.sampler.return_token_ids:
        raise BadInput(
            "--entropies needs token ids, for text is never encoded again: --sampler.return_token_ids true, from a server that "
            "gives them (vLLM's does)"
        )
    passes: list[Pass] = []
    if known.entropies:
        from dasd.analysis.entropies import EntropyPass

        passes.append(EntropyPass())
    if config.judge.base_url is not None:
        from dasd.evaluation.judge import Judge

        passes.append(Judge(config.judge))
    results = run_models(config, known.model, lambda model: folders[model], Shard.parse(known.shard), known.regrade, passes)
    finished = {model: result for model, result in results.items() if result is not None}
    if len(finished) < len(results):
        console.print("Not all samples are there yet: the summary is written by the shard that ends last.")
    elif config.benchmarks:
        for model, result in finished.items():
            print_table(overview_table(model, result))
            if len(result["benchmarks"]) > 1:
                from dasd.report import build_comparison  # a second for drawing: not for a single benchmark

                page = build_comparison(one_run(result), examples(read_run(folders[model])), folders[model] / "eval.html")
                console.print(f"Page: {page}", soft_wrap=True)
    else:
        for model, result in finished.items():
            for summary in result["benchmarks"].values():
                print_table(summary_table(model, summary))
    console.print(f"Samples and summary: {output}", soft_wrap=True)
    return results
