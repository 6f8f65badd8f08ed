"""Is what a study says of its cells what they were run with: problems, prompts, base, arms, choices?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from datasets import Dataset, DatasetDict

from dasd import cli
from dasd.analysis.first_order import told_apart_by
from dasd.config import BadInput, EvalConfig, RunConfig, RunFailed, dump_config, load_config
from dasd.files import read_lines, write_json
from dasd.folders import claim, failure_on_file
from dasd.study import work
from dasd.study.cells import Cell, all_cells, check, settings_of
from dasd.study.config import Study, load_study
from dasd.study.history import deviations, record
from dasd.study.outcome import keep
from dasd.study.results import results
from dasd.study.search import chosen_for
from dasd.study.work import Work, run_cell
from dasd.trained import as_trained, facts_of_run
from evaluation.test_groups import write as write_evaluation
from study.test_predicted import entry, probe
from study.test_study import BASE, SEARCH, SMALL, answered, finish, study, write

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
    keep(cell, cell.run_config(chosen_for(cell)))


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


def test_a_search_on_a_file_of_the_split_of_the_test_is_refused(tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    place = str(tmp_path / "d")

    def searched(name: str) -> Study:
        search = {**SEARCH, "evaluation": {"source": f"{place}/{name}.jsonl", "split": "validation"}}
        return on(tmp_path, MATHS | {"source": place}, evaluation={"split": "test"}, search=search)

    check(all_cells(searched("validation")))
    with pytest.raises(BadInput, match=r"search\.evaluation asks the problems of evaluation .*test\.jsonl"):
        check(all_cells(searched("test")))


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


def test_the_content_of_the_base_is_fixed_before_the_first_run(tmp_path):
    """What the file says, not how, and not what only watches a run."""
    given = study(tmp_path)
    record(given)
    (tmp_path / "base.yaml").write_text("# the same\n" + yaml.safe_dump(BASE, default_flow_style=True))
    record(given)
    edited(tmp_path, validation={"limit": 5}, training={**BASE["training"], "save_steps": 7, "eval_steps": 1})
    record(given)
    assert len(read_lines(given.output / "history.jsonl")) == 1
    edited(tmp_path, training={**BASE["training"], "learning_rate": 1e-2, "loss_type": "grpo"})
    for ask in (record, results):
        with pytest.raises(BadInput, match=r"another base\.training\.learning_rate, base\.training\.loss_type, which"):
            ask(given)
    (tmp_path / "parent.yaml").write_text(yaml.safe_dump({**BASE, "data": {"limit": 41}}))
    (tmp_path / "base.yaml").write_text("extends: parent.yaml\n")
    with pytest.raises(BadInput, match=r"another base\.data\.limit, which"):
        record(given)


def test_a_history_that_does_not_know_the_base_is_gone_on_with(tmp_path):
    """It is unknown what the base was, which is no change; from then on it is fixed."""
    given = study(tmp_path)
    record(given)
    path = given.output / "history.jsonl"
    [note] = read_lines(path)
    path.write_text(json.dumps({key: note[key] for key in ("at", "plan_sha256", "settings")}) + "\n")
    assert deviations(given) == []
    record(given)
    assert deviations(given) == []
    edited(tmp_path, data={"limit": 41})
    with pytest.raises(BadInput, match=r"another base\.data\.limit"):
        record(given)


def test_cells_of_an_arm_that_was_edited_are_not_counted_as_the_new_one(tmp_path):
    for cell in all_cells(study(tmp_path)):
        done(cell)
    arms = {**SMALL["arms"], "dasd": {"method": {"name": "dasd", "beta": 0.5}, "training": {"learning_rate": 1e-3}}}
    given = study(tmp_path, arms=arms)
    said = r"dasd/seed-0 \(the first of 2 cells\) .* method\.beta \(0\.02, now 0\.5\), training\.learning_rate \(0\.0001, now"
    for ask in (record, results):
        with pytest.raises(BadInput, match=said):
            ask(given)
    assert not (given.output / "history.jsonl").exists()
    renamed = {**SMALL["arms"], "higher": arms["dasd"]}
    assert results(study(tmp_path, arms=renamed))["progress"]["done"] == 4


def test_what_is_kept_of_settings_is_the_same_on_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = on(tmp_path, MATHS | {"source": "~/mine.jsonl", "columns": {"hint": "clue"}}, evaluation={"source": "~/test.jsonl"})
    kept = settings_of(all_cells(given)[0].run_config({}))
    assert (kept["data"]["source"], kept["data"]["columns"]["hint"]) == ("~/mine.jsonl", "clue")
    assert kept["method"] == {"name": "grpo"}
    assert "seed" not in kept["training"]


def test_what_tells_gains_apart_is_the_same_on_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = study(tmp_path, tasks={"t": {"model": {"path": "~/model"}}})
    assert told_apart_by(all_cells(given)[0].run_config({}))["model"] == {"path": "~/model"}


def test_settings_of_one_arm_do_not_reach_the_next(tmp_path):
    """The task says an empty mapping, which the first arm fills: it was the task's own, that the second arm is given, too."""
    teacher = {"chat_template_kwargs": {"thinking": True}}
    arms = {"grpo": {"method": {"name": "grpo"}, "teacher": teacher}, "dasd": {"method": {"name": "dasd"}}}
    given = study(tmp_path, tasks={"t": {"teacher": {"chat_template_kwargs": {}}}}, arms=arms)
    found = {cell.arm: cell.run_config({}).teacher.chat_template_kwargs for cell in all_cells(given)}
    assert found == {"grpo": {"thinking": True}, "dasd": {}}
    assert given.config.tasks == {"t": {"teacher": {"chat_template_kwargs": {}}}}


