"""Does what was written survive a kill, whole lines and whole files only, whatever the text holds?"""

import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.config import BadInput
from dasd.files import append_lines, read_json, read_lines, repair_lines, write_json, write_lines, write_text

# What str.splitlines takes for the end of a line, and JSON does not.
SEPARATORS = "a\u2028b\u2029c\x85d\x1ce\x0bf\x0cg\rh\ni"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.jsonl"


def strict(text):
    """The value of a JSON text; NaN and Infinity, which JSON does not have, raise."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# ---------------------------------------------------------------- lines


def test_many_records_in_many_appends(path):
    records = [{"step": n, "text": "wait " * (n % 7)} for n in range(5000)]
    append_lines(path, records[:1])
    append_lines(path, [])
    append_lines(path, (record for record in records[1:4000]))
    append_lines(path, records[4000:])
    assert path.read_bytes().count(b"\n") == 5000
    assert read_lines(path) == records


def test_no_file_is_no_records(path):
    assert read_lines(path) == []
    assert repair_lines(path) == []
    assert not path.exists()


def test_text_with_line_separators_stays_one_record(path):
    records = [{"text": SEPARATORS}, {SEPARATORS: 1}]
    append_lines(path, records)
    assert path.read_bytes().count(b"\n") == 2
    assert "\u2028" in path.read_text(encoding="utf-8")  # readable, not escaped
    assert read_lines(path) == records
    before = path.read_bytes()
    assert repair_lines(path) == read_lines(path) == records
    assert path.read_bytes() == before


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=6))
@settings(deadline=None, max_examples=60)
def test_records_come_back_as_they_were(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    append_lines(path, records)
    assert read_lines(path) == records


def test_a_file_cut_off_anywhere_keeps_its_whole_lines(path):
    records = [{"n": 1, "text": "é七"}, {"n": 2}, {"n": 3, "text": f"{{}}{SEPARATORS}"}]
    append_lines(path, records)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = records[: whole[:length].count(b"\n")]
        assert read_lines(path) == complete
        assert repair_lines(path) == complete
        append_lines(path, [{"n": 4}])  # a run that goes on
        assert read_lines(path) == [*complete, {"n": 4}]


def test_repair_drops_what_is_refused_and_keeps_the_order(path):
    append_lines(path, [{"step": n} for n in (1, 2, 3, 2, 5)])
    with path.open("a") as file:
        file.write('{"step": 1')
    assert repair_lines(path, keep=lambda record: record["step"] <= 2) == [{"step": 1}, {"step": 2}, {"step": 2}]
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 2}\n'


def test_what_is_not_finite_becomes_null(path):
    record = {"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": {"d": math.nan, "e": True}, "f": "NaN", "g": 10**30}
    finite = {"a": None, "b": [None, [1.5, None]], "c": {"d": None, "e": True}, "f": "NaN", "g": 10**30}
    append_lines(path, [record])
    assert strict(path.read_text()) == finite
    write_json(path, [record])
    assert strict(path.read_text()) == [finite]
    assert math.isnan(record["a"])  # the caller's record is left as it is


def test_a_file_that_was_cut_off_is_appended_to_whole(path):
    """Without a repair before: what readers leave out is taken away, and no record is glued to it."""
    for torn in ('{"n": 2, "te', "\0" * 9, '{"n": 2}', "x" * 200_000):
        path.write_text(f'{{"n": 1}}\n{torn}')
        append_lines(path, [{"n": 3}])
        assert read_lines(path) == [{"n": 1}, {"n": 3}]
        path.write_text(torn)
        append_lines(path, [{"n": 3}])
        assert read_lines(path) == [{"n": 3}]


def test_a_write_that_fails_in_the_middle_leaves_no_part_of_a_line(path):
    """As on a full disk: the system takes the first bytes and refuses the rest."""
    append_lines(path, [{"n": 0}])
    before = path.read_bytes()
    code = (
        "import resource; from pathlib import Path; from dasd.files import append_lines\n"
        f"path, limit = Path({str(path)!r}), resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))\n"
        "records = [{'n': n, 'text': 'x' * 1000} for n in range(1, 100)]\n"
        "try:\n    append_lines(path, records)\nexcept OSError as error:\n    print(error.strerror)\n"
        "print(path.stat().st_size)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limit)\n"
        "append_lines(path, [{'n': -1}])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["File too large", str(len(before))]
    assert read_lines(path) == [{"n": 0}, {"n": -1}]


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"n": 2, "te{"n": 3}', "not JSON"), ("\0\0\0", "not JSON"), ("3", "no JSON object"), ('["n"]', "no JSON object")],
)
def test_a_damaged_line_is_named(path, line, said):
    path.write_text(f'{{"n": 1}}\n\n{line}\n{{"n": 4}}\n')
    for read in (read_lines, repair_lines):
        with pytest.raises(BadInput, match=f"^{re.escape(str(path))}, line 3: {said}.*delete"):
            read(path)
    assert path.read_text().count("\n") == 4  # nothing is taken away but by the user


def test_a_record_that_cannot_be_written_leaves_the_file_as_it_was(path):
    append_lines(path, [{"n": 1}])
    with pytest.raises(TypeError):
        append_lines(path, [{"n": 2}, {"n": object()}])
    assert read_lines(path) == [{"n": 1}]


# ---------------------------------------------------------------- whole files


def test_text_is_written_as_utf8_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "x.txt"
    write_text(path, f"é七{SEPARATORS[:9]}")
    assert path.read_bytes() == f"é七{SEPARATORS[:9]}".encode()
    write_text(path, "short")
    assert path.read_text() == "short"
    assert [each.name for each in path.parent.iterdir()] == ["x.txt"]


def test_lines_are_written_in_place_of_those_that_were_there(path):
    append_lines(path, [{"old": 1}, {"old": 2}])
    write_lines(path, iter([{"name": f"é{SEPARATORS}"}, {"value": math.nan}]))
    assert read_lines(path) == [{"name": f"é{SEPARATORS}"}, {"value": None}]
    write_lines(path, [])
    assert path.read_text() == ""


def test_json_is_for_reading(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"name": "é", "list": [1]})
    assert path.read_text(encoding="utf-8") == '{\n  "name": "é",\n  "list": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("held", [b"", b'{"steps": 1, "se', b'{"name": "\xe4\xb8', b"\0\0\0\0"], ids=repr)
def test_a_json_file_that_was_cut_off_is_named_with_what_to_do(tmp_path, held):
    path = tmp_path / "x.json"
    assert read_json(path) is None
    path.write_bytes(held)
    with pytest.raises(BadInput, match=rf"^{re.escape(str(path))} is (empty|cut off or no JSON).*: delete it and give"):
        read_json(path)
    with pytest.raises(BadInput, match=r": mend it$"):
        read_json(path, "mend it")


@pytest.mark.parametrize("write", [write_text, write_json, lambda path, text: write_lines(path, [{}, {"text": text}])])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write(path, "new" * 10_000 + "\ud800")  # the last character cannot be encoded
    assert path.read_text() == "old"


def test_a_rename_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"


def killed_while(statement, path, limit=50_000):
    """Runs a statement in a process that the system kills as soon as one of its files exceeds the limit in bytes."""
    code = (
        "import resource, signal; from pathlib import Path; from dasd.files import append_lines, write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        f"resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"path = Path({str(path)!r})\n{statement}\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGXFSZ


def test_a_process_killed_while_it_replaces_a_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    killed_while("write_text(path, 'new' * 100_000)", path)
    assert path.read_text() == "old"
    write_text(path, "new")  # and what it left lying is no obstacle
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_it_appends_loses_only_what_was_cut_off(path):
    append_lines(path, [{"n": 0}])
    killed_while("append_lines(path, [{'n': n, 'text': 'x' * 1000} for n in range(1, 100)])", path)
    assert not path.read_bytes().endswith(b"\n")
    kept = repair_lines(path)
    assert [record["n"] for record in kept] == list(range(len(kept)))
    assert 40 < len(kept) < 50
    append_lines(path, [{"n": -1}])
    assert read_lines(path) == [*kept, {"n": -1}]
