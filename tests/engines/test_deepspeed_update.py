"""Does DeepSpeed learn what one process learns, and go on after a kill? Two processes: `make test-deepspeed`.

ZeRO-2 and ZeRO-3. The cases and the comparison are those of DDP and FSDP2, `tests/training/test_distributed_update.py`.
"""

import json

import pytest

from training import test_distributed_update as plain
from training.same_update import CASES
from training.test_distributed_update import compare, launch, resumed, resumed_teachers

pytest.importorskip("deepspeed")
KEPT = "teacher weights '{}' keep a copy, and DeepSpeed ZeRO-3 shards the model: use 'live', 'adapter_off', FSDP2 or ZeRO-2"
WHOLE = (
    "DeepSpeed ZeRO-3 shards the model, and this run compares whole distributions, which needs the whole output layer: use "
    "FSDP2 or ZeRO-2"
)
REFUSED = {  # by ZeRO-3
    "schedule, ema": KEPT.format("ema"),
    "peers on all processes": KEPT.format("ema"),
    "distributions, accumulated": KEPT.format("ema"),
    "distributions, frozen teacher": KEPT.format("frozen"),
    "distributions of uncertain tokens": WHOLE,
    "certainty over all processes": WHOLE,
    "each rollout's mean": WHOLE,
}
ONE_PROCESS = {"lookahead"}  # refused by every stage: it moves all trained weights at once
one = plain.one


@pytest.fixture(scope="module")
def zero2(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("zero2"), "zero2")


@pytest.fixture(scope="module")
def zero3(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("zero3"), "zero3")


@pytest.mark.parametrize("case", [name for name in CASES if name not in ONE_PROCESS])
def test_zero_2_is_one_process(one, zero2, case):
    compare(one, zero2, case)


@pytest.mark.parametrize(
    "case", [name for name in CASES if name not in {*REFUSED, *ONE_PROCESS} and "sampler" not in CASES[name]]
)
def test_zero_3_is_one_process(one, zero3, case):
    compare(one, zero3, case)


@pytest.mark.parametrize("case", REFUSED)
def test_what_zero_3_cannot_do_is_refused_in_one_sentence(zero3, case):
    assert (zero3 / f"{case}.txt").read_text() == REFUSED[case]


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
@pytest.mark.parametrize("case", ONE_PROCESS)
def test_what_no_stage_can_do_is_refused_in_one_sentence(request, stage, case):
    said = (request.getfixturevalue(stage) / f"{case}.txt").read_text()
    assert said == "a method that looks ahead moves all trained weights at once: train without FSDP and DeepSpeed"


def test_zero_2_resumes_as_if_nothing_had_happened(zero2):
    resumed_teachers(zero2, resumed(zero2)[0])
    assert json.loads((zero2 / "whole" / "run.json").read_text())["distributed"] == "DEEPSPEED"


def test_zero_3_resumes_as_if_nothing_had_happened(zero3):
    resumed(zero3)
    assert json.loads((zero3 / "whole" / "run.json").read_text())["distributed"] == "DEEPSPEED"