def test_an_arm_that_loses_a_setting_is_another(tmp_path):
    for cell in all_cells(study(tmp_path, arms={**SMALL["arms"], "dasd": {"method": {"name": "dasd", "rho": 0.5}}})):
        done(cell)
    with pytest.raises(BadInput, match=r"method\.rho \(0\.5, now absent\); set the study back"):
        results(study(tmp_path, arms={**SMALL["arms"], "dasd": {"method": {"name": "dasd"}}}))


def test_settings_that_only_watch_a_run_may_change(tmp_path):
    for cell in all_cells(study(tmp_path)):
        done(cell)
    tasks = {"countdown": {"training": {"eval_steps": 0, "report_steps": 3}, "validation": {"limit": 4}}}
    assert results(study(tmp_path, tasks=tasks))["progress"]["done"] == 4


def test_outcomes_that_do_not_know_their_settings_count(tmp_path):
    """Those of an older version, and a setting that an older version did not have."""
    cells = all_cells(study(tmp_path))
    for cell in cells:
        answered(cell, [1, 1])
    given = study(tmp_path, arms={**SMALL["arms"], "dasd": {"method": {"name": "dasd", "beta": 0.5}}})
    assert results(given)["progress"]["done"] == 4
    for cell in cells:
        done(cell)
        kept = json.loads((cell.folder / "outcome.json").read_text())
        del kept["settings"]["training"]["loss_type"]
        write_json(cell.folder / "outcome.json", kept)
    assert results(study(tmp_path))["progress"]["done"] == 4


