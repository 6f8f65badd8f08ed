"""Does each kind of file arrive to the letter, and is everything else one message with its line?"""

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dasd.config import BadInput, DataConfig, validate
from dasd.data.files import Number, float_text, read_file
from dasd.data.problems import load_problems

BIG = 3**50  # 717897987691852588770249


def answers(path, **settings):
    config = {"source": str(path), "task": "math", "columns": {"solution": None, **settings}}
    return [problem.answer for problem in load_problems(validate(DataConfig, config))]


def complaint(path, **settings):
    with pytest.raises(BadInput) as caught:
        answers(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl(tmp_path, *golds):
    """A file in which each gold answer stands as this piece of JSON."""
    return written(tmp_path, "golds.jsonl", "".join(f'{{"problem": "What?", "answer": {gold}}}\n' for gold in golds))


# ---------------------------------------------------------------- to the letter

NUMBERS = ["717897987691852588770249", "2e-5", "0.10", "-0", "1E400", "5", "27.0", "9" * 5000]


def test_numbers_of_json_stay_their_text(tmp_path):
    assert answers(jsonl(tmp_path, *NUMBERS)) == NUMBERS
    rows = ", ".join(f'{{"problem": "What?", "answer": {gold}}}' for gold in NUMBERS)
    assert answers(written(tmp_path, "golds.json", f"[{rows}]")) == NUMBERS


TEXTS = ["NA", "nan", "null", "None", "true", "007", "1_000", " 5 ", "2024-01-01", "inf", "\\frac{1}{2}", "1,5", "a\u2028b"]


def test_texts_stay_what_they_are(tmp_path):
    assert answers(jsonl(tmp_path, *map(json.dumps, TEXTS))) == TEXTS
    quoted = "".join(f'What?,"{text}"\n' for text in TEXTS)
    assert answers(written(tmp_path, "golds.csv", f"problem,answer\n{quoted}")) == TEXTS
    table = pa.table({"problem": ["What?"] * len(TEXTS), "answer": TEXTS})
    pq.write_table(table, tmp_path / "golds.parquet")
    assert answers(tmp_path / "golds.parquet") == TEXTS
    coded = table.set_column(1, "answer", table["answer"].dictionary_encode())
    pq.write_table(coded, tmp_path / "coded.parquet")
    assert answers(tmp_path / "coded.parquet") == TEXTS


def test_csv_is_read_as_it_stands(tmp_path):
    text = f'\ufeffproblem,answer\r\n"How many,\r\nsay?",{BIG}\r\nWhat?,5\r\n\r\n"say ""so""",2e-5\r\n'
    path = written(tmp_path, "golds.csv", text)
    assert read_file(path).columns == ["problem", "answer"]
    assert [row["problem"] for row in read_file(path).rows] == ["How many,\r\nsay?", "What?", 'say "so"']
    assert answers(path) == [str(BIG), "5", "2e-5"]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([2**62, -5], pa.int64()), [str(2**62), "-5"]),
        (pa.array([2**64 - 1, 0], pa.uint64()), [str(2**64 - 1), "0"]),
        (pa.array([decimal.Decimal(BIG), decimal.Decimal(7)], pa.decimal128(38, 0)), [str(BIG), "7"]),
        (pa.array([decimal.Decimal("0.10"), decimal.Decimal("2.50")], pa.decimal128(5, 2)), ["0.10", "2.50"]),
        (pa.array([2e-5, 0.1], pa.float64()), ["0.00002", "0.1"]),
        (pa.array([0.1, 27.0], pa.float32()), ["0.1", "27"]),
        (pa.array([1.5e-300, -2.5e40], pa.float64()), ["1.5E-300", None]),
        (pa.array([5.0, 2.0**52], pa.float64()), ["5", str(2**52)]),
    ],
)
def test_types_of_parquet(tmp_path, column, texts):
    if None in texts:
        texts, column = texts[:1], column[:1]
    pq.write_table(pa.table({"problem": ["What?"] * len(column), "answer": column}), tmp_path / "golds.parquet")
    assert answers(tmp_path / "golds.parquet") == texts


@pytest.mark.parametrize("value", [0.1, 1 / 3, 2e-5, 123456.789, 5e-324, 1.7e-20, -0.25, 1e15 + 0.5])
def test_a_float_is_its_own_text_again(value):
    assert float(float_text(value)) == value


def test_a_file_of_json_in_other_forms(tmp_path):
    one = '{"problem": "What?", "answer": 5}'
    assert answers(written(tmp_path, "one.json", one)) == ["5"]
    assert answers(written(tmp_path, "lines.json", f"{one}\n\n{one}\r\n")) == ["5", "5"]
    assert answers(written(tmp_path, "blank.jsonl", f"\n{one}\n  \n")) == ["5"]
    table = read_file(written(tmp_path, "ragged.jsonl", '{"a": 1}\n{"b": 2, "a": null}\n'))
    assert (table.columns, table.rows) == (["a", "b"], [{"a": "1", "b": None}, {"a": None, "b": "2"}])
    assert isinstance(table.rows[0]["a"], Number)


