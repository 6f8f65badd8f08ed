"""Do runs get names that tell them apart, and do seeds of the same settings find each other?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dasd.cli import run
from dasd.config import BadInput
from dasd.evaluation.compare import compare_runs
from dasd.evaluation.groups import distinct_names, read_groups


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/dasd/checkpoints/final", "runs/grpo/checkpoints/final"], ["dasd", "grpo"]),
        (["a/x/final", "a/y/best/final", "a/y/final"], ["x", "y/best", "y"]),
        (["runs/dasd", "runs/dasd/before"], ["dasd", "dasd/before"]),
        (["runs/one", "eval/two"], ["runs/one", "eval/two"]),
        (["eval/a/model"], ["a/model"]),
    ],
)
def test_names_are_what_paths_do_not_share(paths: list[str], names: list[str]) -> None:
    assert distinct_names([path.split("/") for path in paths]) == names


def write(folder: Path, right: list[int], samples: int = 2, model: str = "base", suite: str = "suite") -> Path:
    """An evaluation as dasd eval writes it: of each problem so many samples are right."""
    folder.mkdir(parents=True)
    ids = [f"p{place}" for place in range(len(right))]
    identity = {"suite": suite, "settings": {"model": {"path": model}}, "fingerprint": f"{len(right)}"}
    (folder / "eval.json").write_text(json.dumps({"identity": identity, "num_samples": samples, "problems": ids}))
    (folder / "summary.json").write_text(json.dumps({"num_samples": samples}))
    records = [
        {
            "problem_id": name, "sample": sample, "status": "correct" if sample < count else "incorrect", "extracted": "1",
            "text": "so 1", "token_ids": [1, 2], "finish_reason": "stop", "steps_right": 0, "steps_checked": 0,
        }
        for name, count in zip(ids, right, strict=True) for sample in range(samples)
    ]  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def quickstart(folder: Path, method: str, seed: int, right: list[int], **settings: float) -> Path:
    """A folder as dasd quickstart leaves it: the base before, the trained model after."""
    write(folder / "before", [1] * len(right))
    write(folder / "after", right, model=f"{folder}/checkpoints/final")
    settings_lines = "".join(f"  {name}: {value}\n" for name, value in settings.items())
    (folder / "config.yaml").write_text(
        f"output: {folder}\nmethod:\n  name: {method}\n{settings_lines}training:\n  seed: {seed}\n  steps: 3\n"
    )
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [
        quickstart(tmp_path / "g1", "grpo", 1, [0, 1, 1, 2]),
        quickstart(tmp_path / "g2", "grpo", 2, [0, 1, 2, 2]),
        quickstart(tmp_path / "d1", "dasd", 1, [1, 1, 2, 2], beta=0.1),
        quickstart(tmp_path / "d2", "dasd", 2, [1, 2, 2, 2], beta=0.1),
        quickstart(tmp_path / "d3", "dasd", 1, [2, 2, 2, 2], beta=0.5),
    ]


def test_seeds_of_the_same_settings_are_one_run(folders: list[Path]) -> None:
    groups = read_groups(list(map(str, folders)), "seeds")
    assert [(group.name, len(group.runs)) for group in groups] == [("grpo", 2), ("d1", 2), ("d3", 1)]  # two dasd: by path
    result = compare_runs(groups)
    assert [run["seeds"] for run in result["runs"]] == [[1, 2], [1, 2], [1]]
    assert [run["method"] for run in result["runs"]] == ["grpo", "dasd", "dasd"]
    figure = result["benchmarks"][0]["figures"]["avg_at_2"]
    assert [value["mean"] for value in figure["values"]] == pytest.approx([(4 / 8 + 5 / 8) / 2, (6 / 8 + 7 / 8) / 2, 1])
    assert figure["differences"][0]["mean"] == pytest.approx(2 / 8)
    assert figure["differences"][0]["p_value"] > 0.05  # two seeds a side
    first = result["benchmarks"][0]["problems"][1]
    assert (first["samples"], first["correct"]) == ([4, 4, 2], [2, 3, 2])


def test_a_quickstarts_folder_is_its_trained_model_and_before_its_base(folders: list[Path]) -> None:
    result = compare_runs(read_groups([f"{folders[2]}/before", str(folders[2])]))
    assert [run["name"] for run in result["runs"]] == ["d1/before", "d1"]
    assert [run["method"] for run in result["runs"]] == [None, "dasd"]
    assert [run["model"].endswith("final") for run in result["runs"]] == [False, True]


def test_groups_can_be_given_by_hand(folders: list[Path]) -> None:
    groups = read_groups([f"plain={folders[0]},{folders[1]}", f"new={folders[4]}"])
    assert [(group.name, len(group.runs)) for group in groups] == [("plain", 2), ("new", 1)]
    with pytest.raises(BadInput, match="two runs are called x"):
        read_groups([f"x={folders[0]}", f"x={folders[1]}"])
    with pytest.raises(BadInput, match="give mine's folders without a name"):
        read_groups([f"mine={folders[0]}", str(folders[1])], "seeds")


def test_what_cannot_be_grouped_is_said(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "alone", [1, 1, 1, 1], model="org/model")
    with pytest.raises(BadInput, match=r"alone: no config.yaml tells .* name the groups yourself"):
        read_groups([str(folders[0]), str(tmp_path / "alone")], "seeds")
    write(tmp_path / "more", [1, 1, 1, 1], samples=3)
    with pytest.raises(BadInput, match="the seeds of mixed have 2 and 3 samples a problem"):
        compare_runs(read_groups([f"mixed={tmp_path}/alone,{tmp_path}/more", str(folders[0])]))
    assert run(["compare", str(folders[0]), str(folders[1]), "--group", "seeds"]) == 2
    assert "one run (grpo) has nothing to be compared with" in capsys.readouterr().err


def test_five_runs_on_one_page_and_as_json(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run(["compare", *map(str, folders), "--output", str(output), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((output / "summary.json").read_text())
    assert [run["name"] for run in printed["runs"]] == ["g1", "g2", "d1", "d2", "d3"]
    page = (output / "comparison.html").read_text()
    for place, (letter, name) in enumerate(zip("ABCDE", ("g1", "g2", "d1", "d2", "d3"), strict=True)):
        color = ("before", "accent", "attract", "repel", "violet")[place]
        assert f'style="--c:var(--{color})">{letter}</b> <strong>{name}</strong>' in page
        assert f'style="--c:var(--{color})"><i></i>{name}</li>' in page  # the same colour in every legend
    assert "some are right" in page
    assert run(["compare", *map(str, folders), "--output", str(output)]) == 0
    assert "p (Holm)" in capsys.readouterr().out


@pytest.mark.parametrize("held", ["", '{"identity": {"suite": '])
@pytest.mark.parametrize(
    ("name", "remedy"), [("eval.json", "evaluate again"), ("summary.json", "delete it and give the command")]
)
def test_a_file_that_was_cut_off_is_named_with_what_to_do(tmp_path, capsys, held, name, remedy):
    first, second = write(tmp_path / "a", [1, 2]), write(tmp_path / "b", [2, 2])
    (second / name).write_text(held)
    assert run(["compare", str(first), str(second), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"dasd: {second / name} is ")
    assert remedy in said
