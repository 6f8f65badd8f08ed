"""What holds for every page: its subject on top, contents where it is long, true minus signs, figures in words too."""

from __future__ import annotations

import json
import re

import pytest
from test_comparison_page import SHORT, comparison, examples
from test_report import Page, write_run
from test_rollout_data import document

from dasd.report import build_comparison, build_report, build_token_map


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("pages")
    config = "model:\n  path: org/m\ndata:\n  task: math\n  source: org/d\n  split: train\nmethod:\n  name: dasd\n"
    run = write_run(folder / "run", config=config, run={"started": "2026-11-25T10:00:00"})
    (folder / "rollouts.json").write_text(json.dumps(document(6) | {"model": "org/m", "data": "math", "made": "2026-11-25"}))
    result = comparison("suite", SHORT)
    return {
        "run": Page(build_report(run)),
        "tokens": Page(build_token_map(folder)),
        "comparison": Page(build_comparison(result, examples(["suite0", "suite1"], SHORT), folder / "comparison.html")),
    }


@pytest.mark.parametrize("name", ["run", "tokens", "comparison"])
def test_model_data_and_date_stand_on_top(pages: dict[str, Page], name: str) -> None:
    source = pages[name].source
    head = source[source.index("<header>") : source.index("</header>")]
    told = re.findall(r"<dt>([^<]*)</dt>", head)
    assert {"model", "data"} <= set(told)
    assert {"started", "made", "evaluated"} & set(told)


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_long_page_has_contents_that_lead_somewhere(pages: dict[str, Page], name: str) -> None:
    source = pages[name].source
    contents = re.search(r'<nav class="contents".*?</nav>', source, flags=re.DOTALL)
    assert contents is not None
    links = re.findall(r'href="#([\w-]+)"', contents[0])
    assert len(links) >= 5
    assert set(links) <= set(re.findall(r'<section id="([\w-]+)"', source))


@pytest.mark.parametrize("name", ["run", "tokens", "comparison"])
def test_numbers_have_true_minus_signs(pages: dict[str, Page], name: str) -> None:
    body = pages[name].source[pages[name].source.index("</style>") :]
    body = re.sub(r"<(script|code|pre)\b.*?</\1>|<[^>]*>", " ", body, flags=re.DOTALL)  # settings stay as they are typed
    assert re.findall(r"(?<![\w.-])-\d[\d.,]*", body) == []


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_figures_say_in_words_what_they_show(pages: dict[str, Page], name: str) -> None:
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)"', pages[name].source)
    assert len(labels) == pages[name].source.count("<svg ") - pages[name].source.count("<svg preserve")
    assert all(len(label) > 10 for label in labels)
    assert any(re.search(r"\d", label) for label in labels)
