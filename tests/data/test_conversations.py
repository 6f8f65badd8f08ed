"""Is a conversation asked as one, up to its last question, and never with the answer that follows?"""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from dasd.config import BadInput, DataConfig, validate
from dasd.data.cells import is_conversation, question_of, reply_of
from dasd.data.problems import as_row, check_problems, load_problems
from dasd.tasks.math import MathTask

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "What is 2 + 3?"}
REPLY = {"role": "assistant", "content": "5"}
SECOND = {"role": "user", "content": "And twice that?"}
SECRET = {"role": "assistant", "content": "Twice 5 is 10."}
TURNS = [SYSTEM, FIRST, REPLY, SECOND, SECRET]
PARTS = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1?"}]
ROWS = [
    {"messages": TURNS, "answer": "10"},
    {"messages": [FIRST], "answer": "5"},
    {"messages": [{"role": "user", "content": PARTS}], "answer": "1"},
]
COLUMNS = {"problem": "messages", "solution": None}


def load(source, **settings):
    columns = {**COLUMNS, **settings.pop("columns", {})}
    return load_problems(validate(DataConfig, {"source": str(source), "task": "math", "columns": columns, **settings}))


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_student_sees_all_but_the_last_answer(tmp_path):
    problems = load(write(tmp_path, ROWS))
    assert [as_row(problem)["prompt"] for problem in problems] == [
        [SYSTEM, FIRST, REPLY, SECOND], [FIRST], [{"role": "user", "content": "What is 1?"}],
    ]  # fmt: skip
    assert [problem.problem for problem in problems] == ["And twice that?", "What is 2 + 3?", "What is 1?"]
    assert "Twice 5" not in json.dumps([as_row(problem) for problem in problems])
    assert check_problems(problems, MathTask(), None) == []


def test_the_last_answer_may_be_the_reference(tmp_path):
    problems = load(write(tmp_path, ROWS), columns={"solution": "messages"})
    assert [problem.solution for problem in problems] == ["Twice 5 is 10.", None, None]
    assert problems[0].messages == [SYSTEM, FIRST, REPLY, SECOND]


def test_parquet_and_a_saved_dataset_say_the_same(tmp_path):
    """Arrow fills in the keys that other messages have: they are nothing."""
    wanted = load(write(tmp_path, ROWS[:2]))
    rows = [{**row, "messages": [{**message, "name": None} for message in row["messages"]]} for row in ROWS[:2]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert load(tmp_path / "rows.parquet") == wanted
    DatasetDict({"train": Dataset.from_list(ROWS[:2])}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved") == wanted
    Dataset.from_list(ROWS[:2]).save_to_disk(tmp_path / "one")
    assert load(tmp_path / "one", split="test") == wanted


def test_words_around_the_last_question_alone(tmp_path):
    [problem] = load(write(tmp_path, ROWS[:1]), prompt="{problem}\nIn a box.", system_prompt="Think.")
    assert problem.messages == [
        {"role": "system", "content": "Think."}, FIRST, REPLY, {"role": "user", "content": "And twice that?\nIn a box."},
    ]  # fmt: skip
    assert (problem.problem, problem.question) == ("And twice that?\nIn a box.", "And twice that?")


def test_a_system_prompt_for_plain_problems_too(tmp_path):
    path = write(tmp_path, [{"messages": "What is 2 + 3?", "answer": 5}])
    [problem] = load(path, system_prompt="Think.")
    assert problem.messages == [{"role": "system", "content": "Think."}, FIRST]
    assert load(path)[0].prompt is None
    [bundled] = load_problems(DataConfig(limit=1, system_prompt="Think."))
    assert [message["role"] for message in bundled.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([SYSTEM, REPLY], "holds a conversation without a user message"),
        ([{"role": "human", "content": "a"}], "holds a message of role 'human'; roles are system, developer, user, assistant"),
        ([{"role": "user", "content": None}], "holds a message of role 'user' whose content is null, not text"),
        ([{"role": "user", "content": []}], "whose content is a list"),
        ([FIRST, {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}, SECOND], "holds a message with 'tool_calls'"),
        ([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], "with a part of type 'image': only text"),
        ([{"role": "user", "content": "  "}], "is empty"),
        (["What?"], "holds a list (['What?']), not text"),
        ([{"from": "human", "value": "What?"}], "holds a list"),
    ],
)
def test_what_is_no_conversation_is_refused_by_number(tmp_path, messages, reason):
    with pytest.raises(BadInput) as caught:
        load(write(tmp_path, [ROWS[1], {"messages": messages, "answer": "5"}]))
    assert "rows.jsonl, row 1: column 'messages' " in str(caught.value)
    assert reason in str(caught.value)


def test_same_last_words_are_not_the_same_question(tmp_path):
    rows = [ROWS[0], {"messages": [{"role": "user", "content": "What is 7?"}, REPLY, SECOND], "answer": "14"}]
    problems = load(write(tmp_path, [*rows, rows[0]]))
    assert [finding.message for finding in check_problems(problems, MathTask(), None)] == ["1 problem occurs more than once"]
    assert problems[0].digest == problems[2].digest != problems[1].digest


def test_parts():
    assert is_conversation(TURNS)
    assert not any(map(is_conversation, ["role", [], [1], {"role": "user"}, None, ["role"]]))
    assert question_of([FIRST, REPLY]) == [FIRST]
    assert reply_of([FIRST]) is None
