"""Can vLLM sample this run's rollouts? Asked before anything is loaded; TRL asks minutes later, and in other words. And what
does vLLM have to know that TRL does not tell it?

Settings are TRL's own, under `training.trl`: `use_vllm`, `vllm_mode`, `vllm_gpu_memory_utilization` and so on.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from trl import GRPOConfig
from trl.generation import vllm_generation
from trl.import_utils import is_vllm_available

from dasd import processes
from dasd.config import BadInput, nearest

logger = logging.getLogger("dasd")
MODES = ("colocate", "server")
CORRECTIONS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
SECONDS_BETWEEN_ATTEMPTS = 2.0
# TRL's own command: the server must take new weights, and give log-probs as they were sampled from.
SERVE = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs --max-logprobs -1"
)


def check_vllm(arguments: GRPOConfig) -> None:
    """Raises BadInput where `use_vllm` is set and vLLM, its settings or its server are not as they must be."""
    if not arguments.use_vllm:
        return
    check_vllm_settings(arguments)
    refuse_cpu(arguments)
    _check_installed()
    if arguments.vllm_mode == "server":
        _check_server(server_url(arguments), arguments.vllm_server_timeout)


def check_vllm_settings(arguments: GRPOConfig) -> None:
    """What can be said of the settings without vLLM at hand. Raises BadInput."""
    choices = {"vllm_mode": MODES, "vllm_importance_sampling_mode": CORRECTIONS}
    for name, known in choices.items():
        if (value := getattr(arguments, name)) not in known:
            raise BadInput(f"training.trl.{name} must be one of {', '.join(known)}, got {value!r}{nearest(str(value), known)}")
    share, together = arguments.vllm_gpu_memory_utilization, arguments.vllm_tensor_parallel_size
    if not 0 < share < 1:
        raise BadInput(
            f"training.trl.vllm_gpu_memory_utilization is the share of a GPU that vLLM takes, between 0 and 1, got {share}"
        )
    if arguments.vllm_mode == "colocate" and arguments.world_size % together:
        raise BadInput(
            f"training.trl.vllm_tensor_parallel_size ({together}) must divide the number of processes "
            f"({arguments.world_size}): start a multiple of {together} with accelerate launch, or set it to 1"
        )


def refuse_cpu(arguments: GRPOConfig) -> None:
    """Raises BadInput where the trainer's device cannot hand its weights to vLLM."""
    device = arguments.device.type
    if arguments.vllm_mode == "server" and device != "cuda":
        raise BadInput(
            f"training.trl.vllm_mode server needs an NVIDIA GPU in the trainer, which is on {device}, since weights travel to "
            "the server over NCCL: leave use_vllm out and transformers samples the rollouts"
        )
    if device == "cpu":
        raise BadInput(
            "training.trl.use_vllm needs a GPU, since vLLM on CPUs packs its weights and takes no new ones after an update: "
            "leave it out and transformers samples the rollouts"
        )


def server_url(arguments: GRPOConfig) -> str:
    """Where TRL looks for the server."""
    url = arguments.vllm_server_base_url or f"http://{arguments.vllm_server_host}:{arguments.vllm_server_port}"
    return url.rstrip("/")


def _check_installed() -> None:
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        available = is_vllm_available()
    if not available:
        raise BadInput(
            "training.trl.use_vllm is set and vLLM is not installed: pip install 'vllm>=0.22,<0.32', or leave use_vllm out and "
            "transformers samples the rollouts"
        )
    unsupported = [str(note.message) for note in notes if "supports vLLM versions" in str(note.message)]
    if unsupported:
        raise BadInput(f"{unsupported[0].split(' We recommend')[0]} Install one of these: pip install 'vllm>=0.22,<0.32'")


def _check_server(url: str, timeout_s: float) -> None:
    """Waits for the server as long as TRL would, on the first process; it may have been started together with the run."""
    if not processes.is_main():
        return
    deadline = time.monotonic() + timeout_s
    while (reason := _unreachable(f"{url}/health")) is not None:
        if time.monotonic() >= deadline:
            raise BadInput(
                f"the vLLM server at {url} does not answer (waited {timeout_s:g} s: {reason}). Start it on its GPUs with\n"
                f"  {SERVE}\nor say where it is with training.trl.vllm_server_base_url"
            )
        time.sleep(min(SECONDS_BETWEEN_ATTEMPTS, max(0.0, deadline - time.monotonic())))
    if _unreachable(f"{url}/server_info?config_format=json") == "HTTP 404":
        raise BadInput(f"the vLLM server at {url} takes no new weights. Start it again with\n  {SERVE}")


def _unreachable(url: str) -> str | None:
    """Why this address gives no answer; None where it does."""
    try:
        with urlopen(url, timeout=10):
            return None
    except HTTPError as error:
        return f"HTTP {error.code}"
    except (URLError, OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error))


@contextmanager
def telling_vllm(trainer: Any) -> Iterator[None]:
    """What TRL has no field for and `vllm.LLM` needs to know: the type that the trainer computes in (vLLM takes float32 for
    bfloat16, and its log-probs are then another model's), the run's seed, and the model's revision."""
    plain = getattr(vllm_generation, "LLM", None)  # there where vLLM is installed

    def told(*args: Any, seed: int, **options: Any) -> Any:
        assert plain is not None
        revision = getattr(trainer.model.config, "_commit_hash", None)
        return plain(*args, seed=trainer.args.seed + seed, dtype=computes_in(trainer), revision=revision, **options)

    if plain is None:
        yield
        return
    vllm_generation.LLM = told
    try:
        yield
    finally:
        vllm_generation.LLM = plain


def tell_end_tokens(trainer: Any) -> None:
    """vLLM, in this process or behind a server, knows its own tokenizer's end token alone, and `model.chat_template` may set
    another. A user's own stop tokens hold beside ours."""
    told = trainer.vllm_generation.generation_kwargs
    stops = {*(told.get("stop_token_ids") or ()), *trainer.eos_token_ids}
    trainer.vllm_generation.generation_kwargs = {**told, "stop_token_ids": sorted(stops)}


def computes_in(trainer: Any) -> str:
    """Name of the type in which the policy's own log-probs are computed."""
    autocast = {"bf16": "bfloat16", "fp16": "float16"}.get(trainer.accelerator.mixed_precision)
    return autocast or str(trainer.model.dtype).removeprefix("torch.")


def warn_of_another_dtype(trainer: Any, sampled_in: str) -> None:
    sampled_in, ours = sampled_in.removeprefix("torch."), computes_in(trainer)
    if sampled_in != ours:
        logger.warning(
            "The vLLM server samples in %s and the trainer computes in %s: their log-probs differ by more than rounding. "
            "Start the server with --dtype %s.", sampled_in, ours, ours,
        )  # fmt: skip
