"""Is a run that trained nothing a failure, before anything is loaded where that can be known?"""

import json

import pytest
import torch
from datasets import Dataset, IterableDataset

from dasd.assets import BASE_MODEL
from dasd.cli import run as command
from dasd.config import BadInput, RunConfig, RunFailed, dump_config, validate
from dasd.data.problems import as_row
from dasd.training import run
from dasd.training.arguments import too_few_problems, trainer_arguments
from dasd.training.fingerprint import differ, fingerprint
from training.conftest import length_reward

TWO_STEPS_A_BATCH = {
    "rollouts_per_step": 16, "group_size": 4, "micro_batch_size": 8, "save_steps": 2, "trl": {"steps_per_generation": 4},
}  # fmt: skip
ROW = {"problem": "Use 3 7 8 to make 29.", "answer": "29", "solution": "3 * 7 = 21, 21 + 8 = 29"}


@pytest.fixture
def written(tmp_path):
    """A config file on so many rows, with these training settings; and its run folder."""

    def write(rows=1, **training):
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(ROW) + "\n" for _ in range(rows)))
        settings = {"steps": 2, "rollouts_per_step": 16, "group_size": 8, "micro_batch_size": 16, "max_completion_length": 16}
        values = {
            "output": str(tmp_path / "run"),
            "data": {"task": "countdown", "source": str(source)},
            "training": settings | training,
        }
        path = tmp_path / "config.yaml"
        path.write_text(dump_config(validate(RunConfig, values)))
        return str(path), tmp_path / "run"

    return write


@pytest.mark.parametrize("words", [["train"], ["doctor"], ["train", "--dry-run"]], ids=" ".join)
def test_too_few_problems_are_refused_before_the_model_is_loaded(written, monkeypatch, capfd, words):
    monkeypatch.setattr(run, "load_model", lambda *_: pytest.fail("loaded a model"))
    path, output = written(rows=1)
    assert command([words[0], path, *words[1:]]) == 2
    said = "".join(capfd.readouterr())
    assert "1 problem is too few: a batch of rollouts takes 2 (16 rollouts, 8 of each problem)" in said
    assert "training.group_size: 16" in said
    assert not output.exists()


@pytest.mark.parametrize(
    ("count", "training", "remedy"),
    [
        (1, {"rollouts_per_step": 16, "group_size": 8, "micro_batch_size": 16}, "8 and training.micro_batch_size: 8"),
        (30, {"rollouts_per_step": 512, "group_size": 8, "micro_batch_size": 16}, "training.rollouts_per_step: 240"),
        (3, {"rollouts_per_step": 32, "group_size": 4, "micro_batch_size": 8}, "training.rollouts_per_step: 8"),
        (2, {"rollouts_per_step": 16, "group_size": 8, "micro_batch_size": 16}, None),
        (7, TWO_STEPS_A_BATCH, "takes 8"),
        (8, TWO_STEPS_A_BATCH, None),
    ],
)  # fmt: skip
def test_the_remedy_is_one(count, training, remedy):
    config = validate(RunConfig, {"training": training})
    said = too_few_problems(count, trainer_arguments(config), config.training)
    assert (said is None) == (remedy is None)
    if remedy is None:
        return
    assert remedy in said
    for change in [change for change in said.partition("Either ")[2].split(", or ") if change.startswith("set ")]:
        settings = {key.removeprefix("training."): int(value) for key, value in
                    (part.split(": ") for part in change.removeprefix("set ").split(" and "))}  # fmt: skip
        changed = validate(RunConfig, {"training": training | settings})
        assert too_few_problems(count, trainer_arguments(changed), changed.training) is None, change


def test_the_python_api_refuses_too_few_rows(train, problems):
    with pytest.raises(ValueError, match=r"has 1 rows, and a batch of rollouts takes 2 \(generation_batch_size 8 / num_gen"):
        train(dataset=Dataset.from_list([as_row(problems[0])]))


def test_a_stream_that_gives_no_batch_is_an_error(train, problems):
    stream = IterableDataset.from_generator(lambda: iter([as_row(problems[0])]))
    with pytest.raises(RunFailed, match="0 of 2 optimisation steps were made"):
        train(dataset=stream)


