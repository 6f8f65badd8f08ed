"""Is a run watched on problems that it is not trained on, without that watching changing what is trained?"""

import json

import pytest
from safetensors.torch import load_file
from torch import equal

from dasd.config import BadInput, RunConfig, make_config, validate
from dasd.data.problems import load_problems
from dasd.files import read_lines
from dasd.training import callbacks
from dasd.training.run import train


def small(output, **training):
    return make_config(RunConfig, {
        "output": str(output),
        "data": {"limit": 32},
        "method": {"name": "dasd"},
        "training": {
            "steps": 3, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 8, "learning_rate": 1e-3,
            "max_completion_length": 24, "save_steps": 1, "lora_rank": 4, **training,
        },
        "validation": {"limit": 3, "num_samples": 2},
    })  # fmt: skip


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "watched"
    train(small(folder, eval_steps=2))
    return folder


def test_a_line_before_training_every_few_steps_and_at_the_end(watched):
    lines = read_lines(watched / "validation.jsonl")
    assert [line["step"] for line in lines] == [0, 2, 3]
    for line in lines:
        samples = read_lines(watched / "validation" / f"step-{line['step']:05}" / "samples.jsonl")
        assert len(samples) == 6
        assert line["avg_at_2"] == pytest.approx(sum(sample["status"] == "correct" for sample in samples) / 6)
        assert {"pass_at_2", "epistemic_per_response", "step_accuracy", "truncated"} <= line.keys()


def test_none_of_its_problems_is_trained_on(watched):
    asked = {row["problem"] for row in read_lines(watched / "validation" / "step-00000" / "problems.jsonl")}
    trained_on = {problem.problem for problem in load_problems(small(watched).data)}
    assert asked
    assert not asked & trained_on


def test_watching_changes_nothing_that_is_trained(watched, tmp_path):
    final = train(small(tmp_path / "unwatched"))
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (final, watched / "checkpoints" / "final"))
    assert ours.keys() == theirs.keys()
    assert all(equal(ours[name], theirs[name]) for name in ours)


def test_a_killed_run_evaluates_again_only_what_comes_after_its_checkpoint(watched, tmp_path):
    config = small(tmp_path / "killed", eval_steps=2)

    class Killed(BaseException):
        pass

    original = callbacks.MetricsWriter.on_log

    def die(self, args, state, control, logs=None, **rest):
        original(self, args, state, control, logs, **rest)
        if state.global_step == 2 and logs and "loss" in logs:
            raise Killed  # after the evaluation of step 2, before its checkpoint

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.MetricsWriter, "on_log", die)
        with pytest.raises(Killed):
            train(config)
    assert [line["step"] for line in read_lines(tmp_path / "killed" / "validation.jsonl")] == [0, 2]
    train(config)
    assert read_lines(tmp_path / "killed" / "validation.jsonl") == read_lines(watched / "validation.jsonl")


def test_a_file_has_no_other_split(tmp_path):
    values = {"data": {"task": "math", "source": "problems.jsonl"}, "training": {"eval_steps": 5}}
    with pytest.raises(BadInput, match=r"problems\.jsonl is what is trained on: set validation\.source"):
        validate(RunConfig, values)
    assert validate(RunConfig, values | {"validation": {"source": "other.jsonl"}}).validation_data().source == "other.jsonl"


def test_the_page_and_the_card_show_it(watched):
    page = (watched / "report.html").read_text()
    lines = read_lines(watched / "validation.jsonl")
    best = max(lines, key=lambda line: line["avg_at_2"])
    assert f"Highest at step {best['step']}" in page
    card = (watched / "checkpoints" / "final" / "README.md").read_text()
    assert "Avg@2" in card
    assert all(f"| {line['step']} | {100 * line['avg_at_2']:.1f} %" in card for line in lines)
    assert json.loads((watched / "run.json").read_text())["versions"]["trl"] in card
