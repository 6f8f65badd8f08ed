"""Is a run's folder its own: found where it was meant, and written by one process at a time?"""

import subprocess
import sys

import pytest
import yaml

from dasd.cli import run as command
from dasd.config import BadInput, DataConfig, EvalConfig, ModelConfig, RunConfig, filled, load_config, validate
from dasd.folders import CONFIG, claim, sole_writer

SHORT = [
    "--training.steps", "1", "--training.rollouts_per_step", "8", "--training.group_size", "4",
    "--training.micro_batch_size", "8", "--training.max_completion_length", "8", "--data.limit", "20",
]  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_the_home_folder_is_the_home_folder_in_all_of_a_run(home, tmp_path):
    (tmp_path / "config.yaml").write_text("output: ~/runs/x\n")
    assert command(["train", "config.yaml", *SHORT]) == 0
    found = {path.relative_to(home / "runs" / "x").parts[0] for path in (home / "runs" / "x").rglob("*")}
    assert {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "report.html", "result.json"} <= found
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("kind", "values", "read"),
    [
        (RunConfig, {"output": "~/x"}, lambda config: config.output),
        (RunConfig, {"model": {"path": "~/x"}}, lambda config: config.model.path),
        (RunConfig, {"data": {"source": "~/x"}}, lambda config: config.data.source),
        (EvalConfig, {"data_dir": "~/x", "benchmarks": "aime24"}, lambda config: config.data_dir),
        (ModelConfig, {"path": "~/x"}, lambda config: config.path),
        (DataConfig, {"source": "~/x"}, lambda config: config.source),
    ],
)
def test_every_path_of_a_config_knows_home(home, kind, values, read):
    assert read(validate(kind, values)) == f"{home}/x"


def test_other_paths_stay_as_they_are():
    assert load_config(RunConfig, None, ["--output", "runs/a~b"]).output == "runs/a~b"
    assert validate(ModelConfig, {"path": "org/model"}).path == "org/model"


@pytest.mark.parametrize("name", ["eval", "probe", "tokens"])
def test_home_in_the_commands_own_output(home, tmp_path, name, monkeypatch):
    """An argument such as --output=~/x, which no shell expands."""
    from dasd.cli import build_parser

    known, _ = build_parser().parse_known_args([name, "bundled", "--output=~/x"])
    assert known.output == home / "x"


