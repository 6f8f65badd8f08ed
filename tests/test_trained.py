"""Is a trained model sampled as it was trained, and does an evaluation say what it has seen?"""

import json
import logging
import shutil

import pytest

from dasd.assets import BASE_MODEL
from dasd.cli import run
from dasd.config import BadInput, DataConfig, EvalConfig, ProbeConfig, RunConfig, TokensConfig, dump_config
from dasd.data.problems import load_problems
from dasd.evaluation.runner import run_models
from dasd.trained import Trained, as_trained, facts_of_run, final_model, is_run

SHORT = ["--num_samples", "1", "--max_completion_length", "8"]


@pytest.fixture
def trained(tmp_path):
    """A run's folder as training leaves it, with the bundled model as the final one, trained on 6 problems."""
    folder = tmp_path / "run"
    config = RunConfig(
        output=str(folder), model={"chat_template_kwargs": {"enable_thinking": False}},
        data={"limit": 6, "system_prompt": "Think."},
    )  # fmt: skip
    final = folder / "checkpoints" / "final"
    shutil.copytree(BASE_MODEL, final)
    (folder / "config.yaml").write_text(dump_config(config))
    facts = facts_of_run(config, [problem.digest for problem in load_problems(config.data)])
    facts.write(folder)
    facts.write(final)
    return folder


@pytest.mark.parametrize("kind", [EvalConfig, ProbeConfig, TokensConfig])
def test_a_run_is_its_final_model_with_its_own_settings(trained, kind):
    for path in (trained, trained / "checkpoints" / "final"):
        config = as_trained(kind(model={"path": str(path)}))
        assert config.model.path == str(trained / "checkpoints" / "final")
        assert (config.model.chat_template_kwargs, config.data.system_prompt) == ({"enable_thinking": False}, "Think.")
    given = as_trained(kind(model={"path": str(trained), "chat_template_kwargs": {}}, data={"system_prompt": None, "limit": 3}))
    assert (given.model.chat_template_kwargs, given.data.system_prompt, given.data.limit) == ({}, None, 3)
    assert as_trained(kind()) == kind()


def test_a_name_is_no_folder_within_the_run_that_one_stands_in(trained, monkeypatch):
    """Within a run's folder, `dasd eval bundled` took that run's system prompt, template and task."""
    monkeypatch.chdir(trained)
    assert Trained.of("bundled") is None
    assert Trained.of("Qwen/Qwen3-0.6B") is None
    assert Trained.of("checkpoints/final") == Trained.of(str(trained))
    monkeypatch.chdir(trained / "checkpoints")
    assert Trained.of("final") == Trained.of(str(trained))


@pytest.mark.parametrize("kind", [EvalConfig, ProbeConfig, TokensConfig])
def test_a_model_is_asked_the_task_it_was_made_for(trained, kind, caplog):
    facts = facts_of_run(RunConfig(data={"task": "products"}), [])
    facts.write(trained)
    facts.write(trained / "checkpoints" / "final")
    for path in (str(trained), "bundled/products"):
        with caplog.at_level(logging.INFO, "dasd"):
            assert as_trained(kind(model={"path": path})).data.task == "products"
        assert "problems of products, which this model was made for" in caplog.text
        assert as_trained(kind(model={"path": path}, data={"task": "countdown"})).data.task == "countdown"
        assert as_trained(kind(model={"path": path}, data={"source": "mine.jsonl"})).data.task == "countdown"
    assert as_trained(kind(model={"path": "bundled"})).data.task == "countdown"


def test_benchmarks_have_tasks_of_their_own():
    config = EvalConfig(model={"path": "bundled/products"}, benchmarks=["countdown/in_distribution"])
    assert as_trained(config) == config


def test_where_facts_are_found(trained):
    facts = Trained.of(str(trained))
    assert len(facts.problems) == 6
    (trained / "checkpoints" / "checkpoint-5").mkdir()
    assert Trained.of(str(trained / "checkpoints" / "checkpoint-5")) == facts
    assert Trained.of(str(trained / "checkpoints" / "checkpoint-2")) == facts, "training has deleted it since"
    assert Trained.of("bundled") is Trained.of(str(trained.parent)) is None
    again = facts_of_run(RunConfig(model={"path": str(trained / "checkpoints" / "final")}), ["f00"])
    assert set(again.problems) == {*facts.problems, "f00"}


def test_a_run_that_has_not_ended(trained):
    assert is_run(trained)
    shutil.rmtree(trained / "checkpoints" / "final")
    with pytest.raises(BadInput, match="is a run that has no final model yet: end it first"):
        final_model(trained)
    for step in (5, 10):
        (trained / "checkpoints" / f"checkpoint-{step}").mkdir()
    with pytest.raises(BadInput, match=r"give its last checkpoint, .*/checkpoints/checkpoint-10$"):
        as_trained(EvalConfig(model={"path": str(trained)}))
    assert not is_run(trained / "checkpoints")


