"""Is what a study says of its cells what they were run with: problems, prompts, base, arms, choices?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, DatasetDict

from dasd import cli
from dasd.config import BadInput, EvalConfig, dump_config, load_config
from dasd.files import write_json
from dasd.study.cells import Cell, all_cells, check
from dasd.study.config import Study, load_study
from dasd.study.outcome import keep
from dasd.trained import as_trained, facts_of_run
from evaluation.test_groups import write as write_evaluation
from study.test_study import BASE, SEARCH, study, write

MATHS = {"task": "math"}
ROWS = [{"problem": "1 + 1?", "answer": "2", "solution": "2"}]


def on(folder: Path, data: dict, **changes: object) -> Study:
    """A study whose base has these data."""
    path = write(folder, tasks={"own": {}}, **changes)
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, "data": data}))
    return load_study(path, {})


def edited(folder: Path, **settings: object) -> None:
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, **settings}))


def done(cell: Cell) -> None:
    """The cell as its commands leave it."""
    write_evaluation(cell.folder / "evaluation", [0, 2, 1])
    write_json(cell.folder / "result.json", {"steps": 1})
    keep(cell)


def test_a_file_is_not_tested_on_itself(tmp_path, capsys):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(BadInput, match=r"own: .*mine\.jsonl is what is trained on: set evaluation\.source .*no splits"):
        check(all_cells(on(tmp_path, MATHS | {"source": str(file)})))
    assert cli.run(["study", str(tmp_path / "study.yaml"), "--plan"]) == 2
    assert "mine.jsonl is what is trained on" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"mine\.jsonl is what is trained on"):
        check(all_cells(on(tmp_path, MATHS | {"sources": [{"source": str(file)}]})))
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    with pytest.raises(BadInput, match=r"one is what is trained on: set evaluation\.source"):
        check(all_cells(on(tmp_path, MATHS | {"source": str(tmp_path / "one")})))
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    check(all_cells(on(tmp_path, MATHS | {"source": str(tmp_path / "splits")})))
    check(all_cells(on(tmp_path, MATHS | {"source": str(file)}, evaluation={"source": str(tmp_path / "other.jsonl")})))


def test_a_study_is_not_tested_on_the_split_that_it_trains_on(tmp_path):
    with pytest.raises(BadInput, match=r"bundled is what is trained on: .*evaluation\.split to another split"):
        check(all_cells(study(tmp_path, evaluation={"split": "train"})))


def test_a_cell_of_several_sources_is_evaluated_on_the_split_that_is_asked(tmp_path):
    for name in ("a", "b"):
        DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS)).save_to_disk(tmp_path / name)
    given = on(tmp_path, MATHS | {"sources": [{"source": str(tmp_path / name), "limit": 9} for name in ("a", "b")]})
    cell, *_ = all_cells(given)
    asked = cell.eval_config(cell.run_config({})).data
    assert [(part.split, part.limit) for part in asked.parts] == [("test", 3)] * 2


def test_a_search_on_the_file_of_the_test_is_refused(tmp_path):
    """A file has one set of rows, whatever the splits are called."""
    files = [str(tmp_path / f"{name}.jsonl") for name in ("train", "test", "validation")]
    train, test, validation = files

    def searched(place: str) -> Study:
        search = {**SEARCH, "evaluation": {"source": place, "split": "validation"}}
        return on(tmp_path, MATHS | {"source": train}, evaluation={"source": test}, search=search)

    check(all_cells(searched(validation)))
    with pytest.raises(BadInput, match=r"own: search\.evaluation asks the problems of evaluation .*test\.jsonl"):
        check(all_cells(searched(test)))
    with pytest.raises(BadInput, match=r"train\.jsonl is what is trained on: set search\.evaluation\.source"):
        check(all_cells(searched(train)))


def test_a_cell_is_evaluated_with_the_prompt_that_it_was_trained_with(tmp_path):
    """Its model's settings and system prompt, on its own problems and on suites, as `dasd eval` reads them."""
    model = {"chat_template_kwargs": {"enable_thinking": False}, "chat_template": "plain", "trust_remote_code": True,
             "dtype": "float32", "attn_implementation": "eager", "revision": "abc"}  # fmt: skip
    path = write(tmp_path, suites={"countdown": ["countdown/more_numbers"]})
    edited(tmp_path, model=model, data={"limit": 40, "system_prompt": "Think."})
    cell, *_ = all_cells(load_study(path, {}))
    run = cell.run_config({})
    final = cell.folder / "checkpoints/final"
    final.mkdir(parents=True)
    (final / "config.json").write_text("{}")
    (cell.folder / "config.yaml").write_text(dump_config(run))
    facts_of_run(run, []).write(cell.folder)
    facts_of_run(run, []).write(final)
    for config in (cell.eval_config(run), cell.suites_config(run)):
        (cell.folder / "asked.yaml").write_text(dump_config(config))
        read = as_trained(load_config(EvalConfig, cell.folder / "asked.yaml", ["--model.path", str(cell.folder)]))
        assert read.model.model_dump(exclude={"path"}) == run.model.model_dump(exclude={"path"}) | {"revision": None}
        assert (read.model.path, read.data.system_prompt) == (str(final), "Think.")
