"""Does a study run its cells, go on after a kill, share its work, choose by its rule, and say what is supported?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from dasd import cli
from dasd.config import BadInput, RunConfig, load_config
from dasd.files import write_json
from dasd.study.cells import Cell, all_cells, asked_of, check, settings_of, slug
from dasd.study.config import Study, flat, load_study
from dasd.study.history import deviations, record
from dasd.study.methods import check_methods
from dasd.study.outcome import keep
from dasd.study.search import choose, read_choice, settle
from dasd.study.work import Work, estimate
from evaluation.test_groups import write as write_evaluation

ROOT = Path(__file__).parents[2]
BASE = {
    "data": {"limit": 40},
    "method": {"name": "dasd", "beta": 0.5},
    "training": {
        "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 8, "max_completion_length": 24, "learning_rate": 1e-4,
    },
}  # fmt: skip
SMALL = {
    "base": "base.yaml",
    "tasks": {"countdown": {"training": {"eval_steps": 1}, "validation": {"limit": 2, "num_samples": 1}}},
    "arms": {"grpo": {"method": {"name": "grpo"}}, "dasd": {"method": {"name": "dasd", "beta": 0.02}}},
    "reference": "grpo",
    "seeds": [0, 1],
    "steps": 1,
    "evaluation": {"limit": 3, "num_samples": 2},
}
SEARCH = {"grid": {"training.learning_rate": [1e-3, 1e-4]}, "arms": {"dasd": {"method.beta": [0.1, 0.2]}}, "seeds": [7]}


def write(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "plan.md").write_text("Nothing is expected.")
    path = folder / "study.yaml"
    path.write_text(json.dumps({"output": str(folder / "out"), **SMALL, **changes}))
    return path


def study(folder: Path, **changes: object) -> Study:
    return load_study(write(folder, **changes), {})


def outcome(cell: Cell, right: dict[str, list[int]], samples: int = 2) -> None:
    """What is kept of a cell that is done: of each problem of each set so many samples are right."""
    sets = {
        name: {"fingerprint": f"{name} {len(counts)}", "num_samples": samples, "right": counts, "figures": {"mean_length": 9.0}}
        for name, counts in right.items()
    }
    curves = {"reward": {step: step / 10 + cell.seed for step in (1, 2)}}
    cell.folder.mkdir(parents=True, exist_ok=True)
    made = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
    asked = {"seed": cell.seed, "evaluation": asked_of(cell)}
    write_json(cell.folder / "outcome.json", {"steps": 1, **asked, "made": made, "sets": sets, "curves": curves})


def finish(cell: Cell, score: float = 0.5) -> None:
    outcome(cell, {cell.own_set: [round(1000 * score)]}, samples=1000)


def answered(cell: Cell, right: list[int]) -> None:
    outcome(cell, {cell.own_set: right})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": "gpro"}, "did you mean 'grpo'"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"arms": {"grpo": {"training.steps": 9}}}, "budget and problems are matched"),
        ({"arms": {"grpo": {"training": {"group_size": 2}}}}, "budget and problems are matched"),
        ({"arms": {"grpo": {"model": {"path": "x"}}}}, "budget and problems are matched"),
        ({"tasks": {"a/b": {}}}, "folder's name"),
        ({"tasks": {"a": {"training": {"seed": 3}}}}, "which the study says itself"),
        ({"search": {**SEARCH, "seeds": [1]}}, "confirmed with fresh ones"),
        ({"search": {**SEARCH, "evaluation": {"split": "test"}}}, "choose on another split"),
        ({"search": {"arms": {"dads": {"method.beta": [1]}}}}, "did you mean 'dasd'"),
        ({"search": {"grid": {"method.beta": []}}}, "no values"),
        ({"suites": {"countdwn": ["countdown/more_numbers"]}}, "did you mean 'countdown'"),
        ({"suites": {"countdown": ["countdown/*"]}}, "without patterns"),
        ({"base": "absent"}, "neither a file beside"),
        ({"plan": "absent.md"}, "before the first run"),
    ],
)
def test_a_study_that_cannot_be_one_is_refused(tmp_path, changes, said):
    with pytest.raises(BadInput, match=said):
        check(all_cells(study(tmp_path, **changes)))


def test_an_unknown_setting_is_refused_with_the_cell(tmp_path):
    given = study(tmp_path, arms={"grpo": {"method": {"name": "grpo"}, "training": {"learning_rat": 1}}})
    with pytest.raises(BadInput, match=r"countdown/grpo/seed-0: unknown key .*learning_rate"):
        check(all_cells(given))


def test_an_arm_that_names_the_default_method_keeps_the_bases_settings(tmp_path):
    path = write(tmp_path, arms={"grpo": {"method": {"name": "grpo"}}, "dasd": {"method": {"name": "dasd"}}})
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"method": {"beta": 0.5}}))
    found = {cell.arm: cell.run_config({}).method for cell in all_cells(load_study(path, {}))}
    assert {arm: method.settings for arm, method in found.items()} == {"grpo": {}, "dasd": {"beta": 0.5}}


def test_an_unknown_suite_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(BadInput, match="did you mean 'countdown/more_numbers'"):
        check(all_cells(study(tmp_path, suites={"countdown": ["countdown/more_number"]})))


def test_suites_are_evaluated_beside_the_tasks_own_problems(tmp_path):
    given = study(tmp_path, suites={"countdown": ["countdown/more_numbers"]}, suite_limit=3, search=SEARCH)
    tried, *_, cell = all_cells(given)
    asked = cell.suites_config(cell.run_config({}))
    assert (asked.benchmarks, asked.limit, asked.num_samples) == (("countdown/more_numbers",), 3, 2)
    assert [command[0] for command in cell.commands()] == ["train", "eval", "eval"]
    assert cell.commands()[2][-1] == f"{cell.folder}/suites"
    assert [command[0] for command in tried.commands()] == ["train", "eval"]  # a choice is made on the task's own problems


def test_what_is_kept_of_a_cell_is_all_that_the_analysis_reads(tmp_path):
    """Samples, checkpoints and logs may go: the outcome is small, and holds the counts behind every figure."""
    cell, *_ = all_cells(study(tmp_path, suites={"countdown": ["countdown/more_numbers"]}))
    write_evaluation(cell.folder / "evaluation", [0, 2, 1])
    write_evaluation(cell.folder / "suites/model/countdown/more_numbers", [1, 1], suite="countdown/more_numbers")
    write_json(cell.folder / "evaluation/summary.json", {"num_samples": 2, "mean_length": 51.234567, "step_accuracy": None})
    write_json(cell.folder / "result.json", {"steps": 1})
    write_json(cell.folder / "run.json", {"git_revision": "abc", "hardware": "here", "versions": {"torch": "2"}})
    logged = [{"step": 1, "reward": 0.1234567}, {"step": 2, "reward": None}, {"step": 2, "loss": 1.0}]
    (cell.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged))
    (cell.folder / "validation.jsonl").write_text(json.dumps({"step": 0, "avg_at_4": 0.25}) + "\n")
    assert not cell.done
    keep(cell, cell.run_config({}))
    asked = {"source": None, "split": "test", "limit": 3, "num_samples": 2, "temperature": 1.0, "seed": 0}
    assert cell.outcome == {
        "steps": 1,
        "seed": 0,
        "evaluation": {**asked, "suite_limit": None},
        "settings": settings_of(cell.run_config({})),
        "made": {"started": None, "git_revision": "abc", "versions": {"torch": "2"}},
        "sets": {
            "test": {"fingerprint": "3", "num_samples": 2, "right": [0, 2, 1], "figures": {"mean_length": 51.235}},
            "countdown/more_numbers": {"fingerprint": "2", "num_samples": 2, "right": [1, 1], "figures": {}},
        },
        "curves": {"reward": {"1": 0.12346}, "entropy": {}, "length": {}, "teacher": {}, "validation": {"0": 0.25}},
    }
    assert cell.score == 0.5
    assert len((cell.folder / "outcome.json").read_text().splitlines()) < 40


def test_cells_come_arm_by_arm_the_search_first(tmp_path):
    names = [cell.name for cell in all_cells(study(tmp_path, search=SEARCH))]
    assert names[:4] == [
        "countdown/grpo/search/learning_rate=0.001/seed-7", "countdown/grpo/search/learning_rate=0.0001/seed-7",
        "countdown/grpo/seed-0", "countdown/grpo/seed-1",
    ]  # fmt: skip
    assert len(names) == len(set(names)) == 4 + (4 + 2)
    assert names[4] == "countdown/dasd/search/learning_rate=0.001,beta=0.1/seed-7"


def test_a_cell_is_the_base_with_task_arm_and_choice_over_it(tmp_path):
    given = study(tmp_path)
    grpo, *_, dasd = all_cells(given)
    run = grpo.run_config({"training.learning_rate": 3e-3})
    assert (run.method.name, run.method.settings) == ("grpo", {})  # the base's beta is another method's
    assert (run.training.learning_rate, run.training.steps, run.training.seed) == (3e-3, 1, 0)
    assert (run.training.eval_steps, run.validation.limit, run.output) == (1, 2, str(given.output / "countdown/grpo/seed-0"))
    assert dasd.run_config({}).method.settings == {"beta": 0.02}
    asked = grpo.eval_config(run)
    assert (asked.data.split, asked.data.limit, asked.num_samples, asked.max_completion_length) == ("test", 3, 2, 24)


def test_a_methods_own_teacher_and_loss_hold(tmp_path):
    cell, *_ = all_cells(study(tmp_path, arms={"grpo": {"method": {"name": "sdpo"}}}))
    assert cell.run_config({}).teacher.weights == "ema"


def test_the_rule_is_highest_mean_and_ties_go_to_the_smaller_rate():
    rate = "training.learning_rate"
    assert choose([({rate: 1e-3}, 0.4), ({rate: 1e-4}, 0.5)]) == {rate: 1e-4}
    assert choose([({rate: 1e-3}, 0.1 + 0.2), ({rate: 1e-4}, 0.3)]) == {rate: 1e-4}
    assert choose([({rate: 1e-3}, None), ({rate: 1e-4}, 0.0)]) == {rate: 1e-4}
    assert choose([({rate: 1e-3}, None)]) is None


def test_a_choice_waits_for_the_whole_search_and_stands(tmp_path):
    given = study(tmp_path, search=SEARCH)
    high, low, *_ = all_cells(given)
    assert read_choice(given, "countdown", "grpo") is None
    finish(high, 0.5)
    assert settle(given, "countdown", "grpo", {}) is None
    finish(low, 0.6)
    assert settle(given, "countdown", "grpo", {})["chosen"] == {"training.learning_rate": 1e-4}
    finish(low, 0.1)
    assert settle(given, "countdown", "grpo", {})["chosen"] == {"training.learning_rate": 1e-4}


def test_a_candidate_that_failed_is_not_chosen(tmp_path):
    given = study(tmp_path, search=SEARCH)
    high, low, *_ = all_cells(given)
    finish(high, 0.0)
    assert settle(given, "countdown", "grpo", {low.name: "diverged"})["chosen"] == {"training.learning_rate": 1e-3}


def test_a_candidate_that_was_killed_is_not_judged(tmp_path):
    """The search stays open until the command is given again; the arm's own cells are not run with a choice of the rest."""
    given, worked = study(tmp_path, search=SEARCH), []

    def run(cell: Cell) -> str | None:
        worked.append(cell.name)
        if len(worked) == 1:
            return "killed by signal 9"
        finish(cell)
        return None

    first = all_cells(given)[0]
    assert Work(given, 1, run).go() == {first.name: "killed by signal 9"}
    assert not any(cell.done for cell in all_cells(given) if cell.arm == "grpo" and cell.candidate is None)
    assert Work(given, 1, run).go() == {}
    assert worked[10 - 2 :] == [first.name, "countdown/grpo/seed-0", "countdown/grpo/seed-1"]