def test_a_run_that_made_fewer_steps_fails_and_has_no_final_model(written, monkeypatch, capfd):
    from transformers import DefaultFlowCallback

    original = DefaultFlowCallback.on_step_end

    def stop(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        control.should_training_stop = True

    monkeypatch.setattr(DefaultFlowCallback, "on_step_end", stop)
    path, output = written(rows=4)
    assert command(["train", path]) == 1
    assert "training ended after 1 of 2 steps, and no final model was written" in capfd.readouterr().err
    assert not (output / "checkpoints" / "final").exists()
    assert not (output / "result.json").exists()


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_run_without_signal_says_that_its_weights_are_the_base(written, capfd, monkeypatch, lora_rank):
    """Rewards are all 0 and the method has no teacher: two steps of nothing."""
    path, output = written(rows=4, lora_rank=lora_rank, learning_rate=1e-3)
    assert command(["train", path, "--method.name", "grpo", "--training.temperature", "3"]) == 0
    last = capfd.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"Nothing was learnt: after 2 steps all weights are those of {BASE_MODEL}")
    result = json.loads((output / "result.json").read_text())
    assert result["weights_changed"] is False
    assert result["steps"] == 2
    assert "Nothing was learnt" in (output / "report.html").read_text()


def test_a_run_that_learnt_says_so(train, tiny_model):
    assert train().weights_changed is True


def test_the_python_api_tells_of_a_run_without_signal(train, tiny_model, caplog):
    trainer = train(reward=lambda completions, **_: [0.0] * len(completions), method_settings={"beta": 0.0})
    assert trainer.weights_changed is False
    assert any("Nothing was learnt: after 2 steps" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (0,)])
def test_a_fingerprint_sees_the_last_bit_of_any_entry(dtype, shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float32).to(dtype)
    before = fingerprint([weight])
    assert not differ(before, fingerprint([weight.clone()]))
    for index in range(weight.numel()):
        other = weight.clone()
        bits = other.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]).view(-1)
        bits[index] ^= 1
        assert differ(before, fingerprint([other])), index


def test_a_fingerprint_is_the_same_in_chunks(monkeypatch):
    weight = torch.randn(50, 7)
    whole = fingerprint([weight])
    monkeypatch.setattr("dasd.training.fingerprint.CHUNK", 21)
    assert not differ(whole, fingerprint([weight]))
    assert torch.equal(whole[0], weight.view(torch.int32).long().sum(1))


def test_more_steps_than_data_repeat_the_data(train, problems):
    """Two problems, one batch of two: every epoch is one step."""
    trainer = train(dataset=Dataset.from_list([as_row(problem) for problem in problems[:2]]), reward=length_reward, max_steps=3)
    assert trainer.state.global_step == 3


def test_a_run_with_the_wrong_number_is_bad_input():
    with pytest.raises(BadInput, match="multiple"):
        validate(RunConfig, {"training": {"rollouts_per_step": 12, "group_size": 8}})


def test_a_run_in_which_nothing_was_rewarded_is_a_failure(written, tmp_path, capfd, caplog):
    """The verifier fails on whatever the model writes: the teacher alone trained it, and the command ended with 0."""
    (tmp_path / "mine.py").write_text(
        "class Mine:\n"
        "    def grade(self, problem, completion):\n"
        "        if not completion.startswith('\\\\boxed'):\n"
        "            return 1 / len(completion.split('I do not know.')[1:]) == 2\n"
        "        return completion == '\\\\boxed{29}'\n"
        "def make_task():\n"
        "    return Mine()\n"
    )
    path, output = written(rows=2)
    with caplog.at_level("WARNING", "dasd"):
        assert command(["train", path, "--data.task", f"{tmp_path}/mine.py:make_task"]) == 1
    said = " ".join(caplog.messages)
    assert "grade failed on 2 of 6 completions: ZeroDivisionError" in said
    assert "No completion has a reward: verifier and rewards failed on all of them; the teacher alone trains" in said
    assert "no completion of the whole run had a reward" in capfd.readouterr().err
    assert not (output / "checkpoints" / "final").exists()
