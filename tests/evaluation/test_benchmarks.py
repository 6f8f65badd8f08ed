"""Does every benchmark read its dataset's columns, and is a mistake named before anything is sampled?

The rows are made up; their columns are those of the datasets on the hub.
"""

import json

import pytest
from datasets import Dataset

from dasd.config import BadInput, DataConfig, EvalConfig, load_config, validate
from dasd.data.problems import gold_faults
from dasd.evaluation.benchmarks import benchmark_names, benchmarks, choose, data_suite, load_suite, load_suites
from dasd.tasks import make_task

# fmt: off
ROWS = {
    "aime24": [{"id": 60, "problem": "What is $100+4$?", "solution": "Add.", "answer": "104", "url": "", "year": "2024"}],
    "aime25": [{"problem": "What is $7\\cdot 10$?", "answer": "70", "id": "0"}],
    "hmmt25": [{"problem_idx": 1, "problem": "Half of $\\pi$?", "answer": "\\frac{\\pi}{2}", "problem_type": ["Algebra"]}],
    "amc23": [{"id": 0, "question": "What is $3^3$?", "answer": 27.0, "url": ""}],
    "math500": [
        {
            "problem": "Where is the origin?", "solution": "At \\boxed{(0, 0)}.", "answer": "\\left( 0, 0 \\right)",
            "subject": "Precalculus", "level": 1, "unique_id": "test/precalculus/1.json",
        }
    ],
    "minerva": [{"question": "How far is it in cm?", "answer": "1.5e3"}],
    "olympiadbench": [
        {
            "id": 1, "question": "Find all roots.", "solution": ["Factor."], "final_answer": ["$1$", "$2$"], "context": None,
            "image_1": None, "modality": "Text-only", "is_multiple_answer": True, "unit": None, "answer_type": "Numerical",
        },
        {
            "id": 2, "question": "Find $r$.", "solution": ["a", "b"], "final_answer": ["$\\frac{1}{2}$"], "context": "Let.",
            "image_1": None, "modality": "Text-only", "is_multiple_answer": False, "unit": None, "answer_type": "Numerical",
        },
    ],
    "gpqa_diamond": [
        {
            "Question": f"Which letter follows {letter}?", "Correct Answer": "right\n", "Incorrect Answer 1": "wrong 1",
            "Incorrect Answer 2": "wrong 2", "Incorrect Answer 3": "wrong 3", "Explanation": "alphabet", "Record ID": "rec",
        }
        for letter in "abcdefgh"
    ],
    "mmlu_pro": [
        {
            "question_id": 70, "question": "Which is a colour?", "options": ["stone", "red", "seven"], "answer": "B",
            "answer_index": 1, "cot_content": "", "category": "business", "src": "",
        }
    ],
}
# fmt: on


def write(folder, name, rows=None):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS[name]))
    return str(folder)


def test_there_are_rows_for_every_entry():
    assert set(ROWS) == set(benchmarks())


@pytest.mark.parametrize("name", ROWS)
def test_every_entry_reads_its_dataset(name, tmp_path):
    suite = load_suite(name, write(tmp_path, name))
    assert [problem.id for problem in suite.problems] == [str(i) for i in range(len(ROWS[name]))]
    question = next(iter(row for key, row in ROWS[name][0].items() if key.lower() in ("problem", "question")))
    assert question in suite.problems[0].problem
    assert "\\boxed{}" in suite.prompt
    assert suite.prompt.startswith("{problem}")
    assert suite.defaults["num_samples"] >= 1
    assert len(suite.source["fingerprint"]) == 64
    for key in benchmarks()[name].defaults:
        assert key in EvalConfig.model_fields


@pytest.mark.parametrize("task", ["math", "choice"])
def test_gold_answers_grade_as_right(task, tmp_path):
    if task == "choice":
        pytest.importorskip("dasd.tasks.choice")
    problems = []
    for name, benchmark in benchmarks().items():
        if benchmark.task == task:
            problems += load_suite(name, write(tmp_path, name)).problems
    assert gold_faults(problems, make_task(task)) == []
    assert len(problems) > 5


def test_lists_and_context_of_olympiadbench(tmp_path):
    first, second = load_suite("olympiadbench", write(tmp_path, "olympiadbench")).problems
    assert (first.problem, first.answer, first.solution) == ("Find all roots.", "1, 2", "Factor.")
    assert second.problem == "Let.\n\nFind $r$."
    assert second.answer == "\\frac{1}{2}"


def test_an_answer_that_is_stored_as_a_real_number_is_whole(tmp_path):
    assert load_suite("amc23", write(tmp_path, "amc23")).problems[0].answer == "27"


def test_options_are_lettered_and_the_answer_is_a_letter(tmp_path):
    problem = load_suite("mmlu_pro", write(tmp_path, "mmlu_pro")).problems[0]
    assert problem.problem == "Which is a colour?\n\nA) stone\nB) red\nC) seven"
    assert problem.answer == "B"


