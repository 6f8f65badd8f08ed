"""Do problems arrive as their columns say, and is everything unfit found before anything is trained or sampled?"""

import csv
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dasd.config import BadInput, DataConfig, RunConfig, validate
from dasd.data.problems import as_row, check_lengths, check_problems, gold_faults, load_problems
from dasd.tasks.base import Problem
from dasd.tasks.countdown import CountdownTask
from dasd.tasks.math import MathTask

TASK = CountdownTask()
ROWS = [
    {"problem": "Use 3 7 8 to make 29.", "answer": "29", "solution": "3 * 7 = 21, 21 + 8 = 29"},
    {"problem": "Use 12 4 to make 3.", "answer": "3", "solution": "12 / 4 = 3"},
    {"problem": "Use 5 5 2 to make 12.", "answer": "12", "solution": "5 + 5 = 10, 10 + 2 = 12"},
]
PROBLEMS = [Problem(id=str(index), **row) for index, row in enumerate(ROWS)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


WRITERS = {
    ".jsonl": write_jsonl,
    ".json": lambda path, rows: path.write_text(json.dumps(rows), encoding="utf-8"),
    ".csv": write_csv,
    ".parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


@pytest.fixture
def dataset(tmp_path):
    """A function from rows to the path of a local file with them."""

    def write(rows, suffix=".jsonl", name="problems"):
        path = tmp_path / f"{name}{suffix}"
        WRITERS[suffix](path, rows)
        return path

    return write


def load(source, **settings):
    return load_problems(validate(DataConfig, {"source": str(source), **settings}))


def complaint(source, **settings):
    with pytest.raises(BadInput) as caught:
        load(source, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- local files


@pytest.mark.parametrize("suffix", WRITERS)
def test_local_files_of_every_kind(dataset, suffix):
    problems = load(dataset(ROWS, suffix))
    assert problems == PROBLEMS
    assert check_problems(problems, TASK, "solution") == []


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_are_mapped_and_others_left_alone(dataset, suffix):
    rows = [{"n": 1, "question": r["problem"], "final": int(r["answer"]), "cot": r["solution"], "problem": "no"} for r in ROWS]
    columns = {"problem": "question", "answer": "final", "solution": "cot"}
    assert load(dataset(rows, suffix), columns=columns) == PROBLEMS


def test_a_prompt_is_put_around_the_problem(dataset):
    path, words = dataset(ROWS), "{problem}\n\nPut your final answer within \\boxed{}."
    assert [p.problem for p in load(path, prompt=words)] == [words.replace("{problem}", row["problem"]) for row in ROWS]
    assert [p.answer for p in load(path, prompt=words)] == [row["answer"] for row in ROWS]
    assert "prompt must have {problem} in it" in complaint(path, prompt="Answer in a box.")
    assert "asked as they stand" in complaint("bundled", prompt="{problem} Now!")


def test_a_dataset_without_references(dataset):
    rows = [{"problem": row["problem"], "answer": row["answer"]} for row in ROWS]
    path = dataset(rows)
    assert [problem.solution for problem in load(path, columns={"solution": None})] == [None] * 3
    message = complaint(path)
    assert "has no column 'solution'" in message
    assert "Set data.columns.solution to the right one or null if there is none." in message


def test_empty_references_are_none(dataset):
    assert [p.solution for p in load(dataset([{**ROWS[0], "solution": None}, ROWS[1]]))] == [None, ROWS[1]["solution"]]


def test_a_file_is_the_split_that_is_asked_for(dataset):
    assert load(dataset(ROWS), split="test") == PROBLEMS


def test_limit_takes_the_first(dataset):
    path = dataset(ROWS)
    assert load(path, limit=2) == PROBLEMS[:2]
    assert load(path, limit=50) == PROBLEMS


def test_folder_with_splits(dataset, tmp_path):
    dataset(ROWS[:2], name="train")
    dataset(ROWS[2:], name="test")
    assert load(tmp_path) == PROBLEMS[:2]
    assert [problem.problem for problem in load(tmp_path, split="test")] == [ROWS[2]["problem"]]
    message = complaint(tmp_path, split="validation")
    assert message == f"{tmp_path} has no split 'validation'; it has train, test"


def test_text_stays_as_it_is(dataset):
    odd = {"problem": " Use 3 7 8 to make 29.\u2028\n'\"\\ 七", "answer": " 29 ", "solution": 'a\u2028b,\r\n"c"'}
    for suffix in (".jsonl", ".parquet"):
        assert load(dataset([odd], suffix)) == [Problem(id="0", **odd)]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("role", "column", "hint"),
    [("problem", "problm", "problem"), ("answer", "anser", "answer"), ("solution", "Solution", "solution")],
)
def test_a_wrong_column_names_the_nearest_and_lists_what_is_there(dataset, role, column, hint):
    message = complaint(dataset(ROWS), columns={role: column})
    assert f"has no column {column!r}, did you mean {hint!r}?" in message
    assert "It has: problem, answer, solution. " in message
    assert f"Set data.columns.{role} to the right one" in message


def test_a_column_like_no_other_lists_what_is_there(dataset):
    message = complaint(dataset(ROWS), columns={"answer": "zzz"})
    assert "did you mean" not in message
    assert "It has: problem, answer, solution. " in message


@pytest.mark.parametrize("empty", [None, "", "  \n"], ids=repr)
@pytest.mark.parametrize("role", ["problem", "answer"])
def test_an_empty_row_is_named(dataset, role, empty):
    message = complaint(dataset([ROWS[0], {**ROWS[1], role: empty}, {**ROWS[2], role: empty}]))
    assert f"row 1: column {role!r} is empty" in message


def test_an_empty_row_after_the_limit_does_not_matter(dataset):
    assert load(dataset([*ROWS, {**ROWS[0], "answer": None}]), limit=3) == PROBLEMS


@pytest.mark.parametrize("source", ["no.jsonl", "./no", "/no/such/folder", "no/such.parquet"])
def test_a_missing_file_is_not_looked_for_on_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaint(source) == f"data.source {source} does not exist"


def test_a_file_in_the_home_folder(dataset, tmp_path, monkeypatch):
    dataset(ROWS)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/problems.jsonl") == PROBLEMS


def test_a_file_with_brackets_in_its_name(dataset):
    assert load(dataset(ROWS, name="problems[1]")) == PROBLEMS


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "problems.txt"
    path.write_text("Use 3 7 8 to make 29.")
    assert complaint(path) == f"data.source {path}: unknown file type '.txt'; use .jsonl, .json, .parquet, .csv"


@pytest.mark.parametrize("name", ["nofile.txt", "folder/nofile.csv", "no.tsv", "no.jsonl.gz"])
def test_what_ends_like_a_file_is_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complaint(name) == f"data.source {name} does not exist"


# ---------------------------------------------------------------- bundled


def test_bundled_problems():
    problems = load("bundled", limit=20)
    assert len(problems) == 20
    assert load("bundled", limit=20) == problems != load("bundled", limit=20, seed=1)
    assert len(load("bundled")) == DataConfig().count
    assert check_problems(problems, TASK, "solution") == []
    assert {p.id for p in problems}.isdisjoint(p.id for p in load("bundled", split="test", limit=200))


def test_bundled_requests_that_cannot_be_met():
    assert (
        complaint("bundled", task="math")
        == "data.task math has no problems of its own (countdown, products, word_problems have): set data.source"
    )
    message = complaint("bundled", split="tst")
    assert message == "data.split 'tst' is not one of pretrain, train, validation, test, did you mean 'test'?"
    assert re.search(
        r"found only \d+ of 1500 validation problems .*: ask for fewer", complaint("bundled", split="validation", limit=1500)
    )


# ---------------------------------------------------------------- preflight


def change(index, **fields):
    """PROBLEMS with one of them changed."""
    return [Problem(**{**vars(p), **fields}) if i == index else p for i, p in enumerate(PROBLEMS)]


def found(problems, column="solution"):
    return [(finding.message, finding.fatal) for finding in check_problems(problems, TASK, column)]


def test_good_problems_have_no_findings():
    assert found(PROBLEMS) == found(PROBLEMS, None) == []


def test_gold_answers_that_do_not_grade_are_fatal():
    [(message, fatal)] = found(change(1, solution="12 / 3 = 4"))
    assert fatal
    assert message.startswith(
        "1 of 3 gold answers do not grade as right, first problem 1: 'answer: 12 / 3 = 4' is incorrect. Mend or drop these rows"
    )
    assert (
        "2 of 3 gold answers"
        in found([*change(1, solution="12 / 3 = 4")[:2], Problem("2", "Use 1 to make 2.", "2", "1 = 2")])[0][0]
    )


@pytest.mark.parametrize("gold", ["???", "nan", "\\frac{", "about forty or so", "NA"])
def test_golds_that_the_grader_cannot_read_are_fatal(dataset, gold):
    """However alike they look to themselves."""
    problems = load(dataset([{**ROWS[0], "answer": gold}, ROWS[1]]), task="math")
    [(problem, reason)] = gold_faults(problems, MathTask())
    assert (problem.id, problem.answer) == ("0", gold)
    assert "cannot read" in reason
    [finding] = check_problems(problems, MathTask(), None)
    assert finding.fatal


def test_duplicates_are_a_warning():
    again = Problem(id="3", problem=ROWS[0]["problem"], answer="29", solution="7 * 3 = 21, 21 + 8 = 29")
    assert found([*PROBLEMS, again, again]) == [("2 problems occur more than once", False)]


@pytest.mark.parametrize("empty", [None, ""], ids=repr)
def test_some_empty_references_are_a_warning(empty):
    problems = [PROBLEMS[0], Problem("7", "Use 12 4 to make 3.", "3", empty), PROBLEMS[2]]
    task = CountdownTask() if empty is None else _Lenient()
    [finding] = check_problems(problems, task, "solution")
    assert finding.message.startswith("1 of 3 problems have no reference solution (first: problem 7)")
    assert not finding.fatal
    assert check_problems(problems, task, None) == []


def test_no_references_at_all_are_fatal_where_there_is_a_teacher():
    problems = [Problem(p.id, p.problem, p.answer) for p in PROBLEMS]
    [(message, fatal)] = found(problems)
    assert fatal
    assert message.startswith("no problem has a reference solution, so there is no teacher: set data.columns.solution")
    assert found(problems, None) == []


class _Lenient(CountdownTask):
    """Gold answers come from the search, not from the reference."""

    def gold_completion(self, problem):
        return super().gold_completion(Problem(problem.id, problem.problem, problem.answer))


def test_problems_of_another_task_are_a_finding():
    [(message, fatal), *_] = found([Problem("0", "What is 1 + 2?", "3")])
    assert fatal
    assert "data.task" in message


# ---------------------------------------------------------------- lengths


def test_prompts_that_fit_exactly_are_accepted():
    lengths = {"0": 10, "1": 50, "2": 1}
    assert check_lengths(PROBLEMS, lambda p: lengths[p.id], 50, 100) == []


def test_prompts_that_are_too_long_are_counted_and_the_remedy_works():
    lengths = {"0": 51, "1": 70, "2": 10}
    [finding] = check_lengths(PROBLEMS, lambda p: lengths[p.id], 50, 100)
    assert finding.fatal
    assert finding.message.startswith("2 of 3 prompts are too long: problem 1 has 70 tokens")
    remedy = int(re.search(r"set training\.max_completion_length to (\d+) or less", finding.message)[1])
    assert remedy == 30
    assert check_lengths(PROBLEMS, lambda p: lengths[p.id], remedy, 100) == []
    assert len(check_lengths(PROBLEMS, lambda p: lengths[p.id], remedy + 1, 100)) == 1


@pytest.mark.parametrize("length", [100, 101, 500])
def test_a_prompt_that_fills_the_context_can_only_be_dropped(length):
    [finding] = check_lengths(PROBLEMS, lambda p: length, 50, 100)
    assert finding.fatal
    assert finding.message.endswith("Prompts are never cut: drop these rows.")


def test_without_a_known_context_length_nothing_is_too_long():
    assert check_lengths(PROBLEMS, lambda p: 10**9, 50, None) == []


def test_problems_that_occur_twice_with_two_answers_are_said():
    problems = [Problem("0", "3 + 4?", "7"), Problem("1", "3 + 4?", "8"), Problem("2", "1 + 1?", "2")]
    found = check_problems(problems, MathTask(), None)
    assert [finding.message for finding in found] == [
        "1 problem occurs more than once", "1 of them with another answer: '7' for problem 0, '8' for problem 1",
    ]  # fmt: skip
    assert not any(finding.fatal for finding in found)


def test_further_columns_reach_the_rewards_rows(tmp_path):
    """TRL gives a reward every column of the data; here those that are named, as text or JSON."""
    row = {
        "problem": "?",
        "answer": 4,
        "solution": "s",
        "level": 3.10,
        "tests": [[1, 2.50], {"in": "x", "ok": True}],
        "none": None,
    }
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row))
    columns = {"further": ["level", "tests", "none"]}
    [problem] = load_problems(DataConfig(task="math", source=str(path), columns=columns))
    found = as_row(problem)
    assert (found["level"], found["tests"], found["none"]) == ("3.1", '[[1, 2.5], {"in": "x", "ok": true}]', None)
    with pytest.raises(BadInput, match=r"has no column 'levl', did you mean 'level'.*Set data.columns.further"):
        load_problems(DataConfig(task="math", source=str(path), columns={"further": ["levl"]}))
    row["level"] = "\ud800"
    path.write_text(json.dumps(row))
    with pytest.raises(BadInput, match="row 0: column 'level' holds half of a surrogate pair"):
        load_problems(DataConfig(task="math", source=str(path), columns=columns))


