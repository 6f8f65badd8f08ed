"""Does the report say what the files say, whatever the files hold, and does it stand alone?"""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dasd.report import build_report
from dasd.report.data.inputs import FILES, read_run
from dasd.report.figures.teacher import CLASSES

HOSTILE = "</svg></style></script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}\x00\u202e\ud800"
HARMLESS = "words"


def metric_rows(steps: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "step": step, "loss": 0.1, "reward": step / 10, "reward_std": 0.2, "entropy": 0.6, "completions/mean_length": 80.0,
            "tokens/attracted": 0.8, "tokens/repelled": 0.2, "credit/attracted": 0.6, "credit/repelled": 0.4,
            "credit/teacher": 0.1, "credit/sign_flips": 0.02, "gap/abs": 0.2, "gap/high": -0.1, "gap/low": 0.1,
            **{f"gap/decile_{decile}": 0.1 - decile / 50 for decile in range(1, 11)},
            **{f"class/{name}/{key}": 0.2 + step / 100 for name in CLASSES for key in ("tokens", "gap", "credit")},
            "teacher/skipped": 0.0, "frac_reward_zero_std": 0.25, "step_time": 1.5, "grad_norm": 0.4,
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip


def summary() -> dict[str, Any]:
    before = {"avg_at_16": 0.3, "pass_at_16": 0.9, "step_accuracy": 0.95, "epistemic_per_response": 4.0, "mean_length": 90.25}
    after = {
        "avg_at_16": 0.412,
        "pass_at_16": 0.905,
        "step_accuracy": 0.9,
        "epistemic_per_response": 4.5,
        "mean_length": 1080.0,
    }
    for side, shift in ((before, 0.0), (after, 0.1)):
        side["pass_at_k"] = {"1": 0.3 + shift, "4": 0.6 + shift, "16": 0.8 + shift}
        side["pass_at_k_ci95"] = {"1": [0.25 + shift, 0.35 + shift]}
    for side in (before, after):
        side |= {"num_problems": 200, "num_samples": 16}
    before["ci95"], after["ci95"] = {"avg_at_16": [0.28, 0.32]}, {"avg_at_16": [0.39, 0.43]}
    difference = {
        "avg_at_16": {"mean": 0.112, "ci95": [0.1, 0.1245]},
        "pass_at_16": {"mean": 0.005, "ci95": [-0.01, 0.02]},
        "step_accuracy": {"mean": -0.05, "ci95": [-0.06, -0.04]},
    }
    return {"before": before, "after": after, "difference": difference, "num_problems": 200, "num_samples": 16, "wall_s": 150.2}


def rollouts(text: str = " perhaps", omega: list[float] | None = None) -> dict[str, Any]:
    likely = {"tokens": [0, 1, 2, 1, 2, 0], "probabilities": [0.75, 0.25, 0.5, 0.125, 1.0, 0.0]}
    columns = {"omega": omega or [-0.4, 0.2, None], "entropy": [1.25, 0.05, None], "gap": [-0.3, 0.1, math.nan]}
    return {
        "note": text,
        "texts": [text, " 3\n", " plain"],
        "rollouts": [
            {
                "problem_id": text, "problem": text, "reference": text, "status": "correct", "advantage": 1.2,
                "tokens": [0, 1, 2], **columns, "credit": [1.1, 1.3, None], "student": likely, "teacher": likely,
            }
        ],
    }  # fmt: skip


def write_run(folder: Path, **replaced: Any) -> Path:
    """A whole run; `metrics`, `summary`, `rollouts`, `run`, `config` replace a file's content, None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "config": "method:\n  name: dasd\n  beta: 0.125\n",
        "run": {"command": "dasd quickstart", "seed": 0, "versions": {"torch": "2.8.0"}, "git_revision": None},
        "metrics": metric_rows(),
        "summary": summary(),
        "rollouts": rollouts(),
        "validation": [{"step": step, "avg_at_4": 0.3 + step / 100, "ci95": {"avg_at_4": [0.2, 0.5]}} for step in (0, 5)],
        **replaced,
    }
    names = dict(zip(("config", "run", "metrics", "summary", "rollouts", "validation"), FILES, strict=True))
    for key, value in content.items():
        if value is not None:
            lines = "".join(json.dumps(row) + "\n" for row in value) if isinstance(value, list) else json.dumps(value)
            (folder / names[key]).write_text(value if isinstance(value, str) else lines, encoding="utf-8")
    return folder


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, ids, and the text of the table cells."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        """The text on one line; a true minus reads "-", an unknown value "?"."""
        return " ".join(self.text.split()).replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "?")

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attrs)) for tag, attrs in self.tags]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(build_report(write_run(tmp_path_factory.mktemp("run"))))


def test_numbers_on_the_page_are_the_numbers_of_the_summary(page: Page) -> None:
    assert "Direction-Adaptive Self-Distillation" in page.words
    assert "beta = 0.125" in page.words
    assert "Avg@16 rose from 30.0 % to 41.2 % (+11.2 points, 95 % interval [+10.0, +12.4])." in page.words
    assert "200 problems, 16 samples each." in page.words
    assert "Avg@16 samples that are right 30.0 % [28.0, 32.0] 41.2 % [39.0, 43.0] +11.2 points [+10.0, +12.4]" in page.words
    assert "Step accuracy checkable steps that are right 95.0 % 90.0 % -5.0 points [-6.0, -4.0]" in page.words
    assert "Mean length tokens per response 90.2 1,080.0 +989.8 tokens" in page.words  # 989.75; no difference in the file
    assert "k = 1 30.0 % [25.0, 35.0] 40.0 % [35.0, 45.0] +10.0 points" in page.words
    assert "reward 0.1 0.6 0.1 0.6" in page.words  # first tenth, last tenth, lowest, highest
    assert "dasd quickstart" in page.words
    assert "torch 2.8.0" in page.words
    assert "num_problems" not in page.words
    assert "dasd train RUN/config.yaml --output NEW" in page.words
    assert "digits 23.5 % 21.0 % → 26.0 % +0.210 → +0.260" in page.words  # the first and the last tenth: one step each


def test_a_difference_is_coloured_only_where_its_interval_leaves_out_zero(page: Page) -> None:
    coloured = re.findall(r'<span class="clear([^"]*)">([^<]*)</span>', page.source)
    assert coloured == [(" better", "+11.2 points"), (" worse", "\N{MINUS SIGN}5.0 points")]


def test_page_stands_alone(page: Page) -> None:
    assert "://" not in page.source
    assert not {"iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    assert set(re.findall(r"url\(([^)])", page.source)) <= {"#"}
    assert len(page.source) < 500_000


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    references = re.findall(r"url\(#([^)]+)\)", page.source) + re.findall(r'href="#([^"]+)"', page.source)
    assert references
    assert set(references) <= set(ids)


def test_every_figure_has_a_title_a_name_and_a_caption(page: Page) -> None:
    figures = re.findall(r"<figure>.*?</figure>", page.source, flags=re.DOTALL)
    assert len(figures) == 1 + 6 + 5 + 3  # validation, training, gap and pressure, comparison
    for figure in figures:
        assert re.search(r'<svg viewBox="[^"]+" role="img" aria-label="[^"]+">', figure)
        assert re.search(r"<figcaption>.+\.</figcaption>", figure)
        assert "#f1e2" not in figure  # no stand-in colour is left


def test_same_files_same_bytes(page: Page, tmp_path: Path) -> None:
    assert build_report(write_run(tmp_path / "elsewhere")).read_text(encoding="utf-8") == page.source
    assert not list((tmp_path / "elsewhere").glob("*.tmp"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("config", "this run has no config.yaml"),
        ("run", "this run has no run.json"),
        ("metrics", "this run has no metrics.jsonl"),
        ("summary", "this run has no summary.json"),
        ("rollouts", "this run has no rollouts.json"),
    ],
)
def test_a_missing_file_is_said_in_its_section(tmp_path: Path, name: str, sentence: str) -> None:
    small = {"metrics": [{"step": 1, "reward": 0.5}], "summary": {"before": {"avg_at_2": 0.5}}, name: None}
    assert sentence in Page(build_report(write_run(tmp_path, **small))).words


def test_no_folder_and_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        build_report(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds none of config\.yaml"):
        build_report(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    (write_run(tmp_path) / "summary.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"summary\.json must hold a JSON object, got list"):
        build_report(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is not valid JSON"):
        build_report(tmp_path)


def test_a_torn_last_line_is_left_out_and_a_repeated_step_counts_once(tmp_path: Path) -> None:
    text = '{"step": 1, "reward": 0.1}\n{"step": 2, "reward": 0.2}\n{"step": 2, "reward": 0.4, "loss": null}\n{"step": 3, "rewa'
    series = read_run(write_run(tmp_path, metrics=text)).series
    assert series is not None
    assert {name: values.tolist() for name, values in series.items()} == {"step": [1, 2], "reward": [0.1, 0.4]}


def test_grpo_has_no_teacher_to_show(tmp_path: Path) -> None:
    rows = [
        {key: value for key, value in row.items() if not key.startswith(("credit", "tokens", "gap", "teacher", "class"))}
        for row in metric_rows(2)
    ]
    page = Page(build_report(write_run(tmp_path, metrics=rows, config="method: grpo", summary=None, rollouts=None)))
    assert "GRPO Answers to one problem are compared" in page.words
    assert "No teacher-student gap was logged" in page.words
    assert "Credit by direction" not in page.words
    assert "Gap by entropy, over the run" not in page.words


def test_null_and_nan_values_show_as_unknown(tmp_path: Path) -> None:
    data = summary()
    data["after"]["avg_at_16"] = None
    data["difference"] = {"avg_at_16": {"mean": math.nan, "ci95": [math.nan, None]}, "step_accuracy": None}
    data["before"]["ci95"]["step_accuracy"] = [None, None]
    rows = [row | {"reward": None, "entropy": math.nan, "gap/decile_3": math.inf} for row in metric_rows(4)]
    rows[2] |= {"credit/attracted": None, "gap/decile_1": None}
    page = Page(
        build_report(write_run(tmp_path, summary=data, metrics=rows, rollouts={"rollouts": [None, {"tokens": [None, 3]}]}))
    )
    assert "Avg@16 samples that are right 30.0 % [28.0, 32.0] ? ?" in page.words
    assert "Step accuracy checkable steps that are right 95.0 % 90.0 % -5.0 points" in page.words
    assert not re.search(r"\bnan\b", page.source, flags=re.IGNORECASE)


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    pages = []
    for name, text in (("hostile", HOSTILE), ("harmless", HARMLESS)):
        data = {"before": {"avg_at_4": 0.5, text: 1.0}, "after": {text: 2.0, "pass_at_k": {text: 1.0}}, "num_problems": text}
        bad_rollouts = rollouts(text)
        bad_rollouts["rollouts"][0] |= {"status": text, "advantage": text}
        page = Page(
            build_report(
                write_run(
                    tmp_path / name,
                    config=json.dumps({"method": {"name": text, text: text}}),
                    run={"command": text, text: {text: text}, "list": [text]},
                    metrics=[{"step": 1, text: 1.0}],
                    summary=data,
                    rollouts=bad_rollouts,
                )
            )
        )
        pages.append(page)
    hostile, harmless = pages
    assert hostile.shape == harmless.shape
    shown = HOSTILE.replace("\x00", "\\u0000").replace("\u202e", "\\u202e").replace("\ud800", "\\ud800")
    assert hostile.text.count("<script>") >= 12
    assert shown in hostile.text
    assert not re.search("[\x00\u202e\ud800]", hostile.source)
