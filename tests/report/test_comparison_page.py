"""Does the page of a comparison say what the data say, and is it inert and light whatever a model wrote?"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, Page

from dasd.report import build_comparison
from dasd.report.data.samples import cut

SHORT = "so the answer is 4"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def ends(mean: float, width: float = 0.05) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def entry(a: float, b: float, p_value: float | None = 0.0123) -> dict[str, Any]:
    return {"values": [ends(a), ends(b)], "differences": [ends(b - a) | {"p_value": p_value, "p_holm": p_value}]}


def run(name: str, *seeds: int) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "paths": [name] * max(1, len(seeds)),
        "method": name,
        "seeds": seeds,
        "date": "2026-11-25",
    }


def comparison(name: str = "suite", text: str = "model", benchmarks: int = 2) -> dict[str, Any]:
    figures = {
        "avg_at_4": entry(0.30, 0.412),
        "pass_at_1": entry(0.30, 0.412),
        "pass_at_4": entry(0.6, 0.61),
        "step_accuracy": entry(0.95, 0.80),
        "mean_length": entry(80.0, 92.5),
        "truncated": entry(0.0, 0.0, None),
    }
    curve = {"1": figures["pass_at_1"], "2": entry(0.4, 0.5), "4": figures["pass_at_4"]}
    return {
        "runs": [run(f"{text}-a"), run(f"{text}-b")],
        "benchmarks": [
            {
                "name": f"{name}{index}", "num_problems": 200, "num_samples": [4, 4], "figures": figures,
                "curves": {"pass_at_k": curve}, "settings_differ": {text: [text, 2]},
            }
            for index in range(benchmarks)
        ],
        "macro": figures,
        "missing": {f"{text}-b": [text]},
    }  # fmt: skip


def examples(names: list[str], text: str, count: int = 4, status: str = "correct") -> dict[str, Any]:
    outcomes = ("gained", "lost", "all", "none")
    side = {
        "status": status,
        "extracted": text,
        "text": text,
        "tokens": 12,
        "finish_reason": "length",
        "correct": 1,
        "samples": 4,
    }
    shown = [
        {
            "benchmark": names[index % len(names)], "problem_id": text, "problem": text, "answer": text, "sample": index,
            "outcome": outcomes[index % 4], "sides": [side, side],
        }
        for index in range(count)
    ]  # fmt: skip
    return {"shown": shown, "counts": {name: {"gained": 10, "none": 1000} for name in names}}


def build(folder: Path, text: str, count: int = 4, name: str = "suite") -> Page:
    """The page with `text` in every sample, and its start in the names of models, folders and settings."""
    result = comparison(name, text[:200])
    names = [each["name"] for each in result["benchmarks"]]
    return Page(build_comparison(result, examples(names, text, count), folder / "page.html"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return build(tmp_path_factory.mktemp("page"), SHORT)


def test_numbers_on_the_page_are_those_of_the_data(page: Page) -> None:
    line = "Avg@k, the mean of 2 benchmarks: B is above A, 41.2 % against 30.0 % (+11.2 points, 95 % interval [+6.2, +16.2]"
    assert f"{line}, p = 0.0123)." in page.words
    step = "Step accuracy checkable steps that are right 95.0 % [90.0, 100.0] 80.0 % [75.0, 85.0] -15.0 points [-20.0, -10.0]"
    assert page.words.count(f"{step} 0.0123") == 3  # the mean, and each benchmark
    assert (
        "Truncated responses that ran out of tokens 0.0 % [-5.0, 5.0] 0.0 % [-5.0, 5.0] +0.0 points [-5.0, +5.0] ?"
        in page.words
    )
    assert "Zero or unknown everywhere: Truncated." in page.words
    assert f"{SHORT} differs: {SHORT} in A, 2 in B." in page.words  # once, not for each benchmark
    assert f"{SHORT}-b has no {SHORT}: not compared." in page.words
    assert "4 of 2,020 times one sample of each run" in page.words
    assert "only B is right 20" in page.words
    assert "12 tokens, cut off, 1 of 4 samples of this problem are right" in page.words


def test_many_runs_are_listed_in_a_sentence(tmp_path: Path) -> None:
    result = comparison(benchmarks=1)
    result["runs"] = [run(name) for name in "abcdef"]
    values, changes = [0.3, 0.5, 0.6, 0.7, 0.1, 0.31], [0.2, 0.3, 0.4, -0.2, 0.01]
    differences = [ends(change) | {"p_value": 0.001, "p_holm": 0.005} for change in changes]
    figures = {"avg_at_4": {"values": [ends(value) for value in values], "differences": differences}}
    result["benchmarks"][0] |= {"figures": figures, "curves": {"pass_at_k": {}}, "num_samples": [4] * 6, "settings_differ": {}}
    text = Page(build_comparison(result, {"shown": [], "counts": {}}, tmp_path / "page.html")).text
    assert "B, C and D are above A; E is below A; F is not told from A (A has 30.0 %" in text


def test_the_page_stands_alone_and_nothing_on_it_acts(page: Page) -> None:
    assert "http" not in page.source
    assert not {"script", "iframe", "object", "embed", "img", "link rel=stylesheet"} & {tag for tag, _ in page.tags}
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page.source)) <= set(ids)
    assert "#f1e2" not in page.source  # no stand-in colour is left


def test_filters_hide_what_they_say(page: Page) -> None:
    rules = dict(re.findall(r"main:has\(#(\S+):checked\) (\.sample:not\(.*\)) \{ display: none; \}", page.source))
    assert rules["b-1"] == '.sample:not([data-b="1"])'
    assert rules["o-gained"] == ".sample:not(.gained)"
    assert rules["o-changed"] == ".sample:not(.gained, .lost, .some)"
    samples = [(attrs["class"], attrs["data-b"]) for tag, attrs in page.tags if tag == "details" and "data-b" in attrs]
    assert samples == [("sample gained", "0"), ("sample lost", "1"), ("sample all", "0"), ("sample none", "1")]
    shown = re.findall(r"main:has\(#b-(\d):checked\):has\(#o-(\w+):checked\) \.absent\.none", page.source)
    assert ("1", "gained") in shown  # nothing left: said
    assert ("0", "gained") not in shown
    assert ("1", "changed") not in shown


def test_a_single_run_has_one_side_and_no_differences(tmp_path: Path) -> None:
    figures = {name: {"values": each["values"][1:], "differences": []} for name, each in comparison()["macro"].items()}
    entry = {"name": "suite", "num_problems": 200, "num_samples": [4], "figures": figures, "curves": {"pass_at_k": {}}}
    result = {"runs": [run("org/model") | {"name": ""}], "benchmarks": [entry], "macro": figures, "missing": {}}
    shown = examples(["suite"], SHORT, 1)
    shown["shown"][0] |= {"outcome": "correct", "sides": shown["shown"][0]["sides"][:1]}
    page = Page(build_comparison(result, shown | {"counts": {"suite": {"correct": 7}}}, tmp_path / "page.html"))
    assert "Evaluation org/model" in page.words
    assert "Step accuracy checkable steps that are right 80.0 % [75.0, 85.0]" in page.words
    assert "1 of 7 samples" in page.words
    assert "curves" not in page.words.split("Result")[1][:200]  # one sample a problem
    assert "points" not in page.words
    assert ">A<" not in page.source


def test_many_benchmarks_are_counted_on_top_and_drawn_in_halves(tmp_path: Path) -> None:
    result = comparison(benchmarks=13)
    page = Page(build_comparison(result, examples(["suite0"], SHORT), tmp_path / "page.html"))
    assert "data 13 benchmarks, 2,600 problems" in page.words
    assert page.words.count("Avg@k by benchmark") == 2


def test_text_is_cut_by_what_it_weighs_on_the_page() -> None:
    assert cut("short", 100) == ("short", 0)
    assert cut(None, 100)[0] == "\N{EN DASH}"
    for letter in ("a", "<", "\x00", "\U0001f600", "\ud800"):
        text, left_out = cut(letter * 1_000_000, 3000)
        assert 700 < len(text.encode()) <= 3010
        assert left_out > 990_000
    start_and_end = cut("A" + "x" * 10_000 + "Z", 300)[0]
    assert (start_and_end[0], start_and_end[-1]) == ("A", "Z")
    assert "[…]" in start_and_end


def test_hostile_and_endless_text_stays_text_on_a_light_page(tmp_path: Path) -> None:
    hostile = build(tmp_path / "hostile", HOSTILE * 8_000, 240, "</style><script>alert(1)</script>$x$")
    harmless = build(tmp_path / "harmless", "word " * 200_000, 240)
    tags = [
        [tag for tag, _ in page.tags if tag not in ("p", "path", "use", "g", "defs", "clippath", "rect")]
        for page in (hostile, harmless)
    ]
    assert tags[0] == tags[1]
    assert not re.search("[\x00\u202e\ud800]", hostile.source)
    for page in (hostile, harmless):
        assert len(page.source.encode()) < 5_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is not opened in a browser")
def test_a_browser_opens_it_and_runs_nothing(tmp_path: Path) -> None:
    attack = "<script>document.title='taken'</script></script><img src=x onerror=\"document.title='taken'\">" + HOSTILE
    build(tmp_path, attack * 10_000, 240)
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, profile, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    dom = done.stdout.decode("utf-8", errors="replace")
    title = re.search(r"<title>(.*?)</title>", dom, flags=re.DOTALL)
    assert title is not None
    assert title[1].endswith(": comparison")
    assert not re.search(r"<(script|img|iframe)\b", dom)
    assert len(re.findall(r'<details class="sample ', dom)) == 240
    assert "<footer>" in dom  # it was read to the end
