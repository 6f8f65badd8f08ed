"""How does a policy do on problems that it is not trained on, while it trains?

Every `training.eval_steps` steps, and before the first, the policy as it is samples the validation problems with our own
sampler; `validation/step-00010/` holds an evaluation as `dasd eval` writes it, `validation.jsonl` a line for each. The best
step is reported and never chosen: what is trained on depends on nothing here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dasd import processes
from dasd.config import BadInput, EvalConfig, RunConfig
from dasd.evaluation.benchmarks import data_suite
from dasd.evaluation.folder import Evaluation, Shard
from dasd.evaluation.runner import run
from dasd.evaluation.samplers.transformers import TransformersSampler
from dasd.files import append_lines, read_lines, repair_lines

FOLDER, LINES = "validation", "validation.jsonl"


class Validation(TrainerCallback):
    """Evaluates the model of a trainer while it trains. Loads the problems at once: raises BadInput where there are none.

    Where several processes train, each samples its share; a model that is sharded over them is refused.
    """

    def __init__(self, config: RunConfig, trainer: Any) -> None:
        zero = trainer.accelerator.state.deepspeed_plugin
        if trainer.is_fsdp_enabled or (zero is not None and zero.zero_stage == 3):
            raise BadInput(
                "training.eval_steps samples from the model where it is, and here it is sharded over processes: set "
                "training.eval_steps: 0 and evaluate the checkpoints with dasd eval, or train with DDP or ZeRO-2"
            )
        self.config, self.trainer = config, trainer
        self.output, self.every = Path(config.output), config.training.eval_steps
        self.suite = data_suite(config.validation_data())

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forgets what comes after the step that is gone on from, and evaluates the base model."""
        if processes.is_main():
            repair_lines(self.output / LINES, keep=lambda record: record["step"] <= state.global_step)
            for folder in (self.output / FOLDER).glob("step-*"):
                if int(folder.name.rpartition("-")[2]) > state.global_step:
                    shutil.rmtree(folder)
        self.trainer.accelerator.wait_for_everyone()
        if state.global_step == 0:
            self._evaluate(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._evaluate(args, state, control)

    def _evaluate(self, args: Any, state: Any, control: Any) -> None:
        step = state.global_step
        if any(record["step"] == step for record in read_lines(self.output / LINES)):
            return
        evaluation = Evaluation(self.suite, self._settings(step), self.output / FOLDER / f"step-{step:05}")
        accelerator = self.trainer.accelerator
        model = accelerator.unwrap_model(self.trainer.model)
        training = model.training
        model.eval()
        try:
            sampler = TransformersSampler(
                model, self.trainer.tokenizer, self.config.validation.batch_size, self.config.model.chat_template_kwargs
            )
            share = Shard(processes.rank() + 1, processes.count())
            with accelerator.autocast():
                finished = run(evaluation, lambda: sampler, f"Validation at step {step}", share)
            accelerator.wait_for_everyone()
            finished = finished or run(evaluation, lambda: sampler, "", share)  # the others' samples are there now
        finally:
            model.train(training)
        assert finished is not None
        intervals = finished.summary["ci95"]
        figures = {name: finished.summary[name] for name in intervals}
        if processes.is_main():
            append_lines(self.output / LINES, [{"step": step, **figures, "ci95": intervals}])
        for callback in self.trainer.callback_handler.callbacks:  # not trainer.log, which would take the step's own sums
            callback.on_log(args, state, control, logs={f"validation/{name}": value for name, value in figures.items()})

    def _settings(self, step: int) -> EvalConfig:
        training, ours = self.config.training, self.config.validation
        return EvalConfig(
            model=self.config.model.model_copy(update={"path": f"{self.config.output}, step {step}"}),
            data=self.config.validation_data(),
            num_samples=ours.num_samples,
            temperature=training.temperature,
            max_completion_length=training.max_completion_length,
            seed=ours.seed,
        )
