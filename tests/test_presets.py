"""Does a method bring its teacher and loss along, under what the user says? And are contradictions refused with a remedy?"""

import json

import pytest
import yaml

from dasd.cli import run
from dasd.config import BadInput, RunConfig, load_config
from dasd.credit import METHODS, Schedule, make_method
from dasd.data.problems import load_problems
from dasd.presets import PRESETS
from dasd.teacher.context import KINDS
from dasd.teacher.weights import KINDS as WEIGHTS


def load(*overrides, file=None, folder=None):
    path = None
    if file is not None:
        path = folder / "config.yaml"
        path.write_text(file)
    return load_config(RunConfig, path, overrides)


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_of_a_method_there_is_and_only_sets_what_there_is(name):
    assert name in METHODS
    config = load("--method.name", name).model_dump()
    for section, settings in PRESETS[name].items():
        for key, value in settings.items():
            assert config[section][key] == value, (section, key)


def test_what_no_preset_names_is_as_ever():
    assert load("--method.name", "novelty").model_dump() == RunConfig().model_dump() | {"method": {"name": "novelty"}}


@pytest.mark.parametrize("in_file", [True, False])
def test_what_the_user_says_goes_over_the_preset(tmp_path, in_file):
    said = ["--teacher.context", "solution", "--teacher.ema_rate", "0.2"]
    if in_file:
        config = load(file="method: {name: sdpo}\nteacher: {context: solution, ema_rate: 0.2}\n", folder=tmp_path)
    else:
        config = load("--method.name", "sdpo", *said)
    assert (config.teacher.context, config.teacher.weights, config.teacher.ema_rate) == ("solution", "ema", 0.2)


def test_another_method_on_a_file_brings_its_own_preset_and_no_other(tmp_path):
    file = "method: {name: sdpo, strength: 2}\nteacher: {ema_rate: 0.5}\n"
    config = load("--method.name", "rlsd", file=file, folder=tmp_path)
    assert (config.teacher.weights, config.teacher.context, config.teacher.ema_rate) == ("snapshot", "solution", 0.5)
    assert config.method.settings == {}
    assert load("--method.name", "grpo", file="method: {name: dapo}", folder=tmp_path).training.dynamic_sampling == 0


def test_trl_settings_of_preset_file_and_override_are_merged(tmp_path):
    file = "method: {name: dapo}\ntraining: {trl: {lr_scheduler_type: linear, epsilon_high: 0.3}}\n"
    config = load("--training.trl.max_grad_norm", "0.5", file=file, folder=tmp_path)
    assert config.training.trl == {"epsilon": 0.2, "epsilon_high": 0.3, "lr_scheduler_type": "linear", "max_grad_norm": 0.5}
    assert PRESETS["dapo"]["training"]["trl"] == {"epsilon": 0.2, "epsilon_high": 0.28}  # not changed in place


def test_an_empty_section_of_a_file_keeps_the_preset(tmp_path):
    """YAML reads a section whose lines are all commented out as null."""
    config = load(file="method: {name: rlsd}\nteacher:\n  # weights: live\n", folder=tmp_path)
    assert config.teacher.weights == "snapshot"


def test_a_dumped_preset_loads_as_itself(tmp_path):
    config = load("--method.name", "srpo", "--teacher.weights", "live")
    assert load(file=yaml.safe_dump(config.model_dump()), folder=tmp_path) == config


# ---------------------------------------------------------------- names and schedules


@pytest.mark.parametrize(("key", "wrong", "near", "valid"), [
    ("teacher.context", "solutoin", "solution", KINDS), ("teacher.context", "peers", "peer", KINDS),
    ("teacher.weights", "freezed", "frozen", WEIGHTS), ("teacher.weights", "emma", "ema", WEIGHTS),
])  # fmt: skip
def test_unknown_contexts_and_weights_are_answered_with_the_nearest_and_all(key, wrong, near, valid):
    with pytest.raises(BadInput) as caught:
        load(f"--{key}", wrong)
    message = str(caught.value)
    assert message.startswith(f"{key}: ")
    assert f"did you mean '{near}'?" in message
    assert all(f"'{name}'" in message for name in valid)


@pytest.mark.parametrize("kind", KINDS)
def test_config_and_teacher_know_the_same_contexts(kind):
    assert load("--teacher.context", kind).teacher.context == kind


@pytest.mark.parametrize("kind", WEIGHTS)
def test_config_and_teacher_know_the_same_weights(kind):
    assert load("--teacher.weights", kind).teacher.weights == kind


def test_a_schedule_in_a_file_and_as_overrides(tmp_path):
    file = "method: {name: dasd, beta: {start: 0.5, end: 1e-1, steps: 40, shape: cosine}}\n"
    words = [
        "--method.beta.start",
        "0.5",
        "--method.beta.end",
        "1e-1",
        "--method.beta.steps",
        "40",
        "--method.beta.shape",
        "cosine",
    ]
    in_file, overridden = load(file=file, folder=tmp_path), load(*words)
    assert in_file == overridden.model_copy(update={"method": in_file.method})
    for config in (in_file, overridden):
        assert make_method("dasd", config.method.settings).beta == Schedule(0.5, 0.1, 40, "cosine")


