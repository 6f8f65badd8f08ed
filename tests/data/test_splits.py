"""Are validation problems another split of the data, of every source, and is it refused where there is none?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from dasd.config import BadInput, RunConfig, validate
from dasd.config.splits import FILE_ENDINGS
from dasd.data.files import READERS
from dasd.data.problems import load_problems


def rows(name: str, count: int = 4) -> list[dict[str, str]]:
    return [{"problem": f"{name} {number}", "answer": "1", "solution": "1"} for number in range(count)]


def write_file(path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(path.stem)))
    return str(path)


def saved(folder: Path) -> str:
    splits = {split: Dataset.from_list(rows(f"{folder.name} {split}")) for split in ("train", "validation", "test")}
    DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def saved_alone(folder: Path) -> str:
    Dataset.from_list(rows(folder.name)).save_to_disk(folder)
    return str(folder)


def watched(data: dict, **validation: object) -> RunConfig:
    return validate(RunConfig, {"data": {"task": "math", **data}, "training": {"eval_steps": 5}, "validation": validation})


def test_every_source_gives_its_other_split_and_the_limit_holds(tmp_path):
    """Also where an entry names split and limit itself, and after the config was written down."""
    config = watched({"sources": [{"source": saved(tmp_path / "a"), "weight": 3}, {"source": saved(tmp_path / "b"),
                      "weight": 1, "split": "train", "limit": 3}]}, limit=2)  # fmt: skip
    again = validate(RunConfig, config.model_dump())
    for each in (config, again):
        assert [problem.problem for problem in load_problems(each.validation_data())] == [
            "a validation 0", "a validation 1", "b validation 0", "b validation 1",
        ]  # fmt: skip


def test_a_file_among_several_sources_has_no_other_split(tmp_path):
    sources = {"sources": [{"source": saved(tmp_path / "a")}, {"source": write_file(tmp_path / "b.jsonl")}]}
    with pytest.raises(BadInput, match=r"b\.jsonl is what is trained on: set validation\.source .*no splits"):
        watched(sources)
    other = watched(sources, source=write_file(tmp_path / "c.jsonl"))
    assert {problem.problem.split()[0] for problem in load_problems(other.validation_data())} == {"c"}


def test_a_single_dataset_that_was_saved_has_no_other_split(tmp_path):
    with pytest.raises(BadInput, match=r"one is what is trained on: set validation\.source .*no splits"):
        watched({"source": saved_alone(tmp_path / "one")})
    whole = watched({"source": saved(tmp_path / "whole")})
    assert load_problems(whole.validation_data())[0].problem == "whole validation 0"
    with pytest.raises(BadInput, match=r"whole is what is trained on: .* validation\.split to another split, or training"):
        watched({"source": saved(tmp_path / "whole")}, split="train")


def test_the_same_file_by_another_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_file(Path("b.jsonl"))
    for name in (f"./{path}", str(tmp_path / path)):
        with pytest.raises(BadInput, match=r"b\.jsonl is what is trained on: set validation\.source"):
            watched({"source": path}, source=name)


def test_a_dot_in_a_name_on_the_hub_makes_no_file():
    assert watched({"source": "someone/problems-v1.5"}).validation_data().split == "validation"


def test_what_can_be_read_as_a_file_is_known_for_one():
    assert set(READERS) <= FILE_ENDINGS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `d` with a file for each split, seen from beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "validation", "test"):
        (tmp_path / "d" / name).parent.mkdir(exist_ok=True)
        write_file(tmp_path / "d" / f"{name}.jsonl")
    return tmp_path / "d"


def test_a_file_of_a_folders_split_is_that_split(folder):
    (folder.parent / "link.jsonl").symlink_to(folder / "train.jsonl")
    (folder.parent / "linked").symlink_to(folder)
    same = ["d/train.jsonl", "./d/../d/train.jsonl", str(folder / "train.jsonl"), "link.jsonl", "linked/train.jsonl"]
    for name in same:
        with pytest.raises(BadInput, match=r"train\.jsonl is what is trained on|link\.jsonl is what is trained on"):
            watched({"source": "d"}, source=name, split="test")
        with pytest.raises(BadInput, match=r"d is what is trained on: .* validation\.split to another split"):
            watched({"source": name}, source="d", split="train")
    other = watched({"source": "d"}, source="linked/test.jsonl").validation_data()
    assert load_problems(other)[0].problem == "test 0"
    assert load_problems(watched({"source": "link.jsonl"}, source="d").validation_data())[0].problem == "validation 0"


def test_two_splits_of_a_folder_that_are_one_file_are_one(folder):
    (folder / "validation.jsonl").unlink()
    (folder / "validation.jsonl").symlink_to("train.jsonl")
    with pytest.raises(BadInput, match="d is what is trained on"):
        watched({"source": "d"})
    watched({"source": "d"}, split="test")


def test_a_split_of_a_saved_dataset_by_its_own_folder_is_that_split(tmp_path):
    whole = saved(tmp_path / "whole")
    with pytest.raises(BadInput, match="whole/train is what is trained on"):
        watched({"source": whole}, source=f"{whole}/train")
    with pytest.raises(BadInput, match="whole is what is trained on"):
        watched({"source": f"{whole}/test"}, source=whole, split="test")
    watched({"source": whole}, source=f"{whole}/test")