def test_what_is_kept_is_what_was_run_though_the_base_was_edited_meanwhile(tmp_path, monkeypatch):
    """A base that is another while a cell starts, and is set back before it ends, was kept as if it had never been another."""
    given = study(tmp_path)
    cell = all_cells(given)[0]

    def command(start, **kwargs):
        if "train" in start:
            edited(tmp_path)  # set back
            write_json(cell.folder / "result.json", {"steps": 1})
        else:
            write_evaluation(cell.folder / "evaluation", [0, 2, 1])
        return SimpleNamespace(returncode=0)

    edited(tmp_path, training={**BASE["training"], "learning_rate": 5e-3})
    monkeypatch.setattr(work.subprocess, "run", command)
    assert run_cell(cell) is None
    assert cell.outcome["settings"]["training"]["learning_rate"] == 5e-3
    with pytest.raises(BadInput, match=r"other settings than the study has now: training.learning_rate \(0.005, now"):
        results(given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 300}, "was trained for 300 steps, and the study says 1"),
        ({"seed": 9}, "is a copy: it was trained with seed 9"),
        ({"evaluation": {"temperature": 0.2}}, r"evaluated otherwise than the study says now: temperature \(0.2, now 1.0\)"),
        ({"evaluation": {"num_samples": 4, "seed": 3}}, r"num_samples \(4, now 2\), seed \(3, now 0\)"),
        ({"evaluation": None, "num_samples": 16}, r"num_samples \(16, now 2\)"),
        ({"evaluation": None, "right": [1, 0, 1, 0]}, r"limit \(4 problems, now 3\)"),
    ],
)
def test_outcomes_of_another_study_are_not_counted(tmp_path, change, said):
    """Folders are all that is exchanged, so they may be copied from where other things were asked."""
    given = study(tmp_path)
    for cell in all_cells(given):
        done(cell)
    assert results(given)["progress"]["done"] == 4
    kept = json.loads((cell.folder / "outcome.json").read_text())
    kept["sets"]["test"] |= {key: change.pop(key) for key in ("num_samples", "right") if key in change}
    for key, value in change.items():
        kept[key] = {**kept[key], **value} if isinstance(value, dict) else value
    if kept["evaluation"] is None:
        del kept["evaluation"]
    write_json(cell.folder / "outcome.json", kept)
    with pytest.raises(BadInput, match=said):
        results(given)


def test_runs_from_before_the_plan_are_counted(tmp_path):
    """Outcomes that were copied, or that do not say when they were begun, are not called planned."""
    given = study(tmp_path)
    record(given)
    cells = all_cells(given)
    for cell in cells:
        answered(cell, [1, 0])
    assert results(given)["findings"][-1] == "The plan was written down before the first run and has not changed since."
    for cell, started in zip(cells, ("2020-01-01T00:00:00+00:00", None), strict=False):
        kept = json.loads((cell.folder / "outcome.json").read_text())
        write_json(cell.folder / "outcome.json", {**kept, "made": {"started": started}})
    said = "Not of all runs beforehand: 2 of 4 were begun before the plan was noted here. Since then it has not changed."
    assert results(given)["findings"][-1] == said
    (tmp_path / "plan.md").write_text("Something else.")
    assert "2 of 4 were begun before the plan was noted here. Deviations from the plan: " in results(given)["findings"][-1]


def test_settings_reach_a_run_as_the_file_has_them(tmp_path):
    """Words in quotation marks stay words, and free keys keep their names, though a command line would read both otherwise."""
    kwargs = {"thinking": "off", "top-k": "1e3", "depth": 3, "nothing": None}
    given = study(tmp_path, tasks={"t": {"model": {"chat_template_kwargs": kwargs}}})
    assert all_cells(given)[0].run_config({}).model.chat_template_kwargs == kwargs


def test_cells_are_held_to_what_their_search_chose(tmp_path):
    given = study(tmp_path, search=SEARCH)
    own = [cell for cell in all_cells(given) if cell.candidate is None and cell.arm == "grpo"]
    choice = given.output / "countdown/grpo/choice.json"
    write_json(choice, {"chosen": {"training.learning_rate": 1e-3}, "candidates": []})
    for cell in own:
        done(cell)
    assert results(given)["progress"]["done"] == 2
    write_json(choice, {"chosen": {"training.learning_rate": 1e-4}, "candidates": []})
    with pytest.raises(BadInput, match=r"training\.learning_rate \(0\.001, now 0\.0001\)"):
        results(given)
    choice.unlink()  # the search is open: nothing is known of what it tries
    assert results(given)["progress"]["done"] == 2
    with pytest.raises(BadInput, match=r'method\.name \("grpo", now "dr_grpo"\)'):
        results(study(tmp_path, search=SEARCH, arms={**SMALL["arms"], "grpo": {"method": {"name": "dr_grpo"}}}))


