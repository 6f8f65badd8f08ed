"""Do several sources come in the shares of their weights, the same ones every time?"""

import json
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dasd.config import BadInput, DataConfig, RunConfig, dump_config, load_config, validate
from dasd.data.mixture import describe, mix, mixed, shares
from dasd.data.problems import load_problems


@pytest.fixture
def sources(tmp_path):
    """Two files, of 6 and of 3 problems in other columns."""
    for name, count in (("a", 6), ("b", 3)):
        keys = ("problem", "answer") if name == "a" else ("question", "final")
        rows = [dict(zip(keys, (f"{name}{i}: what is {i}?", i), strict=True)) for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def config(folder, *weights, **settings):
    theirs = {"columns": {"problem": "question", "answer": "final"}}
    entries = [{"source": str(folder / "a.jsonl")}, {"source": str(folder / "b.jsonl"), **theirs}]
    entries = [entry | ({} if weight is None else {"weight": weight}) for entry, weight in zip(entries, weights, strict=True)]
    return validate(DataConfig, {"task": "math", "sources": entries, "columns": {"solution": None}, **settings})


def test_sources_are_read_with_their_own_columns(sources):
    problems = load_problems(config(sources, None, None))
    assert [problem.id for problem in problems] == [*(f"a.jsonl/{i}" for i in range(6)), *(f"b.jsonl/{i}" for i in range(3))]
    assert problems[7].problem == "b1: what is 1?"
    assert mixed(problems, config(sources, None, None)) == problems
    assert len(load_problems(config(sources, 1, 1, limit=2))) == 4


def test_shares_are_the_weights(sources):
    data = config(sources, 1, 2)
    problems = load_problems(data)
    mixture = mixed(problems, data)
    counts = Counter(problem.id for problem in mixture)
    assert sum(count for name, count in counts.items() if name.startswith("a")) == 3
    assert [counts[f"b.jsonl/{i}"] for i in range(3)] == [2, 2, 2]
    assert mixed(problems, data) == mixture != mixed(problems, config(sources, 1, 2, seed=1))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4), weights=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_mixtures(sizes, weights, seed):
    """As many as there are; counts within one of the exact share, 1 where that is less, and less only where others got that 1;
    every entry as often as its others, or once more."""
    groups = [[(group, i) for i in range(size)] for group, size in enumerate(sizes)]
    weights, total = weights[: len(sizes)], sum(sizes)
    mixture = mix(groups, weights, seed)
    counts = Counter(mixture)
    assert len(mixture) == total
    given = sum(total * weight < sum(weights) for weight in weights)
    for group, members in enumerate(groups):
        times = [counts[member] for member in members]
        assert max(times) - min(times) <= 1
        exact = total * weights[group] / sum(weights)
        assert -1 - given < sum(times) - exact < 1 or sum(times) == 1


def test_a_config_that_was_written_down_reads_the_same(sources):
    data = config(sources, 1, 2, prompt="{problem}!")
    columns = {"problem": "question", "answer": "final", "solution": None, "hint": None, "further": ()}
    assert data.sources[1].columns.model_dump() == columns
    assert validate(DataConfig, yaml.safe_load(dump_config(data))) == data == DataConfig(**data.model_dump())
    assert data.named == f"{sources}/a.jsonl, {sources}/b.jsonl"


def test_what_is_asked_of_a_config_that_was_written_down_holds_for_every_source(sources, tmp_path):
    """`dasd train RUN/config.yaml --data.limit 2` read all rows of both, in silence."""
    (tmp_path / "config.yaml").write_text(dump_config(RunConfig(data=config(sources, 1, 2, limit=3))))
    again = load_config(RunConfig, tmp_path / "config.yaml", ["--data.limit", "2", "--data.split", "other"]).data
    assert [(part.limit, part.split) for part in again.parts] == [(2, "other")] * 2


def test_the_record_says_what_each_source_was(sources):
    data = config(sources, 1, 2)
    first, second = describe(load_problems(data), data)
    assert (first["source"], first["split"]) == (str(sources / "a.jsonl"), "train")
    assert [(entry["problems"], entry["weight"], entry["occurrences"]) for entry in (first, second)] == [(6, 1, 3), (3, 2, 6)]
    [alone] = describe(load_problems(data.parts[0]), data.parts[0])
    assert (alone["problems"], alone["weight"], alone["occurrences"], alone["sha256"]) == (6, None, 6, first["sha256"])
    assert first["sha256"] != second["sha256"]


def test_shares_on_paper():
    assert shares(10, [1, 1, 1]) == [4, 3, 3]
    assert shares(9, [1, 2]) == [3, 6]
    assert shares(3, [1000, 1]) == [2, 1]
    assert shares(10, [1000, 1, 1]) == [8, 1, 1]
    assert shares(5, [249, 249, 1, 1, 1]) == [1, 1, 1, 1, 1]


def test_two_files_of_one_name(sources):
    (sources / "c").mkdir()
    (sources / "c" / "a.jsonl").write_text('{"problem": "c", "answer": 1}\n')
    entries = [{"source": str(sources / "a.jsonl")}, {"source": str(sources / "c" / "a.jsonl")}]
    problems = load_problems(validate(DataConfig, {"task": "math", "sources": entries, "columns": {"solution": None}}))
    assert [problem.id for problem in problems][-2:] == ["a.jsonl#1/5", "a.jsonl#2/0"]


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        (
            "[{source: a.jsonl, weight: 2}, {source: b.jsonl}]",
            "every source has a weight or none has one, and b.jsonl has",
        ),
        ("[{source: a.jsonl, weight: 0}]", "data.sources.0.weight: input should be greater than 0, got 0"),
        ("[{source: a.jsonl, prompt: now}]", "sources: prompt must have {problem} in it"),
        ("[{source: a.jsonl, wieght: 2}]", "unknown key 'data.sources.0.wieght', did you mean 'weight'?"),
        ("[{source: a.jsonl, columns: {problm: x}}]", "unknown key 'data.sources.0.columns.problm', did you mean 'problem'?"),
        ("[{weight: 2}]", "data.sources.0.source: field required"),
        ("a.jsonl", "data.sources.0: input should be a valid dictionary"),
    ],
)
def test_sources_that_cannot_be(sources, reason):
    with pytest.raises(BadInput) as caught:
        load_config(RunConfig, None, ["--data.sources", sources])
    assert reason in str(caught.value)


def test_source_and_sources():
    with pytest.raises(BadInput, match=r"give source \(b.jsonl\) or sources, not both"):
        load_config(RunConfig, None, ["--data.sources", "[{source: a.jsonl}]", "--data.source", "b.jsonl"])