def test_failed_cells_are_said_and_the_others_go_on(tmp_path):
    given, worked = study(tmp_path), []

    def run(cell: Cell) -> str | None:
        worked.append(cell.name)
        if cell.arm == "grpo" and cell.seed == 0:
            return "no luck"
        finish(cell)
        return None

    assert Work(given, 1, run).go() == {"countdown/grpo/seed-0": "no luck"}
    assert worked == [cell.name for cell in all_cells(given)]
    worked.clear()
    Work(given, 1, run).go()
    assert worked == ["countdown/grpo/seed-0"]  # tried again, the others are done


def test_two_of_them_share_the_work(tmp_path):
    given, worked, turn = study(tmp_path, seeds=list(range(6))), [], threading.Lock()

    def run(cell: Cell) -> None:
        with turn:
            worked.append(cell.name)
        time.sleep(0.02)
        finish(cell)

    both = [threading.Thread(target=Work(given, 2, run).go) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(worked) == sorted(cell.name for cell in all_cells(given))


def test_a_cell_that_another_process_works_on_is_waited_for_and_taken_up(tmp_path):
    given = study(tmp_path)
    cells = all_cells(given)
    cells[0].folder.mkdir(parents=True)
    lock = FileLock(cells[0].folder / ".cell.lock", thread_local=False)
    lock.acquire()
    worked: list[str] = []

    def run(cell: Cell) -> None:
        worked.append(cell.name)
        finish(cell)
        if len(worked) == 3:
            lock.release()  # as one does that is killed

    Work(given, 1, run).go()
    assert worked == [cell.name for cell in [*cells[1:], cells[0]]]


def test_main_cells_wait_for_their_search(tmp_path):
    given, worked = study(tmp_path, search=SEARCH), []

    def run(cell: Cell) -> None:
        worked.append((cell.name, cell.candidate is None and read_choice(given, cell.task, cell.arm) is None))
        time.sleep(0.01)
        finish(cell)

    Work(given, 3, run).go()
    assert len(worked) == 10
    assert not any(too_early for _, too_early in worked)


def test_time_left_is_that_of_cells_alike(tmp_path):
    cells = all_cells(study(tmp_path))
    assert estimate(cells, 2) is None
    finish(cells[0])
    (cells[0].folder / "cell.json").write_text(json.dumps({"seconds": 10.0}))
    assert estimate(cells, 1) == 30
    assert estimate(cells, 3) == 10


def test_changes_of_the_plan_are_deviations_and_fixed_ones_are_refused(tmp_path):
    given = study(tmp_path)
    assert deviations(given) == []
    record(given)
    record(given)
    assert deviations(given) == []
    (tmp_path / "plan.md").write_text("All was expected.")
    [said] = deviations(given)
    assert said.startswith("The plan was changed since the last run")
    record(given)
    assert len(deviations(given)) == 1
    more = study(tmp_path, seeds=[0, 1, 2])
    assert any("seeds" in said for said in deviations(more))
    with pytest.raises(BadInput, match=r"another steps"):
        record(study(tmp_path, steps=2))
    suites = {"suites": {"countdown": ["countdown/more_numbers"]}}
    with pytest.raises(BadInput, match=r"another suites\.countdown"):
        record(study(tmp_path, **suites))
    later = {"tasks": {**SMALL["tasks"], "later": {}}, "suites": {"later": ["countdown/more_numbers"]}}
    record(study(tmp_path, **later))  # a task that comes later brings its suites, which are fixed from then on
    with pytest.raises(BadInput, match=r"another suites\.later"):
        record(study(tmp_path, **{**later, "suites": {}}))
    (tmp_path / "plan.md").write_text("All was expected.")
    kept = {path.read_text() for path in given.output.glob("plan-*.md")}
    assert kept == {"Nothing is expected.", "All was expected."}


def test_small_things():
    assert flat({"a": {"b": 1, "c.d": 2}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}
    assert slug({"method.map": "soft/hard"}) == "map=soft_hard"


@pytest.mark.parametrize(
    ("file", "cells"),
    [
        ("example/study", 8),
        ("direction/study", 2 * 6 * 7),
        ("direction/forms", 42 * 5),
        ("lookahead/study", 2 * 3 * 7),
        ("direction/products", 21 * 3),
        ("two_sided/study", 2 * 3 * 5),
        ("sooner/study", 2 * 6),
    ],
)
def test_the_studies_that_ship_can_be_run(file, cells):
    given = load_study(ROOT / f"studies/{file}.yaml", {})
    check(all_cells(given))
    check_methods(given)
    assert len(all_cells(given)) == cells


def test_a_study_with_failures_ends_with_1_after_its_report(tmp_path, capsys, monkeypatch):
    def run(cell: Cell) -> str | None:
        if cell.arm == "dasd" and cell.seed == 1:
            return "dasd train ended with 1: it diverged"
        answered(cell, [1, 2, 0])
        return None

    monkeypatch.setattr("dasd.study.work.Work", lambda given, workers: Work(given, workers, run))
    path = write(tmp_path)
    assert cli.run(["study", str(path), "--workers", "2"]) == 1
    said = capsys.readouterr()
    assert "1 of 4 cells failed: countdown/dasd/seed-1" in said.err
    assert "3 of 4 cells are done, 1 failed" in said.out
    found = json.loads((tmp_path / "out/study.json").read_text())
    assert [cell["why"] for cell in found["cells"]] == [None, None, None, "dasd train ended with 1: it diverged"]


def test_a_methods_unknown_setting_is_said_before_anything_is_written(tmp_path, capsys):
    path = write(tmp_path, arms={"grpo": {"method": {"name": "grpo"}}, "dasd": {"method": {"name": "dasd", "betta": 1}}})
    assert cli.run(["study", str(path)]) == 2
    assert "countdown/dasd/seed-0: method dasd has no setting 'betta'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_plan_says_what_would_be_run_and_writes_nothing(tmp_path, capsys):
    path = write(tmp_path, search=SEARCH)
    assert cli.run(["study", str(path), "--plan"]) == 0
    said = capsys.readouterr().out
    assert said.count("    dasd train ") == said.count("    dasd eval ") == 10
    assert "countdown/grpo/seed-0: open (settings: from its search)" in said
    assert "time left: unknown until a cell is done" in said
    assert not (tmp_path / "out").exists()
    assert cli.run(["study", str(path), "--slurm", "--workers", "7"]) == 0
    assert "#SBATCH --array=1-7\n" in capsys.readouterr().out


def start(path: Path, *more: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, "-m", "dasd", "study", str(path), *more], env=environment)


@pytest.mark.slow
def test_from_a_kill_to_the_report(tmp_path, capsys):
    """Killed within a cell, the command is given again: no cell is done twice, and table, text, figures and page are there.

    One seed of each arm is run, the other is a copy of the reference's, turned round: a cell takes three processes.
    """
    path = write(tmp_path, suites={"countdown": ["countdown/more_numbers"]}, suite_limit=2)
    given = load_study(path, {})
    first, other, second, copied = all_cells(given)
    for cell in (other, copied):  # done for the time being
        outcome(cell, {name: [0] for name in (cell.own_set, *cell.suites)})
    study_process = start(path)
    try:
        end = time.monotonic() + 240
        while not (first.done and (second.folder / "log.txt").exists()):
            assert time.monotonic() < end
            assert study_process.poll() is None
            time.sleep(0.1)
    finally:
        study_process.send_signal(signal.SIGKILL)
        study_process.wait()
    before = (first.folder / "outcome.json").stat().st_mtime
    kept = {name: value for name, value in first.outcome.items() if name != "settings"}
    for found in kept["sets"].values():
        found["right"].reverse()
    for cell in (other, copied):
        write_json(cell.folder / "outcome.json", {**kept, "seed": cell.seed})
    assert cli.run(["study", str(path), "--report", "--json"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert half["progress"]["done"] == 3
    assert [row["avg"]["verdict"] for row in half["results"]] == ["reference", "one seed"] * 2
    assert cli.run(["study", str(path), "--workers", "2", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["progress"]["done"] == whole["progress"]["cells"] == 4
    assert (first.folder / "outcome.json").stat().st_mtime == before
    right = {name: [cell.outcome["sets"][name]["right"] for cell in (second, copied, first, other)] for name in kept["sets"]}
    assert {name: len(counts[0]) for name, counts in right.items()} == {"test": 3, "countdown/more_numbers": 2}
    reference, dasd, *suites = whole["results"]
    assert [(row["set"], row["problems"]) for row in suites] == [("countdown/more_numbers", 2)] * 2
    assert (dasd["seeds"], dasd["avg"]["difference"]["seeds"], reference["avg"]["difference"]) == ([0, 1], 2, None)
    figures = [json.loads((cell.folder / "evaluation/summary.json").read_text()) for cell in (second, first)]
    for kind, of in (("avg", lambda counts: sum(counts) / 6), ("pass", lambda counts: sum(map(bool, counts)) / 3)):
        ours, copy, theirs, reversed_copy = map(of, right["test"])
        assert [ours, theirs] == pytest.approx([each[f"{kind}_at_2"] for each in figures])
        assert dasd[kind]["difference"]["mean"] == pytest.approx((ours + copy - theirs - reversed_copy) / 2)
    assert dasd["curves"]["reward"]["step"] == [1]
    assert dasd["curves"]["validation"]["step"] == [0, 1]
    assert whole["deviations"] == []
    assert load_config(RunConfig, second.folder / "config.yaml").method.settings["beta"] == 0.02
    page = (given.output / "study.html").read_text()
    assert "What is supported, and what is not" in page
    assert page.count("<svg") >= 4
    assert (given.output / "findings.md").read_text().startswith("* ")