def test_the_search_is_judged_on_the_same_problems_to_its_end(tmp_path):
    record(study(tmp_path, search=SEARCH))
    record(study(tmp_path))  # without it
    more = {**SEARCH, "evaluation": {"limit": 12}}
    with pytest.raises(BadInput, match=r"another search\.evaluation\.limit"):
        record(study(tmp_path, search=more))
    assert results(study(tmp_path / "fresh", search=more))["progress"]["done"] == 0


def test_a_prediction_is_of_the_settings_that_the_search_chose(tmp_path):
    arms = {"grpo": {"method": {"name": "grpo"}}, "dasd": {"method": {"name": "dasd", "beta": 0.1}}}
    (tmp_path / "probe.json").write_text(
        json.dumps(probe(entry("conform", "deviate", 0.8, -0.02), entry("conform", "deviate", 0.5, 0.03)))
    )
    asked = {"probes": {"countdown": ["probe.json"]}, "beta": 0.1}

    def predicted(grid: dict) -> list[float]:
        search = {"grid": {}, "arms": {"dasd": grid}, "seeds": [7]}
        given = study(tmp_path, arms=arms, predictions=asked, search=search)
        for cell in all_cells(given):
            if cell.candidate is None:
                answered(cell, [1, 1])
        return [cell["predicted"]["mean"] for cell in results(given)["prediction"]["cells"]]

    rho, rate = {"method.rho": [0.5, 0.8]}, {"training.learning_rate": [1e-3, 1e-4]}
    assert predicted(rho) == predicted({"teacher.context": ["solution", "answer"]}) == []  # nothing is chosen yet
    assert predicted(rate) == [-0.02]
    choice = tmp_path / "out/countdown/dasd/choice.json"
    write_json(choice, {"chosen": {"method.rho": 0.5}, "candidates": []})
    assert predicted(rho) == [0.03]
    write_json(choice, {"chosen": {"method.beta": 0.02}, "candidates": []})
    assert predicted({"method.beta": [0.02, 0.1]}) == []  # another dose