def test_an_evaluation_says_what_the_model_was_trained_on(trained, tmp_path, caplog):
    """Four of its own problems and two others, from a file, in other words and other spacing."""
    problems = [*load_problems(DataConfig(limit=4)), *load_problems(DataConfig(limit=2, split="test"))]
    rows = [{"problem": f"  {p.problem} ", "answer": p.answer, "solution": p.solution} for p in problems]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EvalConfig(data={"source": str(path), "prompt": "Please: {problem}"}, num_samples=1, max_completion_length=8)
    with caplog.at_level(logging.WARNING, "dasd"):
        results = run_models(config, [str(trained), "bundled"], lambda model: tmp_path / f"eval-{model == 'bundled'}")
    summaries = [result["benchmarks"]["mine.jsonl:test"] for result in results.values()]
    assert [summary["trained_on"] for summary in summaries] == [4, None]
    on_file = [json.loads((tmp_path / f"eval-{bundled}" / "summary.json").read_text()) for bundled in (False, True)]
    assert [summary["trained_on"] for summary in on_file] == [4, None]
    assert [r.message for r in caplog.records if "trained on" in r.message] == [
        f"mine.jsonl:test: the model was trained on 4 of these 6 problems (in {trained}): what it does there is no test of it."
    ]
    asked = json.loads((tmp_path / "eval-False" / "eval.json").read_text())
    assert asked["identity"]["settings"]["system_prompt"] == "Think."
    assert asked["identity"]["settings"]["model"]["chat_template_kwargs"] == {"enable_thinking": False}


def test_eval_takes_a_run_and_refuses_what_is_none_before_it_samples(trained, tmp_path, capsys):
    output = tmp_path / "eval"
    assert run(["eval", str(trained), str(tmp_path / "none"), "--output", str(output), "--data.limit", "2", *SHORT]) == 2
    assert f"model.path {tmp_path / 'none'} does not exist" in capsys.readouterr().err
    assert not output.exists()
    assert run(["eval", str(trained), "--output", str(output), "--data.limit", "2", *SHORT]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["benchmark"], summary["trained_on"]) == ("countdown:test", 0)


def test_probe_takes_a_run(trained, tmp_path, capsys):
    small = ["--positions", "2", "--continuations", "1", "--data.limit", "1", "--max_completion_length", "8"]
    assert run(["probe", str(trained), "--output", str(tmp_path / "probe"), *small]) == 0
    config = (tmp_path / "probe" / "config.yaml").read_text()
    assert "system_prompt: Think." in config
    assert "enable_thinking: false" in config
    assert "split: validation" in config


def test_eval_asks_the_problems_that_the_model_is_for(trained, tmp_path, capsys, caplog):
    """It said so, and asked Countdown."""
    facts = facts_of_run(RunConfig(data={"task": "word_problems", "task_settings": {"difficulty": 3}}), [])
    facts.write(trained)
    facts.write(trained / "checkpoints" / "final")
    output, few = tmp_path / "eval", ["--data.limit", "2", *SHORT]
    with caplog.at_level(logging.INFO, "dasd"):
        assert run(["eval", str(trained), "bundled", "--output", str(output), *few]) == 0
    for folder in output.iterdir():
        identity = json.loads((folder / "eval.json").read_text())
        assert identity["task"] == "word_problems"
        assert identity["source"]["task_settings"] == {"difficulty": 3}
    assert [text for text in caplog.messages if "Asked are" in text] == [
        f"Asked are problems of word_problems, which {trained} was made for; --data.task asks others."
    ]
    given = ["--data.task", "countdown", "--output", str(tmp_path / "other")]
    assert run(["eval", str(trained), *given, *few]) == 0
    assert json.loads((tmp_path / "other" / "eval.json").read_text())["task"] == "countdown"
    assert run(["eval", str(trained), "bundled/products", "--output", str(tmp_path / "both"), *few]) == 2
    said = capsys.readouterr().err
    assert (
        f"{trained} was trained with data.task word_problems, bundled/products with products: say what both are asked" in said
    )
    assert not (tmp_path / "both").exists()


def test_own_problems_are_asked_in_the_words_of_training(trained):
    data = {"task": "math", "source": "a.jsonl", "prompt": "Solve: {problem}", "answer_format": "last"}
    facts = facts_of_run(RunConfig(data=data), [])
    facts.write(trained)
    config = as_trained(EvalConfig(model={"path": str(trained)}, data={"task": "math", "source": "b.jsonl"}))
    assert (config.data.prompt, config.data.answer_format) == ("Solve: {problem}", "last")
    given = {"task": "math", "source": "b.jsonl", "prompt": "{problem}!", "answer_format": "boxed"}
    config = as_trained(EvalConfig(model={"path": str(trained)}, data=given))
    assert (config.data.prompt, config.data.answer_format) == ("{problem}!", "boxed")
