"""Which step of a sample is the first wrong one? A judge for steps that no checker of equations can see.

A model behind a server that speaks OpenAI's protocol reads a problem and a response in numbered steps. What it said is put in
`judge.jsonl` beside the samples as it comes, so nothing is asked twice and a killed pass goes on; another judge (its model, its
prompt) starts anew. What cannot be read as a verdict is counted apart and never as right or wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dasd.config import BadInput, JudgeConfig, ModelConfig, SamplerConfig
from dasd.evaluation.folder import Evaluation
from dasd.evaluation.samplers.base import Messages, Request, Sampled, SamplingParams, Watch
from dasd.evaluation.samplers.openai import OpenAISampler
from dasd.evaluation.verdicts import VERDICTS, digest, read_verdict, split_steps
from dasd.files import append_lines, read_lines, repair_lines
from dasd.folders import sole_writer
from dasd.progress import track

PROMPT = Path(__file__).parent / "judge_prompt.txt"
Record = dict[str, Any]


class Judge:
    """Called with an evaluation, judges the first `config.samples` samples of each problem. Raises BadInput for settings."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config, path = config, Path(config.prompt) if config.prompt else PROMPT
        try:
            self.prompt = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"judge.prompt {path} cannot be read: {error}") from None
        for name in ("{problem}", "{steps}"):
            if name not in self.prompt:
                raise BadInput(f"judge.prompt {path} must have {name} in it, where that is to stand")
        decides = f"{config.model}\n{config.max_tokens}\n{self.prompt}"
        self.identity = hashlib.sha256(decides.encode()).hexdigest()[:16]
        sampler = SamplerConfig(
            backend="openai",
            base_urls=(config.base_url or "",),
            api_key_env=config.api_key_env,
            concurrency=config.concurrency,
            timeout_s=config.timeout_s,
            retries=config.retries,
            openai_fields_only=True,
        )
        self.server = OpenAISampler(sampler, ModelConfig(path=config.model or ""))

    def __call__(self, evaluation: Evaluation, prompts: Mapping[str, Messages]) -> None:
        path = evaluation.output / VERDICTS
        asked = {problem.id: problem.problem for problem in evaluation.suite.problems}
        with sole_writer(path, "wait for it"):
            repair_lines(path, keep=lambda line: line["judge"] == self.identity)
            done = {(line["problem_id"], line["sample"], line["text"]) for line in read_lines(path)}
            records = [record for record in evaluation.records() if record["sample"] < self.config.samples]
            left = {
                f"{record['problem_id']}/{record['sample']}": record
                for record in records
                if _key(record) not in done and split_steps(record["text"])
            }
            with track(f"Judging {evaluation.suite.name}", len(left)) as advance:

                def finished(request: Request, sampled: Sampled) -> None:
                    append_lines(path, [self._line(left[request.key], sampled.text)])
                    advance()

                requests = [
                    Request(key, self._messages(asked[record["problem_id"]], split_steps(record["text"])), 0)
                    for key, record in left.items()
                ]
                if requests:
                    self.server.sample(requests, SamplingParams(self.config.max_tokens, temperature=0.0), Watch(finished))

    def _messages(self, problem: str, steps: list[str]) -> Messages:
        numbered = "\n\n".join(f"[{number}] {step}" for number, step in enumerate(steps, start=1))
        before, _, after = self.prompt.partition("{steps}")  # one after the other: what a text says is never filled in
        return [
            {"role": "user", "content": before.replace("{problem}", problem) + numbered + after.replace("{problem}", problem)}
        ]

    def _line(self, record: Record, said: str) -> Record:
        steps = len(split_steps(record["text"]))
        first_wrong, error = read_verdict(said, steps)
        name, sample, text = _key(record)
        return {
            "problem_id": name, "sample": sample, "text": text, "judge": self.identity, "model": self.config.model,
            "steps": steps, "first_wrong": first_wrong, "error": error, "said": said,
        }  # fmt: skip


def _key(record: Record) -> tuple[str, int, str]:
    return record["problem_id"], record["sample"], digest(record["text"])