@pytest.mark.parametrize(
    "name", ["answer", "prompts", "completion_ids", "trainer_state", "log_metric", "environments", "images"]
)
def test_a_further_column_has_no_name_that_rewards_or_trl_know(name):
    """TRL ended with a traceback, took the run for a multimodal one, or gave the reward something else."""
    with pytest.raises(BadInput, match=f"'{name}' means something else to rewards or to TRL"):
        validate(RunConfig, {"data": {"columns": {"further": [name]}}})


def test_every_problem_of_a_mixture_has_every_further_column(tmp_path):
    """The first row's columns are the dataset's: one without would take it from all others."""
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"problem": "?", "answer": "[1]", "solution": "s", "level": "hard"}))
    sources = [{"source": "bundled", "limit": 2}, {"source": str(path), "columns": {"further": ["level"]}}]
    problems = load_problems(DataConfig(sources=sources))
    assert [as_row(problem)["level"] for problem in problems] == [None, None, "hard"]
    with pytest.raises(BadInput, match=r"data\.columns\.further level: bundled problems have no further columns"):
        load_problems(DataConfig(columns={"further": ["level"]}))


@pytest.mark.parametrize("row", ["2 + 2?", "What is 1,5 + 1?"])
def test_another_separator_is_named(row, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(f"problem;answer;solution\n{row};4;4\n")
    with pytest.raises(BadInput, match="its fields are parted by ';', commas are read"):
        load_problems(DataConfig(task="math", source=str(path)))
