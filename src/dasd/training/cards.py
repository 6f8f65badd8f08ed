"""What do saved models say of themselves? Cards for a run's checkpoints and final model, and for the trainer used alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from transformers import TrainerCallback

from dasd.assets import BASE_MODELS
from dasd.config import RunConfig, is_bundled
from dasd.credit import without_control
from dasd.report import write_card
from dasd.report.data.inputs import RunFiles, read_run
from dasd.report.data.methods import formula_of, settings_of
from dasd.training.provenance import software


def write_run_card(folder: Path, config: RunConfig, method: Any) -> None:
    """The card of the model in `folder`, from the files of the run that made it."""
    base = config.model.path
    files = read_run(Path(config.output))
    formula = formula_of(without_control(method))
    write_card(folder, files, formula=formula, settings=settings_of(method), base=base, license=license_of(base))


def write_trainer_card(folder: Path, trainer: Any) -> None:
    """The card of a trainer that is used without a run folder: what its arguments say."""
    args, base = trainer.args, trainer.model.config.name_or_path
    adapter = getattr(trainer.model, "peft_config", {}).get("default")
    config = {
        "output": args.output_dir,
        "model": {"path": base},
        "teacher": {"weights": args.teacher_weights, "context": args.context} if trainer.has_teacher else {},
        "method": {"name": args.method, **(args.method_settings or {})},
        "training": {
            "steps": trainer.state.max_steps or args.max_steps,
            "rollouts_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "group_size": args.num_generations,
            "learning_rate": args.learning_rate,
            "loss_type": args.loss_type,
            "lora_rank": getattr(adapter, "r", 0),
        },
    }
    files = RunFiles(config=yaml.safe_dump(config), run={"model": base, "seed": args.seed, **software()})
    write_card(
        folder,
        files,
        formula=formula_of(without_control(trainer.method)),
        settings=settings_of(trainer.method),
        base=base,
        license=license_of(base),
    )


def license_of(base: str) -> str | None:
    """The licence that the base's own card states; None where there is none at hand (no card, no network)."""
    if is_bundled(base) or Path(base).resolve() in BASE_MODELS.values():
        return "apache-2.0"
    path = Path(base) / "README.md"
    if Path(base).is_dir() and not path.exists():
        return None
    try:
        return ModelCard.load(path if path.exists() else base, ignore_metadata_errors=True).data.get("license")
    except Exception:  # no network, no such repository, a card that is none: the licence is not known, nothing else is wrong
        return None


class CardWriter(TrainerCallback):
    """A card for each checkpoint, when it is whole."""

    def __init__(self, config: RunConfig, method: Any) -> None:
        self.config, self.method = config, method

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            write_run_card(folder, self.config, self.method)
