"""`dasd tokens`: rollouts token by token, as a page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dasd.commands.base import Commands, declare, path
from dasd.config import BadInput, TokensConfig, load_config
from dasd.trained import as_trained, is_run


def add(commands: Commands) -> None:
    child = declare(
        commands, "tokens", run, "see what the teacher does to every token of some rollouts, as a page", TokensConfig
    )
    child.add_argument("source", help="a run folder of dasd train or quickstart, 'bundled', a model folder, or a hub id")
    child.add_argument("--checkpoint", choices=["base", "final"], help="of a run: which model (default: final if there)")
    child.add_argument(
        "--output", type=path, help="folder for rollouts.json and tokens.html (default: RUN/tokens, or runs/tokens/MODEL)"
    )


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    from dasd.analysis.token_map import config_of_run, read_tokens
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
        config = as_trained(load_config(TokensConfig, None, ["--model.path", known.source, *overrides]))
    output = known.output or (source / "tokens" if base else Path("runs/tokens") / model_slug(known.source))
    write_text(output / "rollouts.json", json.dumps(read_tokens(config, base), ensure_ascii=False))
    console.print(f"Token map: {build_token_map(output)}", soft_wrap=True)
