"""One scoring pass over an evaluation's samples: the model's own entropy at each token, whoever sampled them.

Plain transformers, by the token ids on file; completions of like length share a pass, padded on the right. What is scored is on
file at once (`evaluation.entropies`), so a killed pass goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from dasd.analysis.scores import score_states
from dasd.config import BadInput, ModelConfig
from dasd.evaluation.entropies import ENTROPIES, encode, read_entropies
from dasd.evaluation.folder import Evaluation
from dasd.evaluation.samplers.base import Messages
from dasd.files import append_lines, repair_lines
from dasd.folders import sole_writer
from dasd.models import load_model
from dasd.progress import track
from dasd.prompts import tokenize_prompt

TOKENS_AT_ONCE = 8192
Record = dict[str, Any]


class EntropyPass:
    """Called with an evaluation and its prompts; a model is loaded when something is missing, and kept for the next suite."""

    def __init__(self) -> None:
        self.loaded: tuple[ModelConfig, Any, Any] | None = None

    def __call__(self, evaluation: Evaluation, prompts: Mapping[str, Messages]) -> None:
        """Raises BadInput where token ids are not on file, or are not this model's."""
        path, records = evaluation.output / ENTROPIES, evaluation.records()
        without = sum(record["token_ids"] is None for record in records)
        if without:
            raise BadInput(
                f"--entropies: {without} of {len(records)} samples in {evaluation.output} have no token ids, and text is never "
                "encoded again: sample with --sampler.return_token_ids true, from a server that gives them"
            )
        with sole_writer(path, "wait for it"):
            lengths = {(record["problem_id"], record["sample"]): len(record["token_ids"]) for record in records}
            repair_lines(path, keep=lambda line: (line["problem_id"], line["sample"]) in lengths)
            done = {key for key, values in read_entropies(evaluation.output).items() if len(values) == lengths.get(key)}
            left = [record for record in records if (record["problem_id"], record["sample"]) not in done]
            if not left:
                return
            model, tokenizer = self._load(evaluation.config.model)
            vocabulary = model.get_output_embeddings().weight.shape[0]
            beyond = max(max(record["token_ids"], default=0) for record in left)
            if beyond >= vocabulary:
                raise BadInput(
                    f"--entropies: {evaluation.output} holds the token id {beyond}, and {evaluation.config.model.path} has "
                    f"{vocabulary} tokens: entropies are those of the model that sampled"
                )
            template = evaluation.config.model.chat_template_kwargs
            asked = {name: tokenize_prompt(tokenizer, prompt, **template) for name, prompt in prompts.items()}
            with track(f"Entropies, {evaluation.suite.name}", len(left)) as advance:
                for batch in _batches(left, {name: len(ids) for name, ids in asked.items()}):
                    rows = [(asked[record["problem_id"]], record["token_ids"]) for record in batch]
                    scored = entropies_of(model, rows, evaluation.config.temperature or 1.0)
                    append_lines(path, [_line(*each) for each in zip(batch, scored, strict=True)])
                    advance(len(batch))

    def _load(self, config: ModelConfig) -> tuple[Any, Any]:
        if self.loaded is None or self.loaded[0] != config:
            self.loaded = None  # before another is loaded
            model, tokenizer = load_model(config)
            self.loaded = config, model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
        return self.loaded[1:]


@torch.inference_mode()
def entropies_of(model: Any, rows: Sequence[tuple[list[int], list[int]]], temperature: float = 1.0) -> list[list[float]]:
    """Entropies in nats, one a token, of completions after prompts, both as token ids."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(rows):  # right padding: no token sees what stands behind it
        size = len(prompt) + len(completion)
        ids[row, :size] = torch.tensor([*prompt, *completion], device=model.device)
        mask[row, :size] = 1
    states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    found = []
    for row, (prompt, completion) in enumerate(rows):
        of_completion = states[row, len(prompt) - 1 : len(prompt) + len(completion) - 1]
        found.append(score_states(model, of_completion, completion, temperature)[1].tolist() if completion else [])
    return found


def _batches(records: Sequence[Record], prompts: Mapping[str, int]) -> Iterator[list[Record]]:
    """Records of like length, of at most TOKENS_AT_ONCE tokens with padding, the longest first: what memory does not allow
    shows at once."""

    def size(record: Record) -> int:
        return prompts[record["problem_id"]] + len(record["token_ids"])

    batch: list[Record] = []
    for record in sorted(records, key=size, reverse=True):
        if batch and size(batch[0]) * (len(batch) + 1) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def _line(record: Record, entropies: Sequence[float]) -> Record:
    return {"problem_id": record["problem_id"], "sample": record["sample"], "entropies": encode(entropies)}
