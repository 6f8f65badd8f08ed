"""Does `dasd tokens` read the right model as the right method, and the same rollouts every time?"""

import json
import re

import pytest

from dasd import cli
from dasd.analysis.token_map import _method_and_context, _room, config_of_run, read_tokens
from dasd.assets import BASE_MODEL
from dasd.config import BadInput, ModelConfig, RunConfig, TokensConfig, dump_config, make_config
from dasd.data.problems import as_row, load_problems
from dasd.evaluation.samplers.transformers import TransformersSampler
from dasd.folders import claim
from dasd.model_fit import context_length
from dasd.models import load_model
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import wrong_hints

SMALL = ["--problems", "2", "--rollouts", "4", "--max-completion-length", "48"]


def config(*overrides):
    return make_config(TokensConfig, {}, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def found():
    return read_tokens(config())


def test_groups_and_their_advantages(found):
    rollouts = found["rollouts"]
    assert len(rollouts) == 8
    assert len({rollout["problem_id"] for rollout in rollouts}) == 2
    for start in (0, 4):
        group = rollouts[start : start + 4]
        assert sum(rollout["advantage"] for rollout in group) == pytest.approx(0, abs=1e-3)
        right = [rollout["advantage"] for rollout in group if rollout["status"] == "correct"]
        wrong = [rollout["advantage"] for rollout in group if rollout["status"] != "correct"]
        assert not right or not wrong or min(right) > max(wrong)
    assert {rollout["status"] for rollout in rollouts} >= {"correct"}
    assert all(place < len(found["texts"]) for rollout in rollouts for place in rollout["teacher"]["tokens"])
    assert "seed 0" in found["note"]
    assert "gives it. The teacher" in found["note"], "no step where nothing is scheduled"


def test_seeds_fix_the_rollouts_whatever_the_batch(found):
    again = read_tokens(config("--batch-size", "3"))
    assert [r["tokens"] for r in again["rollouts"]] == [r["tokens"] for r in found["rollouts"]]
    other = read_tokens(config("--seed", "1"))
    assert [r["tokens"] for r in other["rollouts"]] != [r["tokens"] for r in found["rollouts"]]


def test_method_and_context_change_the_reading_and_not_the_rollouts(found):
    def texts(document):
        return ["".join(document["texts"][place] for place in r["tokens"]) for r in document["rollouts"]]

    grpo = read_tokens(config("--method.name", "grpo", "--teacher.context", "none"))
    assert texts(grpo) == texts(found)
    assert all(r["omega"] is None and r["gap"] is None for r in grpo["rollouts"])
    assert any(any(r["gap"]) for r in found["rollouts"])


@pytest.mark.parametrize(("key", "value"), [("method.name", "dads"), ("method.betta", "1"), ("teacher.template", "no slots")])
def test_what_is_wrong_is_said(key, value):
    with pytest.raises(BadInput):
        read_tokens(config(f"--{key}", value))


def test_presets_leave_out_what_is_not_read():
    assert make_config(TokensConfig, {}, ["--method.name", "sdpo"]).teacher.context == "peer"
    assert make_config(TokensConfig, {}, ["--method.name", "dapo"]).method.name == "dapo"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    values = {
        "output": str(folder), "method": {"name": "novelty", "beta": 0.3},
        "teacher": {"context": "answer", "weights": "frozen"},
        "training": {"temperature": 0.75, "max_completion_length": 40, "trl": {"scale_rewards": "none"}},
    }  # fmt: skip
    claim(folder, make_config(RunConfig, values))
    return folder


def test_a_run_says_method_teacher_and_model(run):
    found, base = config_of_run(run, None, ["--problems", "1"])
    assert (found.method.name, found.method.settings, found.teacher.context) == ("novelty", {"beta": 0.3}, "answer")
    assert (found.temperature, found.max_completion_length, found.scale_advantages) == (0.75, 40, False)
    assert (found.data.split, found.model, base) == ("validation", base, ModelConfig())
    with pytest.raises(BadInput, match="no checkpoints/final"):
        config_of_run(run, "final", [])
    final = run / "checkpoints" / "final"
    final.parent.mkdir()
    final.symlink_to(BASE_MODEL)
    assert config_of_run(run, None, [])[0].model.path == str(final)
    assert config_of_run(run, "base", [])[0].model == ModelConfig()


def test_several_sources_are_the_runs_own_and_called_so(tmp_path):
    values = {"output": str(tmp_path), "data": {"task": "math", "sources": [{"source": "a.jsonl"}, {"source": "b.jsonl"}]}}
    claim(tmp_path, make_config(RunConfig, values))
    assert config_of_run(tmp_path, None, [])[0].data.split == "train"


def test_scheduled_settings_are_those_of_the_runs_last_step(run):
    assert config_of_run(run, None, [])[0].step == 0, "the base model, before training"
    final = run / "checkpoints" / "final"
    final.parent.mkdir()
    final.symlink_to(BASE_MODEL)
    assert config_of_run(run, None, [])[0].step == RunConfig().training.steps
    (run / "result.json").write_text(json.dumps({"steps": 25}))
    assert config_of_run(run, None, [])[0].step == 25
    assert config_of_run(run, "base", [])[0].step == 0
    assert config_of_run(run, None, ["--step", "3"])[0].step == 3


def test_a_schedule_is_shown_at_its_step():
    """RLSD's weight falls from 0.5 to 0 over 50 steps: then its credit is the verifier's advantage."""
    first, last = (read_tokens(config("--method.name", "rlsd", "--problems", "1", "--step", step)) for step in ("0", "50"))
    assert "Credit as rlsd gives it, at step 0 of its schedule." in first["note"]
    assert "Credit as rlsd gives it, at step 50 of its schedule." in last["note"]
    assert any(len(set(rollout["credit"])) > 1 for rollout in first["rollouts"])
    assert all(set(rollout["credit"]) == {rollout["advantage"]} for rollout in last["rollouts"])


def test_the_command_writes_a_folder_of_its_own_in_the_run(run, capsys):
    (run / "rollouts.json").write_text("{}")  # of the report: not to be touched
    assert cli.run(["tokens", str(run), "--problems", "1", "--rollouts", "2"]) == 0
    assert (run / "rollouts.json").read_text() == "{}"
    assert "omega" in json.loads((run / "tokens" / "rollouts.json").read_text())["rollouts"][0]
    page = (run / "tokens" / "tokens.html").read_text()
    assert "2 rollouts, 2 of each of 1 problem (" in page
    assert re.search(r"<dt>model</dt><dd>bundled</dd>.*<dt>data</dt>.*<dt>made</dt><dd>\d{4}-", page)
    assert "Every token is pushed away from a teacher" in page
    assert 10_000 < len(page) < 500_000
    assert "Token map:" in capsys.readouterr().out


def test_a_method_without_teacher_is_read_without_one():
    document = read_tokens(config("--method.name", "grpo"))
    assert "teacher" not in document["note"]
    for rollout in document["rollouts"]:
        assert (rollout["gap"], rollout["teacher"], rollout["reference"]) == (None, None, None)
        assert rollout["entropy"]


def test_help_shows_the_defaults_of_this_command(capsys):
    with pytest.raises(SystemExit):
        cli.run(["tokens", "--help"])
    assert "split of the dataset [validation]" in capsys.readouterr().out


def test_bad_input_of_the_command(tmp_path, capsys):
    assert cli.run(["tokens", "bundled", "--checkpoint", "final"]) == 2
    assert "leave it out" in capsys.readouterr().err
    assert cli.run(["tokens", str(tmp_path / "absent")]) == 2
    (tmp_path / "config.yaml").write_text(dump_config(config()))
    assert cli.run(["tokens", str(tmp_path)]) == 2
    assert not (tmp_path / "rollouts.json").exists()


def test_a_direction_that_is_found_in_training_is_not_shown_as_none():
    with pytest.raises(BadInput, match="method lookahead finds its direction while it trains, and no map can show it"):
        read_tokens(config("--method.name", "lookahead"))


def test_every_wrong_hint_has_room(tmp_path):
    """They are other problems' solutions, shown or not, and the teacher reads each before the completion."""
    rows = [{"problem": "1 + 1?", "answer": "2", "solution": "It is 2."}] * 2
    rows += [{"problem": f"{n} + 1?", "answer": f"{n + 1}", "solution": "so " * n + f"{n + 1}."} for n in range(2, 60)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--data.task", "math", "--data.source", str(tmp_path / "mine.jsonl"), "--max-completion-length", "4096"]
    method = ["--method.name", "rlcsd", "--method.hints_from", "other_problems", "--teacher.context", "solution"]
    given = config(*method, *asked)
    method, context = _method_and_context(given)
    problems = load_problems(given.data)
    model, tokenizer = load_model(given.model)
    room = _room(given, method, context, problems, TransformersSampler(model, tokenizer))
    rows = [as_row(problem) for problem in problems]
    wrong = wrong_hints(context, method)
    hints = [wrong.prompt(rows[0], others=rows, choice=choice) for choice in range(method.wrong_hints)]
    lengths = [len(tokenize_prompt(tokenizer, hint)) for hint in hints]
    assert lengths[0] < max(lengths), "the first is not the longest"
    assert room == context_length(model.config) - max(lengths)