def test_slurm_has_a_folder_for_its_logs_and_paths_with_spaces(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "my studies"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write(Path("a b"), output="the out")
    assert cli.run(["study", "a b/study.yaml", "--slurm"]) == 0
    script = capsys.readouterr().out.splitlines()
    assert cli.run(["study", "a b/study.yaml", "--plan"]) == 0
    assert "    dasd train 'the out/countdown/grpo/seed-0/cell.yaml'\n" in capsys.readouterr().out
    [log] = [shlex.split(line.partition("--output=")[2]) for line in script if "--output=" in line]
    assert [Path(path).parent for path in log] == [folder / "the out"]
    assert (folder / "the out").is_dir()
    assert [shlex.split(line) for line in script[-2:]] == [
        ["cd", str(folder)], ["dasd", "study", "a b/study.yaml", "--workers", "1"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "torch.AcceleratorError: CUDA error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried",
        "MemoryError",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1.0 TiB for an array",
        "dasd: No space left on device: ; what was written before is intact",
    ],
)
def test_a_candidate_that_was_short_of_memory_is_not_judged(tmp_path, monkeypatch, words):
    """The search stays open until the command is given again, whatever a library says after it."""
    given = study(tmp_path, search=SEARCH)
    first, *others = all_cells(given)

    def ends(start: list[str], stdout: object, **_: object) -> SimpleNamespace:
        stdout.write(f"Loading\n{words}\n[W1126 ProcessGroup.cpp] destroy_process_group() was not called\n")
        return SimpleNamespace(returncode=1)

    def run(cell: Cell) -> str | None:
        if cell.name == first.name:
            return run_cell(cell)
        finish(cell)
        return None

    with monkeypatch.context() as patch:
        patch.setattr(work.subprocess, "run", ends)
        failed = Work(given, 1, run).go()
    assert failed == {first.name: f"dasd train ended with 1: {words}"}
    assert not any(cell.done for cell in others if cell.arm == "grpo" and cell.candidate is None)
    assert Work(given, 1, finish).go() == {}
    assert all(cell.done for cell in others)


def failing(cell: Cell, words: str, goes_on: bool = True) -> Callable[..., SimpleNamespace]:
    """In place of `subprocess.run`: the cell's command says these last words, and keeps why it failed."""

    def ends(start: list[str], stdout: object, **_: object) -> SimpleNamespace:
        stdout.write(words + "\n")
        with suppress(RunFailed), failure_on_file(cell.folder):
            raise RunFailed(words, goes_on=goes_on)
        return SimpleNamespace(returncode=1)

    return ends


def test_a_failure_of_its_own_is_judged_whatever_an_earlier_try_lacked(tmp_path, monkeypatch):
    given = study(tmp_path, search=SEARCH)
    first, *others = all_cells(given)
    first.folder.mkdir(parents=True)
    (first.folder / "log.txt").write_text("torch.OutOfMemoryError: CUDA out of memory\n")

    monkeypatch.setattr(work.subprocess, "run", failing(first, "dasd: stopped: its loss is nan", goes_on=False))
    Work(given, 1, lambda cell: run_cell(cell) if cell.name == first.name else finish(cell)).go()
    assert all(cell.done for cell in others)


@pytest.mark.parametrize(
    "words",
    [
        "dasd: checkpoint-1 could not be written (unexpected pos 5808704 vs 5808592; 3 MiB free there): make room first",
        "OSError: [Errno 122] Disk quota exceeded",
        "requests.exceptions.ConnectionError: hub",
        "filelock._error.Timeout: The file lock '/x' could not be acquired.",
        "dasd: stopped; what was written before is intact",
        "dasd: runs/x holds a run with other settings (training.save_steps)",
    ],
)
def test_a_candidate_whose_machine_failed_is_tried_again(tmp_path, monkeypatch, words):
    given = study(tmp_path, search=SEARCH)
    first, *others = all_cells(given)

    with monkeypatch.context() as patch:
        patch.setattr(work.subprocess, "run", failing(first, words))
        Work(given, 1, lambda cell: run_cell(cell) if cell.name == first.name else finish(cell)).go()
    assert not (given.output / "countdown/grpo/choice.json").exists()
    Work(given, 1, lambda cell: finish(cell, 0.9 if cell.name == first.name else 0.5)).go()
    assert all(cell.done for cell in others)
    assert chosen_for(next(cell for cell in others if cell.arm == "grpo" and cell.candidate is None)) == first.candidate


def test_what_only_watches_a_run_may_change_while_a_cell_is_under_way(tmp_path, monkeypatch):
    given = study(tmp_path)
    first = all_cells(given)[0]
    claim(first.folder, first.run_config({}))
    edited(tmp_path, training=BASE["training"] | {"save_steps": 3, "report_steps": 1}, validation={"limit": 4})
    asked = []

    def ends(start: list[str], **_: object) -> SimpleNamespace:
        asked.append(load_config(RunConfig, first.folder / "cell.yaml"))
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(work.subprocess, "run", ends)
    monkeypatch.setattr(work, "_last_words", lambda *_: "enough")
    run_cell(first)
    claim(first.folder, asked[0])  # it would be refused


def test_sections_with_nothing_under_them_change_nothing(tmp_path):
    plain = study(tmp_path, tasks={"countdown": {}})
    empty = {"training": {}, "teacher": None, "data": None, "method": {}}
    bare = study(
        tmp_path,
        tasks={"countdown": empty},
        arms={arm: {"training": {}, "teacher": None} | of for arm, of in SMALL["arms"].items()},
    )
    for one, other in zip(all_cells(plain), all_cells(bare), strict=True):
        assert one.run_config({}) == other.run_config({})
    assert all_cells(plain)[0].run_config({}).training.group_size == BASE["training"]["group_size"]


def test_arms_of_the_same_settings_are_refused(tmp_path, capsys):
    path = write(tmp_path, arms={"grpo": None, "dasd": None})
    assert cli.run(["study", str(path), "--plan"]) == 2
    assert "arms grpo and dasd have the same settings" in capsys.readouterr().err


def test_a_split_that_is_not_there_is_said_before_anything_is_trained(tmp_path, capsys):
    asked = {**SMALL["evaluation"], "split": "trian"}
    assert cli.run(["study", str(write(tmp_path, evaluation=asked)), "--plan"]) == 2
    assert (
        "evaluation.split 'trian' of bundled is not one of pretrain, train, validation, test, did you mean 'train'?"
        in capsys.readouterr().err
    )
    assert cli.run(["study", str(write(tmp_path, search={**SEARCH, "evaluation": asked})), "--plan"]) == 2
    assert "search.evaluation.split 'trian' of bundled is not one of" in capsys.readouterr().err
    mine = tmp_path / "mine"
    mine.mkdir()
    for split in ("train", "test"):
        (mine / f"{split}.jsonl").write_text(json.dumps(ROWS[0] | {"problem": split}) + "\n")
    check(all_cells(on(tmp_path, MATHS | {"source": str(mine)})))
    with pytest.raises(BadInput, match=r"evaluation\.split 'trian' of .*mine is not one of train, test"):
        check(all_cells(on(tmp_path, MATHS | {"source": str(mine)}, evaluation=asked)))


def test_a_setting_that_is_dotted_and_nested_is_refused(tmp_path):
    arms = {**SMALL["arms"], "dasd": {"method": {"name": "dasd", "beta": 0.2}, "method.beta": 0.3}}
    with pytest.raises(BadInput, match=r"method\.beta is there twice, dotted and under its section"):
        study(tmp_path, arms=arms)


def test_a_search_without_seeds_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"search\.seeds: seeds must be different numbers, at least one"):
        study(tmp_path, search={**SEARCH, "seeds": []})