def test_right_answers_are_shuffled_among_the_wrong_ones_the_same_way_for_ever(tmp_path):
    folder = write(tmp_path, "gpqa_diamond")
    problems = load_suite("gpqa_diamond", folder).problems
    for problem in problems:
        assert f"{problem.answer}) right" in problem.problem.splitlines()
        assert sorted(line[3:] for line in problem.problem.splitlines()[2:]) == ["right", "wrong 1", "wrong 2", "wrong 3"]
    assert len({problem.answer for problem in problems}) > 2
    assert load_suite("gpqa_diamond", folder).problems == problems
    fewer = ROWS["gpqa_diamond"][3:]
    assert [p.problem for p in load_suite("gpqa_diamond", write(tmp_path, "gpqa_diamond", fewer)).problems] == [
        p.problem for p in problems[3:]
    ]


def test_parquet_is_read_too(tmp_path):
    from_lines = load_suite("mmlu_pro", write(tmp_path, "mmlu_pro"))
    (tmp_path / "other").mkdir()
    Dataset.from_list(ROWS["mmlu_pro"]).to_parquet(str(tmp_path / "other" / "mmlu_pro.parquet"))
    from_table = load_suite("mmlu_pro", str(tmp_path / "other"))
    assert from_table.problems == from_lines.problems
    assert from_table.fingerprint == from_lines.fingerprint


def test_a_fingerprint_is_of_what_is_asked(tmp_path):
    suite = load_suite("aime25", write(tmp_path, "aime25"))
    mended = load_suite("aime25", write(tmp_path, "aime25", [{**ROWS["aime25"][0], "answer": "71"}]))
    other = load_suite("aime25", write(tmp_path, "aime25", [{**ROWS["aime25"][0], "problem": "What?"}]))
    assert suite.fingerprint == mended.fingerprint != other.fingerprint
    assert suite.source["fingerprint"] != mended.source["fingerprint"]


def test_patterns_name_benchmarks_once_and_in_order():
    assert choose(["amc23", "aime*", "aime24"]) == ["amc23", "aime24", "aime25"]
    assert len(choose(["countdown/*"])) == 6
    assert choose(["*"]) == benchmark_names()
    for typo, meant in (("aime26", "aime2"), ("countdown/more_number", "'countdown/more_numbers'"), ("minverva", "'minerva'")):
        with pytest.raises(BadInput, match=rf"no benchmark is named '{typo}', did you mean '?{meant}"):
            choose([typo])


def test_what_the_user_sets_wins_over_the_benchmarks_defaults(tmp_path):
    folder = write(tmp_path, "math500")
    config = validate(EvalConfig, {"benchmarks": "math500, countdown/in_distribution", "data_dir": folder, "temperature": 0.3})
    first, second = load_suites(config)
    assert first.settings(config).num_samples == 4
    assert first.settings(config).max_completion_length == 16384
    assert first.settings(config).temperature == 0.3
    assert second.settings(config).num_samples == 16
    assert second.settings(config).max_completion_length == 128


def test_limit_takes_the_first_problems():
    config = EvalConfig(benchmarks=("countdown/distractor",), limit=3)
    (suite,) = load_suites(config)
    assert suite.problems == load_suite("countdown/distractor").problems[:3]


def test_limit_takes_the_first_problems_of_data():
    """`dasd eval bundled --limit 64` asked all 200, in silence."""
    (suite,) = load_suites(EvalConfig(limit=3))
    assert suite.problems == data_suite(EvalConfig().data).problems[:3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmarks", "countdown/distractor", "--data.limit", "5"], "data.limit does nothing where --benchmarks .*--limit"),
        (["--benchmarks", "countdown/distractor", "--data.source", "my.jsonl"], "data.source does nothing where --benchmarks"),
        (["--benchmarks", "countdown/distractor", "--data.split", "validation"], "data.split does nothing"),
        (["--data_dir", "somewhere"], "data_dir is where the files of benchmarks are"),
    ],
)  # fmt: skip
def test_what_says_which_problems_are_asked_is_heard(words, message):
    with pytest.raises(BadInput, match=message):
        load_config(EvalConfig, None, words)


def test_benchmarks_hear_the_task_and_the_system_prompt():
    words = ["--benchmarks", "products/in_distribution", "--data.task", "products", "--data.system_prompt", "Think."]
    assert load_config(EvalConfig, None, words).data.system_prompt == "Think."


def test_without_benchmarks_the_data_section_is_evaluated():
    (suite,) = load_suites(EvalConfig(data=DataConfig(split="test", limit=5)))
    assert (suite.name, suite.task, len(suite.problems), suite.prompt) == ("countdown:test", "countdown", 5, "{problem}")
    assert data_suite(DataConfig(split="test", limit=5)).problems == suite.problems


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"problems": "x", "answer": "1"}], "needs a column 'problem', did you mean 'problems'"),
        ([{"problem": "x", "answer": ""}], "row 0: column 'answer' is empty"),
        ([{"problem": "x", "answer": "1"}, {"problem": " ", "answer": "1"}], "row 1: column 'problem' is empty"),
        ([{"problem": None, "answer": "1"}], "row 0: column 'problem' is empty"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, rows, message):
    with pytest.raises(BadInput, match=message):
        load_suite("aime25", write(tmp_path, "aime25", rows))


def test_missing_data_says_what_to_do(tmp_path):
    with pytest.raises(BadInput, match=r"put one of amc23\.jsonl, .* there"):
        load_suite("amc23", str(tmp_path))