# ---------------------------------------------------------------- refused by number, with the reason


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ('["3", "5"]', "holds a list (['3', '5']), not text: give one text a row"),
        ("[]", "holds a list"),
        ('{"value": 3}', "holds an object with the keys value, not text"),
        ("true", "holds true, not text"),
        ("NaN", "holds NaN (a missing value?)"),
        ("-Infinity", "holds an infinite number"),
        ("null", "is empty; every row needs a gold answer"),
        ('"\\ud800"', "holds half of a surrogate pair"),
        ('[{"role": "user", "content": "What?"}]', "holds a conversation, which only the problem's column may"),
    ],
)
def test_cells_of_json_that_have_no_text(tmp_path, gold, reason):
    message = complaint(jsonl(tmp_path, "5", gold, "6", gold))
    assert f"golds.jsonl, row 1: column 'answer' {reason}" in message
    assert message.endswith("(1 more rows cannot be used either)")


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([True, False]), "holds true, not text"),
        (pa.array([datetime.date(2024, 5, 1)] * 2), "holds the date or time 2024-05-01: store the text that is meant"),
        (pa.array([datetime.datetime(2024, 5, 1, 12)] * 2, pa.timestamp("ns")), "holds the date or time 2024-05-01 12:00"),
        (pa.array([datetime.timedelta(hours=1)] * 2), "holds the date or time 1:00:00"),
        (pa.array([[3, 5], [1]]), "holds a list ([3, 5]), not text"),
        (pa.array([{"a": 3}, {"a": 5}]), "holds an object with the keys a"),
        (pa.array([b"5", b"6"]), "holds bytes, not text"),
        (pa.array([float("nan"), 5.0]), "holds NaN"),
        (pa.array([float(BIG), 5.0]), "holds 7.178979876918526e+23, a whole number as a float, which has lost digits"),
        (pa.array([None, 5.0]), "is empty; every row needs a gold answer"),
        (pa.array([None, None], pa.null()), "is empty"),
    ],
)
def test_cells_of_parquet_that_have_no_text(tmp_path, column, reason):
    pq.write_table(pa.table({"problem": ["What?"] * 2, "answer": column}), tmp_path / "golds.parquet")
    assert f"golds.parquet, row 0: column 'answer' {reason}" in complaint(tmp_path / "golds.parquet")


def test_a_column_that_python_cannot_hold_keeps_no_other_from_being_read(tmp_path):
    odd = {
        "lasts": pa.array([1, 2], pa.duration("ns")),
        "late": pa.array([2**61, 5], pa.timestamp("us", tz="Nowhere/Land")),
        "later": pa.array([4_000_000, 5], pa.date32()),
    }
    pq.write_table(pa.table({"problem": ["What?"] * 2, "answer": ["5", "6"], **odd}), tmp_path / "golds.parquet")
    assert answers(tmp_path / "golds.parquet") == ["5", "6"]
    for name in odd:
        assert f"column {name!r} holds the date or time" in complaint(tmp_path / "golds.parquet", answer=name)


def test_an_empty_cell_of_csv_is_empty(tmp_path):
    path = written(tmp_path, "golds.csv", "problem,answer,solution\nWhat?,5,\nWhat?,,so\n")
    assert "row 1: column 'answer' is empty" in complaint(path)


# ---------------------------------------------------------------- one message with the line


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", "", " has no rows"),
        ("a.jsonl", "\n \n", " has no rows"),
        ("a.json", "", " has no rows"),
        ("a.json", "[]", " has no rows"),
        ("a.csv", "", " has no rows"),
        ("a.csv", "problem,answer\n", " has no rows"),
        ("a.jsonl", '{"problem": "a"}\n{"problem": "b", "ans', ", line 2: not JSON ("),
        ("a.jsonl", '{"problem": "a"} {"b": 1}\n', ", line 1: not JSON (Extra data"),
        (
            "a.jsonl",
            '{"problem": "a"}\n["b"]\n',
            ', line 2: a row must be an object like {"problem": ..., "answer": ...}, got a list',
        ),
        ("a.jsonl", '{"answer": 1, "answer": 2}\n', ", line 1: the key 'answer' is there twice"),
        ("a.jsonl", "[" * 100_000, ", line 1: not "),
        ("a.json", '{"problem": ["a", "b"]}', " must be a list of objects, one a row, got one object"),
        ("a.json", '[{"problem": "a"}, 5]', ", row 1: a row must be an object"),
        ("a.json", '[{"problem":\n "a"},\n', ": not JSON ("),
        ("a.csv", "problem,answer\na,1\nb,1,2\n", ", line 3: 3 fields, and the header has 2: is a comma not in quotes?"),
        ("a.csv", 'problem,answer\na,1\n"b,2\n', ", line 3: not CSV"),
        ("a.csv", "problem,answer,answer\na,1,1\n", ": the header names column 'answer' twice"),
        ("a.csv", "problem,answer\nwo,é\n".encode("latin-1"), ", line 2: byte 0xe9 is not UTF-8"),
        ("a.jsonl", '{"a": 1}\n{"a": "\xe9"}\n'.encode("latin-1"), ", line 2: byte 0xe9 is not UTF-8"),
        ("a.jsonl", "{}\n".encode("utf-16"), ", line 1: byte 0xff is not UTF-8"),
        ("a.parquet", b"PAR1torn", " cannot be read as Parquet: "),
        ("a.parquet", b"", " cannot be read as Parquet: "),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, reason):
    path = written(tmp_path, name, content)
    assert complaint(path).startswith(f"{path}{reason}")