def test_a_choice_of_another_search_is_refused(tmp_path, capsys):
    given = study(tmp_path, search=SEARCH)
    Work(given, 1, finish).go()
    path = write(tmp_path, search={**SEARCH, "grid": {"method.beta": [0.05, 0.2]}, "arms": {}})
    for what in ("--report", "--plan"):
        assert cli.run(["study", str(path), what]) == 2
        assert 'choice.json is the choice of another search ({"training.learning_rate": ' in capsys.readouterr().err


def test_a_study_of_the_same_folder_is_not_counted_again(tmp_path):
    path = write(tmp_path)
    path.with_name("copy.yaml").write_text(path.read_text())
    asked = {"probes": {}, "gains": {}, "beta": 0.1, "also": ["copy.yaml"]}
    with pytest.raises(BadInput, match=r"copy\.yaml would be counted twice"):
        load_study(write(tmp_path, predictions=asked), {})


def test_rollouts_of_an_arm_of_its_own_are_refused(tmp_path):
    for name, value in {"top_k": 1, "num_generations": 2, "shuffle_dataset": False}.items():
        arms = {**SMALL["arms"], "dasd": {"method": {"name": "dasd"}, "training": {"trl": {name: value}}}}
        with pytest.raises(BadInput, match=rf"arms\.dasd sets training\.trl\.{name}, which all arms of a task share"):
            study(tmp_path, arms=arms)


def test_a_rate_that_the_reference_did_not_get_is_said(tmp_path):
    search = {"grid": {}, "arms": {"dasd": {"training.learning_rate": [2e-4, 1e-3, 1e-2]}}, "seeds": [7]}
    given = study(tmp_path, search=search)
    Work(given, 1, finish).go()
    own = study(
        tmp_path / "own", arms={**SMALL["arms"], "dasd": {"method": {"name": "dasd"}, "training": {"learning_rate": 2e-4}}}
    )
    for of in (given, own):
        said = [text for text in results(of)["findings"] if text.startswith("Not of the method alone")]
        assert said == [
            "Not of the method alone, on countdown: grpo runs with training.learning_rate 0.0001, dasd with 0.0002."
        ]