@pytest.mark.parametrize("words", ["eval bundled", "probe bundled", "tokens bundled", "merge x", "compare a b"])
@pytest.mark.parametrize("given", ["", "  "])
def test_an_output_of_nothing_is_refused(tmp_path, monkeypatch, capfd, words, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        command([*words.split(), "--output", given])
    assert stopped.value.code == 2
    assert "an empty path names no folder" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_with_an_output_of_nothing_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("data: {limit: 20}\n")
    assert command(["train", "config.yaml", "--output", ""]) == 2
    assert "output: an empty path names no folder" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, capfd):
    """Another process holds the folder, as a run that is under way does."""
    output = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(f"output: {output}\n")
    holder = (
        "import sys, pathlib\nfrom dasd.folders import CONFIG, sole_writer\n"
        f"with sole_writer(pathlib.Path({str(output)!r}) / CONFIG, 'wait'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert command(["train", str(tmp_path / "config.yaml"), *SHORT]) == 2
        assert f"another process is writing {output}/config.yaml" in capfd.readouterr().err
        assert not (output / "metrics.jsonl").exists()
        other.stdin.close()
        other.wait(timeout=30)
    assert command(["train", str(tmp_path / "config.yaml"), *SHORT]) == 0


def test_the_lock_of_a_folder_is_let_go(tmp_path):
    for _ in range(2):
        with (
            sole_writer(tmp_path / "new" / CONFIG, "wait"),
            pytest.raises(BadInput, match=r"another process .* wait"),
            sole_writer(tmp_path / "new" / CONFIG, "wait"),
        ):
            pass


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"steps": 20}, True),
        ({"steps": 5}, False),
        ({"steps": 20, "seed": 1}, False),
        ({"seed": 1}, False),
    ],
)
def test_a_run_may_grow_and_nothing_else(tmp_path, change, allowed):
    output = tmp_path / "run"
    first = validate(RunConfig, {"output": str(output), "training": {"steps": 10}})
    claim(output, first, may_grow=True)
    written = (output / CONFIG).read_bytes()
    second = validate(RunConfig, {"output": str(output), "training": {"steps": 10} | change})
    with pytest.raises(BadInput, match=r"other settings \(.*training\."):
        claim(output, second)
    if allowed:
        claim(output, second, write=False, may_grow=True)
        claim(output, first)  # nothing was written yet
        claim(output, second, may_grow=True)
        claim(output, second)
        with pytest.raises(BadInput, match="can be raised alone, and never lowered"):
            claim(output, first, may_grow=True)
        return
    with pytest.raises(BadInput, match="other settings"):
        claim(output, second, may_grow=True)
    assert (output / CONFIG).read_bytes() == written


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """A setting that came since was a difference, and the run that was under way could not go on."""
    config = validate(RunConfig, {"output": str(tmp_path / "run")})
    claim(tmp_path / "run", config)
    path = tmp_path / "run" / CONFIG
    said = yaml.safe_load(path.read_text())
    del said["data"]["columns"]["further"], said["training"]["sampler"]
    path.write_text(yaml.safe_dump(said))
    claim(tmp_path / "run", config, may_grow=True)
    changed = validate(RunConfig, {"output": str(tmp_path / "run"), "training": {"sampler": "trl"}})
    with pytest.raises(BadInput, match=r"other settings \(training.sampler\)"):
        claim(tmp_path / "run", changed)
    path.write_text(yaml.safe_dump(said | {"of_the_future": 1}))
    with pytest.raises(BadInput, match="of_the_future"):
        claim(tmp_path / "run", config)


def test_a_config_that_no_command_would_take_goes_on_too(tmp_path):
    """Weights stand still at a learning rate of 0, which a run refuses: what had come since was a difference there."""
    config = validate(RunConfig, {"data": {"sources": [{"source": "a.jsonl", "columns": {"problem": "q"}}]}})
    still = config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 0.0})})
    claim(tmp_path, still)
    path = tmp_path / CONFIG
    said = yaml.safe_load(path.read_text())
    del said["data"]["columns"]["further"], said["data"]["sources"][0]["columns"]["further"], said["training"]["sampler"]
    path.write_text(yaml.safe_dump(said))
    claim(tmp_path, still)
    with pytest.raises(BadInput, match=r"other settings \(training.learning_rate\)"):
        claim(tmp_path, config)


@pytest.mark.parametrize(("text", "said"), [("training: {steps: [", "cannot be read as YAML"), ("", "holds no settings")])
def test_a_torn_config_is_no_traceback(text, said, tmp_path):
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(BadInput, match=f"config.yaml {said}.*or delete the folder"):
        claim(tmp_path, validate(RunConfig, {}))


def test_free_keys_are_the_same_only_if_they_are_the_same():
    """Of `training.trl` nothing can have come since: that it says nothing of a setting is what it says."""
    said = {"training": {"steps": 5, "trl": {"beta": 0.1}}, "method": {"name": "dasd", "rho": 0.2}, "of_the_past": 1}
    values = filled(RunConfig, said)
    assert (values["training"]["trl"], values["method"], values["of_the_past"]) == ({"beta": 0.1}, said["method"], 1)
    assert (values["training"]["steps"], values["training"]["sampler"]) == (5, "auto")
    assert filled(RunConfig, {}) == RunConfig().model_dump(mode="json")


def test_a_key_that_is_twice_in_a_runs_config_is_refused(tmp_path):
    """Whoever mended it by hand has said two things, of which the first was passed over."""
    claim(tmp_path, RunConfig(output=str(tmp_path)))
    path = tmp_path / "config.yaml"
    path.write_text(f"{path.read_text()}output: elsewhere\n")
    with pytest.raises(BadInput, match=r"config\.yaml cannot be read as YAML: the key 'output' is there twice.*mend it"):
        claim(tmp_path, RunConfig(output=str(tmp_path)))