def test_part_of_a_files_schedule_can_be_overridden(tmp_path):
    config = load("--method.beta.end", "0.2", file="method: {beta: {start: 0.5, end: 0.1, steps: 4}}", folder=tmp_path)
    assert config.method.settings["beta"] == {"start": 0.5, "end": 0.2, "steps": 4}


# ---------------------------------------------------------------- contradictions, as typed


@pytest.fixture
def typed(tmp_path, monkeypatch, capfd):
    """A function from words after `dasd train config.yaml` to (exit code, what was said); nothing may be written."""

    def say(*words, config=None):
        monkeypatch.chdir(tmp_path)
        base = {"output": "runs/mine", "data": {"limit": 20}, "training": {"max_completion_length": 24}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(base | (config or {})))
        row = {"problem": "Numbers: 3, 7, 8. Target: 29.", "answer": "29", "solution": ""}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        before = sorted(tmp_path.rglob("*"))
        code = run(["train", "config.yaml", *words])
        assert sorted(tmp_path.rglob("*")) == before
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return code, said

    return say


_ONE_PROBLEM = ["--data.limit", "1", "--training.rollouts_per_step", "8", "--training.micro_batch_size", "8"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--teacher.weights", "adapter_off"], ["'adapter_off' need a model with a LoRA adapter", "use 'frozen'"]),
        (["--method.name", "antisd", "--method.warmup_steps", "0"], ["needs a warm-up", "switch to null"]),
        (
            ["--method.name", "rlcsd", "--teacher.context", "answer"],
            ["wrong hints from failed rollouts stand in for a solution", "'answer'", "hints_from other_problems"],
        ),
        (["--method.name", "opsd", "--method.control", "permuted_entropy"], ["permuted_entropy changes nothing", "entropies"]),
        (["--method.name", "grpo", "--method.control", "permuted_gap"], ["permuted_gap changes nothing", "teacher_logps"]),
        (["--teacher.context", "hint"], ["no problem has a hint", "set data.columns.hint"]),
        (
            ["--method.name", "rlcsd", "--method.hints_from", "other_problems", "--teacher.context", "solution", *_ONE_PROBLEM],
            ["other_problem finds nothing in these 1 problems"],
        ),
        (["--teacher.context", "wrong_answer", *_ONE_PROBLEM], ["wrong_answer finds nothing in these 1 problems"]),
        (["--training.trl.generation_batch_size", "12"], ["generation_batch_size"]),
        (["--method.beta.start", "0.5", "--method.beta.end", "0.1"], ["needs start, end and steps"]),
        (["--method.beta.start", "0.5", "--method.beta.end", "0.1", "--method.beta.stepps", "3"], ["did you mean 'steps'"]),
        (["--teacher.chat_template_kwargs.enable_thinking"], ["needs a value"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_contradiction_ends_with_2_one_message_and_nothing_written(typed, words, parts):
    code, said = typed(*words)
    assert code == 2
    assert said.count("dasd: ") == 1
    assert all(part in said for part in parts)


@pytest.mark.parametrize(
    "words",
    [
        ["--teacher.context", "peer"],
        ["--teacher.context", "other_problem", "--teacher.template", "{problem} {context}" + " perhaps" * 300],
    ],
    ids=["peer", "other_problem"],
)
def test_the_teachers_prompt_counts_where_it_is_made_of_others(typed, words):
    """The student's prompts fit into the model's context of 512 tokens, those with another's text do not."""
    code, said = typed("--training.max_completion_length", "253", *words)
    assert code == 2
    assert "the teacher's prompt included" in said


# ---------------------------------------------------------------- doctor


@pytest.mark.parametrize("kind", KINDS)
def test_doctor_shows_the_teachers_prompt_of_every_context(tmp_path, capsys, kind):
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps({"problem": p.problem, "answer": p.answer, "solution": p.solution, "hint": f"hint of {p.id}"}) + "\n"
        for p in load_problems(load("--data.limit", "5").data)
    ))  # fmt: skip
    config = {
        "output": str(tmp_path / "run"), "teacher": {"context": kind},
        "training": {"max_completion_length": 96, "rollouts_per_step": 8, "micro_batch_size": 8},
        "data": {"source": str(tmp_path / "rows.jsonl"), "columns": {"hint": "hint"}},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(["doctor", str(tmp_path / "config.yaml")]) == 0
    student, teacher = capsys.readouterr().out.split("what the student sees:")[1].split("what the teacher sees:")
    marks = {"answer": "The answer is: ", "wrong_answer": "The answer is: ", "hint": "Hint: hint of "}
    if kind == "none":
        assert teacher.strip().removesuffix("Ready.").strip() == student.strip()
    else:
        assert marks.get(kind, "Reference solution: ") in teacher
        assert "The answer is" not in student
        assert "Reference solution" not in student
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", [["--teacher.weights", "adapter_off"], ["--method.name", "rlcsd", "--teacher.context", "answer"]]
)
def test_doctor_finds_contradictions_too(tmp_path, capsys, words):
    (tmp_path / "config.yaml").write_text(
        f"output: {tmp_path / 'run'}\ndata: {{limit: 20}}\ntraining: {{max_completion_length: 24}}\n"
    )
    assert run(["doctor", str(tmp_path / "config.yaml"), *words]) == 2
    assert "fail" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