def test_what_a_method_brings_with_it_is_not_apart(tmp_path):
    given = study(tmp_path, arms={"grpo": {"method": {"name": "grpo"}}, "dapo": {"method": {"name": "dapo"}}})
    assert not [text for text in results(given)["findings"] if text.startswith("Not of the method alone")]


def test_a_damaged_line_of_the_history_is_named(tmp_path, capsys):
    given = study(tmp_path)
    record(given)
    history = given.output / "history.jsonl"
    history.write_text('{"at": "2026-0' + history.read_text())  # as a full disk left it, and the next note was glued to it
    for what in ("--report", "--plan"):
        assert cli.run(["study", str(write(tmp_path)), what]) == 2
        assert f"dasd: {history}, line 1: not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["outcome.json", "cell.json", "choice.json"])
@pytest.mark.parametrize("held", ["", '{"steps": 1, "set'])
def test_a_file_of_the_study_that_was_cut_off_is_named(tmp_path, capsys, name, held):
    given = study(tmp_path, search=SEARCH)
    cell = next(cell for cell in all_cells(given) if cell.candidate is None)
    path = (cell.folder.parent if name == "choice.json" else cell.folder) / name
    path.parent.mkdir(parents=True)
    path.write_text(held)
    for what in ("--report", "--plan"):
        assert cli.run(["study", str(tmp_path / "study.yaml"), what]) == 2
        assert f"dasd: {path} is " in (said := capsys.readouterr().err)
        assert "delete it and give the command that wrote it again" in said


def test_a_suite_that_comes_after_the_cells_is_refused_by_report_and_plan(tmp_path, capsys):
    given = study(tmp_path)
    record(given)
    for cell in all_cells(given):
        answered(cell, [1, 1])
    path = write(tmp_path, suites={"countdown": ["countdown/more_numbers"]})
    before = sorted(given.output.rglob("*"))
    for what in ("--report", "--plan"):
        assert cli.run(["study", str(path), what]) == 2
        assert "another suites.countdown, which is fixed before the first run" in capsys.readouterr().err
    assert sorted(given.output.rglob("*")) == before
    (given.output / "history.jsonl").unlink()
    assert cli.run(["study", str(path), "--report"]) == 2
    assert (
        "grpo/seed-0 (the first of 4 cells) was not evaluated on countdown/more_numbers; set the study"
        in capsys.readouterr().err
    )


def test_a_setting_that_came_since_was_at_its_default(tmp_path):
    """Results of an earlier version were refused when `data.columns` got one more entry, and then no change of what a mapping
    of free keys says was seen."""
    for cell in all_cells(study(tmp_path)):
        done(cell)
        kept = json.loads((cell.folder / "outcome.json").read_text())
        del kept["settings"]["data"]["columns"]["further"], kept["settings"]["training"]["sampler"]
        write_json(cell.folder / "outcome.json", kept)
    assert results(study(tmp_path))["progress"]["done"] == 4

    for change, said in (
        ({"training": {"sampler": "trl"}}, r'training\.sampler \("auto", now "trl"\)'),
        ({"training": {"trl": {"beta": 0.04}}}, r"training\.trl \({}, now"),
        ({"teacher": {"chat_template_kwargs": {"x": 1}}}, r"teacher\.chat_template_kwargs \({}, now"),
    ):
        arms = {**SMALL["arms"], "dasd": SMALL["arms"]["dasd"] | change}
        with pytest.raises(BadInput, match=said):
            results(study(tmp_path, arms=arms))
    path = write(tmp_path)
    edited(tmp_path, data={"limit": 40, "columns": {"hint": "clue"}})
    with pytest.raises(BadInput, match=r'data\.columns .*"clue"'):
        results(load_study(path, {}))
