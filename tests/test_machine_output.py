"""Can a script use the command line: figures as JSON, completion of a shell, a list of methods?"""

import json
import os
import subprocess
import sys

import pytest

from dasd.cli import COMMANDS, build_parser, run
from dasd.credit import METHODS


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Standard output and error of an evaluation with --json."""
    folder = tmp_path_factory.mktemp("eval")
    command = ["eval", "bundled", "--data.limit", "2", "--num_samples", "2", "--max_completion_length", "16", "--json"]
    return subprocess.run(
        [sys.executable, "-m", "dasd", *command, "--output", str(folder)], capture_output=True, text=True, check=True
    )


def test_json_stands_alone_on_standard_output(evaluated):
    figures = json.loads(evaluated.stdout)
    (summary,) = figures["bundled"]["benchmarks"].values()
    assert summary["num_problems"] == 2
    assert 0 <= summary["avg_at_2"] <= 1
    assert "Avg@2" in evaluated.stderr  # the table goes on


def test_what_a_users_file_prints_is_no_figure(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dasd.tasks.countdown import CountdownTask\n"
        "print('imported')\n"
        "class Mine(CountdownTask):\n"
        "    def make_problems(self, count, seed, split):\n"
        "        print('made')\n"
        "        return super().make_problems(count, seed, split)\n"
        "def make_task():\n"
        "    return Mine()\n"
    )
    task = ["--data.task", f"{path}:make_task", "--data.limit", "2", "--data.split", "test"]
    short = ["--num_samples", "1", "--max_completion_length", "4", "--output", str(tmp_path / "eval")]
    assert run(["eval", "bundled", *task, *short, "--json"]) == 0
    shown = capsys.readouterr()
    assert "bundled" in json.loads(shown.out)
    assert "imported\n" in shown.err
    assert "made\n" in shown.err


def test_every_command_that_prints_figures_takes_json():
    parser = build_parser()
    children = next(action.choices for action in parser._actions if action.choices and "eval" in action.choices)
    with_json = {name for name, child in children.items() if any("--json" in a.option_strings for a in child._actions)}
    assert with_json >= {"quickstart", "train", "eval", "compare", "probe", "methods"}
    assert set(children) == {module.__name__.rpartition(".")[2] for module in COMMANDS}


def test_a_method_says_what_its_settings_mean_and_help_says_where_to_look(capsys):
    assert run(["methods", "dasd"]) == 0
    out = capsys.readouterr().out
    assert "gap_units     one unit for the rollout" in out
    assert "token_frequency, position" in out
    with pytest.raises(SystemExit):
        run(["train", "--help"])
    assert "dasd methods NAME" in capsys.readouterr().out


def test_methods_are_listed_each_with_its_settings(capsys):
    assert run(["methods", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == METHODS.keys()
    assert figures["dasd"]["settings"]["rho"] == 0.8
    assert run(["methods", "rlsd"]) == 0
    text = capsys.readouterr().out
    assert "--method.lam" in text
    assert "A_t = A * ((1 - lam)" in text
    assert "--teacher.weights" in text
    assert run(["methods", "rlds"]) == 2
    assert "did you mean 'rlsd'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dasd ev", {"eval"}),
        ("dasd eval bundled --data.li", {"--data.limit"}),
        ("dasd train x.yaml --training.lo", {"--training.lora_rank", "--training.lora_embeddings", "--training.loss_type"}),
        ("dasd train x.yaml --teacher.weights fro", {"frozen"}),
    ],
)
def test_a_shell_completes_commands_settings_and_choices(line, expected, tmp_path):
    found = tmp_path / "found"
    environment = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found), "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "_ARGCOMPLETE_SHELL": "bash",
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "dasd"], env=environment, check=True, capture_output=True)
    words = {word.strip() for word in found.read_text().split("\n")}
    assert expected <= words
    assert all(word.startswith(line.split()[-1]) for word in words)


def test_a_dry_run_gives_its_parts_and_keeps_its_exit_code(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("training: {steps: 1}\n")
    for memory, code in ((80, 0), (0.001, 2)):
        assert run(["train", str(tmp_path / "config.yaml"), "--dry-run", "--gpu_memory", str(memory), "--json"]) == code
        figures = json.loads(capsys.readouterr().out)
        assert figures["fits"] == (code == 0)
        assert figures["parameters"] > 800_000
        assert all(max(part["generate"], part["update"]) > 0 for part in figures["parts"])
