"""Does every setting arrive with its type, and does every mistake get an answer that says what to write instead?"""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.config import BUNDLED, BadInput, EvalConfig, RunConfig, dump_config, load_config, nearest, validate
from dasd.config.core import read_yaml


def load(*overrides, kind=RunConfig, path=None):
    return load_config(kind, path, overrides)


def complaint(*overrides, kind=RunConfig, path=None):
    """The message of the error that loading ends in."""
    with pytest.raises(BadInput) as caught:
        load(*overrides, kind=kind, path=path)
    return str(caught.value)


@pytest.fixture
def written(tmp_path):
    """A function from YAML text, or bytes, to the path of a file with it."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# ---------------------------------------------------------------- what is accepted


def test_defaults():
    config = load()
    assert config == RunConfig()
    assert (config.output, config.model.path, config.data.source, config.data.task) == (
        "runs/train",
        BUNDLED,
        BUNDLED,
        "countdown",
    )
    assert (config.method.name, config.method.settings) == ("dasd", {})
    assert (config.data.split, config.data.limit) == ("train", None)
    evaluation = load(kind=EvalConfig)
    assert (evaluation.data.split, evaluation.data.limit, evaluation.data.count) == ("test", None, 200)


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n", "---\n"])
def test_an_empty_file_is_the_defaults(written, text):
    assert load(path=written(text)) == RunConfig()


@pytest.mark.parametrize(
    ("overrides", "read", "value"),
    [
        (["--training.steps", "20"], lambda c: c.training.steps, 20),
        (["--training.steps=20"], lambda c: c.training.steps, 20),
        (["--training.learning_rate", "5e-5"], lambda c: c.training.learning_rate, 5e-5),
        (["--training.learning_rate=1E-3"], lambda c: c.training.learning_rate, 1e-3),
        (["--training.learning-rate", "0.5"], lambda c: c.training.learning_rate, 0.5),
        (["--training.rollouts-per-step=64", "--training.micro-batch-size", "8"], lambda c: c.training.rollouts_per_step, 64),
        (["--model.trust_remote_code", "true"], lambda c: c.model.trust_remote_code, True),
        (["--model.trust-remote-code=false"], lambda c: c.model.trust_remote_code, False),
        (["--data.limit", "null"], lambda c: c.data.limit, None),
        (["--data.limit", "7"], lambda c: c.data.limit, 7),
        (["--data.columns.solution=null"], lambda c: c.data.columns.solution, None),
        (["--data.columns.problem", "question"], lambda c: c.data.columns.problem, "question"),
        (["--data.seed", "-3"], lambda c: c.data.seed, -3),
        (["--output", "runs/my-run_2"], lambda c: c.output, "runs/my-run_2"),
        (["--output=a=b"], lambda c: c.output, "a=b"),
        (["--output", "./-x.+"], lambda c: c.output, "./-x.+"),
        (["--output", "läufe/七"], lambda c: c.output, "läufe/七"),
        (["--model.path", "Qwen/Qwen3-0.6B"], lambda c: c.model.path, "Qwen/Qwen3-0.6B"),
        (["--teacher.template", "{problem} {context}"], lambda c: c.teacher.template, "{problem} {context}"),
        (["--training.steps", "20", "--training.steps", "30"], lambda c: c.training.steps, 30),
        (["--training.trl.epsilon", "0.1"], lambda c: c.training.trl, {"epsilon": 0.1}),
        (["--training.trl={a: [1, x]}"], lambda c: c.training.trl, {"a": [1, "x"]}),
    ],
    ids=lambda value: "read" if callable(value) else str(value),
)
def test_overrides_are_typed(overrides, read, value):
    got = read(load(*overrides))
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2", 0.2),
        ("5e-5", 5e-5),
        ("-2e3", -2e3),
        ("3", 3),
        ("true", True),
        ("null", None),
        ("quantile", "quantile"),
        ("'3'", "3"),
    ],
)
def test_settings_of_a_method_pass_through_with_their_type(text, value):
    method = load("--method.name", "conformity", "--method.some-setting", text).method
    assert method.name == "conformity"
    assert method.settings == {"some_setting": value}
    assert type(method.settings["some_setting"]) is type(value)


@pytest.mark.parametrize("text", ["7", "2026-05-01", "2026-13-45", "1:30", "no", "1e5", "a: b", "null", "a~b", "9" * 5000])
def test_a_text_setting_takes_any_text(text):
    assert load("--output", text).output == text


@pytest.mark.parametrize("text", ["Solve {problem} given: {context}", "{problem} # {context}"])
def test_a_template_is_taken_word_for_word(text):
    assert load("--teacher.template", text).teacher.template == text


def test_numbers_mean_the_same_in_a_file_and_as_an_override(written):
    in_file = load(path=written("method: {beta: 1e-1}\ntraining: {trl: {epsilon: 2e-1}}"))
    assert in_file == load("--method.beta", "1e-1", "--training.trl.epsilon", "2e-1")


def test_a_date_in_a_file_is_text(written):
    assert load(path=written("output: 2026-13-45")).output == "2026-13-45"


def test_overrides_go_over_the_file(written):
    path = written("output: a\ntraining: {steps: 5, seed: 6}\nmethod: {name: novelty, beta: 0.3}\n")
    config = load("--training.steps", "7", "--method.rho=0.1", path=path)
    assert (config.output, config.training.steps, config.training.seed) == ("a", 7, 6)
    assert (config.method.name, config.method.settings) == ("novelty", {"beta": 0.3, "rho": 0.1})


def test_another_method_does_not_inherit_the_files_settings(written):
    path = written("method: {name: dasd, beta: 0.3}\n")
    config = load("--method.name", "novelty", "--method.rho=0.1", path=path)
    assert (config.method.name, config.method.settings) == ("novelty", {"rho": 0.1})


def test_the_order_of_overrides_does_not_matter():
    assert load("--method.beta", "0.2", "--method.name", "novelty") == load("--method.name", "novelty", "--method.beta", "0.2")


@pytest.mark.parametrize(("said", "name"), [("name: novelty, ", "novelty"), ("name: dasd, ", "dasd"), ("", "dasd")])
def test_naming_the_files_own_method_changes_nothing(written, said, name):
    """Also where the file leaves the name at its default."""
    path = written(f"method: {{{said}beta: 0.3}}\n")
    config = load("--method.name", name, path=path)
    assert config == load(path=path)
    assert config.method.settings == {"beta": 0.3}


@pytest.mark.parametrize("said", ["name: dasd, ", ""])
def test_a_file_that_extends_another_methods_inherits_none_of_its_settings(written, said):
    path = written(f"method: {{{said}beta: 0.3}}\ntraining: {{steps: 7}}\n")
    kept = {"beta": 0.3, "rho": 0.5}
    for method, expected in (("name: novelty", {}), ("name: dasd, rho: 0.5", kept), ("rho: 0.5", kept)):
        child = path.with_name("child.yaml")
        child.write_text(f"extends: {path.name}\nmethod: {{{method}}}\n")
        config = load(path=child)
        assert config.training.steps == 7
        assert config.method.settings == expected


def test_text_that_looks_like_a_number_is_written_as_text(written):
    """Our reader takes 1e3 for a number, YAML 1.1 does not: a config.yaml said another thing than its run was given."""
    words = {"mode": "1e3", "day": "2026-01-01", "off": "off", "rate": "5e-5", "number": 1e-5}
    config = validate(RunConfig, {"model": {"chat_template_kwargs": words}, "data": {"system_prompt": "1e3"}})
    assert load(path=written(dump_config(config))) == config
    assert load(path=written(dump_config(config))).model.chat_template_kwargs == words


def test_a_dumped_config_loads_as_itself(written):
    config = load("--training.learning_rate", "3e-7", "--method.beta", "0.2", "--data.limit", "5", "--output", "läufe/七")
    assert load(path=written(dump_config(config))) == config
    assert yaml.safe_load(dump_config(config))["training"]["learning_rate"] == 3e-7
    assert list(yaml.safe_load(dump_config(config))) == [
        "output",
        "model",
        "data",
        "teacher",
        "method",
        "training",
        "validation",
    ]


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load().training.steps = 3


def test_loading_does_not_change_the_defaults():
    load("--training.trl.beta", "0.5", "--method.beta", "3")
    assert load().training.trl == {}
    assert load().method.settings == {}


def test_no_torch_behind_a_config():
    code = "import sys; from dasd.config import *; load_config(RunConfig, None); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


# ---------------------------------------------------------------- unknown keys


@pytest.mark.parametrize(
    ("override", "key", "hint", "valid"),
    [
        ("--training.step", "training.step", "steps", "steps, rollouts_per_step, group_size"),
        ("--training.learnng_rate", "training.learnng_rate", "learning_rate", "steps, rollouts_per_step, group_size"),
        ("--trainin.steps", "trainin", "training", "output, model, data, teacher, method, training"),
        ("--modle.path", "modle", "model", "output, model, data, teacher, method, training"),
        ("--data.columns.prblem", "data.columns.prblem", "problem", "problem, answer, solution"),
        ("--data.colums.problem", "data.colums", "columns", "task, source, sources, split, columns"),
    ],
)
def test_an_unknown_key_names_the_nearest_and_all(override, key, hint, valid, written):
    message = complaint(override, "1")
    assert f"unknown key {key!r}, did you mean {hint!r}?" in message
    assert f"Valid here: {valid}" in message
    nested = {}
    part = nested
    *parents, last = override[2:].split(".")
    for parent in parents:
        part[parent] = part = {}
    part[last] = 1
    assert complaint(path=written(yaml.safe_dump(nested))) == message


def test_a_key_like_no_other_names_all():
    message = complaint("--zzz", "1")
    assert "unknown key 'zzz'" in message
    assert "did you mean" not in message
    assert "Valid here: output, model, data, teacher, method, training" in message


def test_every_fault_has_its_line():
    message = complaint("--training.steps", "x", "--trainin.steps", "3", "--data.task", "chess")
    assert len(message.split("\n")) == 3
    for key in ("training.steps", "trainin", "data.task"):
        assert key in message


def test_nearest():
    assert nearest("stps", ["steps", "seed"]) == ", did you mean 'steps'?"
    assert nearest("zzz", ["steps", "seed"]) == nearest("steps", []) == "."


# ---------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["--training.steps", "many"], ["training.steps: ", "integer", "'many'"]),
        (["--training.steps", "2.5"], ["training.steps: ", "integer", "2.5"]),
        (["--training.steps", "0"], ["training.steps: ", "greater than 0", "got 0"]),
        (["--training.steps", "null"], ["training.steps: ", "integer", "None"]),
        (["--training.group_size", "1"], ["training.group_size: ", "greater than 1", "got 1"]),
        (["--training.learning_rate", "-1e-6"], ["training.learning_rate: ", "greater than 0", "-1e-06"]),
        (["--training.learning_rate", ".nan"], ["training.learning_rate: ", "nan"]),
        (["--training.warmup_steps", "-1"], ["training.warmup_steps: ", "greater than or equal to 0", "-1"]),
        (["--training.loss_type", "ppo"], ["training.loss_type: ", "'dapo'", "'ppo'"]),
        (["--model.dtype", "int8"], ["model.dtype: ", "'bfloat16'", "'int8'"]),
        (["--model.trust_remote_code", "perhaps"], ["model.trust_remote_code: ", "boolean", "'perhaps'"]),
        (["--data.task", "chess"], ["data.task: ", "countdown, products, math, choice, word_problems", "'chess'"]),
        (["--training.steps", "true"], ["training.steps: ", "true or false", "True"]),
        (["--data.limit", "false"], ["data.limit: ", "true or false", "False"]),
        (["--training", "3"], ["training: ", "got 3"]),
        (["--method", "dasd"], ["method: ", "got 'dasd'"]),
        (["--training.trl", "3"], ["training.trl: ", "dictionary", "got 3"]),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_what_is_needed(overrides, parts):
    message = complaint(*overrides)
    assert message.startswith(parts[0])
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps", "3"], "unexpected argument 'steps'; overrides look like --training.steps 20"),
        (["-t", "3"], "unexpected argument '-t'"),
        (["--training.steps"], "--training.steps needs a value"),
        (["--training.steps", "3", "4"], "unexpected argument '4'"),
        (["--output", "a", "--output.b", "c"], "--output.b: 'output' is not a section"),
    ],
    ids=str,
)
def test_malformed_overrides(overrides, message):
    assert message in complaint(*overrides)


@pytest.mark.parametrize(
    ("key", "low", "high"), [("top_p", "0", "1.5"), ("temperature", "-1", None), ("num_samples", "0", None)]
)
def test_bounds_of_evaluation(key, low, high):
    for value in (low, high):
        if value is not None:
            assert complaint(f"--{key}", value, kind=EvalConfig).startswith(f"{key}: ")
    assert load("--temperature", "0", "--top_p", "1", kind=EvalConfig).temperature == 0


# ---------------------------------------------------------------- batches that divide


@pytest.mark.parametrize(
    ("rollouts", "group", "micro"), [(100, 8, 16), (20, 8, 4), (4, 8, 2), (130, 8, 8), (7, 2, 1), (3, 64, 16), (127, 16, 16)]
)
def test_a_group_that_does_not_divide_names_the_values_and_a_remedy_that_works(rollouts, group, micro):
    overrides = [
        f"--training.rollouts_per_step={rollouts}",
        f"--training.group_size={group}",
        f"--training.micro_batch_size={micro}",
    ]
    message = complaint(*overrides)
    assert f"rollouts_per_step ({rollouts}) must be a multiple of group_size ({group})" in message
    key, value = re.search(r"try (\w+): (\d+)$", message).groups()
    assert getattr(load(*overrides, f"--training.{key}={value}").training, key) == int(value)


@pytest.mark.parametrize(("rollouts", "group", "micro"), [(128, 6, 16), (4, 8, 3)])
def test_the_remedy_for_a_group_fits_the_micro_batch_too(rollouts, group, micro):
    test_a_group_that_does_not_divide_names_the_values_and_a_remedy_that_works(rollouts, group, micro)


@given(st.integers(1, 60), st.integers(2, 16), st.integers(1, 40))
@settings(deadline=None, max_examples=300)
def test_following_the_remedies_always_ends_in_a_good_config(rollouts, group, micro):
    sizes = {"rollouts_per_step": rollouts, "group_size": group, "micro_batch_size": micro}
    for _ in range(3):
        try:
            config = validate(RunConfig, {"training": sizes}).training
        except BadInput as error:
            key, value = re.search(r"try (\w+): (\d+)$", str(error)).groups()
            assert sizes[key] != int(value)
            sizes[key] = int(value)
        else:
            assert config.rollouts_per_step % config.group_size == config.rollouts_per_step % config.micro_batch_size == 0
            assert config.group_size == group
            break
    else:
        pytest.fail(f"no end of remedies for {rollouts}, {group}, {micro}: now {sizes}")


def test_a_micro_batch_that_does_not_divide_names_the_largest_that_does():
    message = complaint("--training.micro_batch_size", "48")
    assert "rollouts_per_step (128) must be a multiple of micro_batch_size (48): try micro_batch_size: 32" in message
    assert load("--training.micro_batch_size", "32").training.micro_batch_size == 32


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must be a mapping of sections, got list"),
        ("[]", "must be a mapping of sections, got list"),
        ("just words", "must be a mapping of sections, got str"),
        ("3", "must be a mapping of sections, got int"),
        ("a: b: c", "cannot be read as YAML: mapping values are not allowed here"),
        ("training: {steps: 3", "cannot be read as YAML: "),
        ("output: !!python/object/apply:os.system ['true']", "cannot be read as YAML: could not determine a constructor"),
        (b"output: \xff\xfe", "cannot be read as YAML: "),
        ("a: \0", "cannot be read as YAML: "),
        (
            "training:\n  steps: 3\n  seed: 1\n  steps: 4\n",
            "the key 'training.steps' is there twice, in lines 2 and 4",
        ),
        ("seed: 1\noutput: a\n'seed': 2\n", "the key 'seed' is there twice, in lines 1 and 3: keep one of them"),
        (
            "data:\n  sources:\n  - source: a\n    source: b\n",
            "the key 'data.sources.0.source' is there twice",
        ),
        ("training: {trl: {a: 1, a: 1}}", "the key 'training.trl.a' is there twice, in line 1: keep one of them"),
    ],
    ids=repr,
)
def test_unreadable_files(written, text, message):
    path = written(text)
    told = complaint(path=path)
    assert told.startswith(f"config {path} ")
    assert message in told
    assert "\n" not in told


def test_a_key_that_is_merged_in_may_be_said_again(written):
    """As YAML has it: what is said goes over what `<<` brings, whatever is merged into that."""
    text = (
        "data: {task_settings: {a: &a {x: 1, y: 1}, b: &b {<<: *a, y: 2}, c: {<<: [*b, *a], y: 3, z: 3}, d: {<<: *b, <<: *a}}}"
    )
    found = load_config(RunConfig, written(text)).data.task_settings
    assert found["c"] == {"x": 1, "y": 3, "z": 3}
    assert found["b"] == {"x": 1, "y": 2}
    assert found["d"]["x"] == 1
    with pytest.raises(BadInput, match=r"'data\.task_settings\.b\.y' is there twice"):
        load_config(RunConfig, written(text.replace("<<: *a, y: 2", "<<: *a, y: 2, y: 4")))


@pytest.mark.parametrize("key", ["training.trl.further", "data.task_settings", "model.chat_template_kwargs"])
def test_a_key_that_is_twice_in_an_override_is_refused(key):
    with pytest.raises(BadInput, match=rf"^--{key}: the key 'a' is there twice"):
        load_config(RunConfig, None, [f"--{key}", "{a: 1, a: 2}"])


def test_every_yaml_file_here_says_each_key_once():
    root = Path(__file__).parents[1]
    files = [path for folder in ("recipes", "studies", "src") for path in (root / folder).rglob("*.yaml")]
    assert len(files) > 60
    for path in files:
        read_yaml(path.read_text(encoding="utf-8"))


def test_missing_file_and_folder(tmp_path):
    assert complaint(path=tmp_path / "no.yaml") == f"config {tmp_path / 'no.yaml'} does not exist"
    assert complaint(path=tmp_path) == (
        f"config {tmp_path} is a folder: give a YAML file; a model's folder is given as --model.path {tmp_path}"
    )


def test_keys_that_are_not_words(written):
    assert "1" in complaint(path=written("1: 2"))
    assert "training" in complaint(path=written("training: {1: 2}"))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="0123456789"), max_size=20))
@settings(deadline=None, max_examples=200)
def test_any_text_as_a_value_is_taken_or_refused(text):
    """Nothing but BadInput is raised, and no text without a digit is a number of steps."""
    for key in ("output", "method.beta", "teacher.template"):
        with contextlib.suppress(BadInput):
            assert isinstance(load(f"--{key}={text}"), RunConfig)
    assert "training.steps" in complaint(f"--training.steps={text}")
