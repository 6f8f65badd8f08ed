"""Does the token map do in a browser what it promises: hover, keys, colours, filters, jumps; quickly, and whatever the text?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dasd.report import build_report, build_token_map
from dasd.report.data.metrics import MINUS
from report.chromium import CHROMIUM, Browser
from report.test_rollout_data import HOSTILE, document

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is driven in a real browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def write(folder: Path, data: dict) -> Path:
    (folder / "rollouts.json").write_text(json.dumps(data))
    return build_token_map(folder)


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    """Three rollouts: right and wrong of 60 tokens, right of 40. The last tokens are the forks."""
    browser.open(write(tmp_path, document(60, 60, 40)))
    return browser


def here(page: Browser) -> int:
    return page.run("[...document.querySelectorAll('.tokens span')].indexOf(document.querySelector('#tm-here'))")


def text(page: Browser, selector: str) -> str:
    return page.run(f"document.querySelector({json.dumps(selector)}).innerText")


def classes(page: Browser, count: int = 2) -> list[str]:
    return page.run(f"[...document.querySelectorAll('.tokens span')].slice(0, {count}).map(span => span.className)")


def test_hovering_shows_the_numbers_and_both_top_lists(page: Browser) -> None:
    page.mouse(".tokens span", index=10)
    assert here(page) == 10
    shown = text(page, ".tm-token").split()
    assert " ".join(shown[:5]) == "␣a token 11 of 60"
    for words in (f"omega {MINUS}0.250 repel", "entropy 0.010 nats", f"gap {MINUS}0.100 nats", "advantage +0.100"):
        assert words in " ".join(shown)
    assert text(page, ".tm-likely:nth-of-type(1)").split() == ["Student", "␣a", "75.0", "%", "␣b↵", "25.0", "%"]
    assert text(page, ".tm-likely:nth-of-type(2)").split() == ["Teacher", "␣b↵", "87.5", "%", "␣a", "12.5", "%"]
    assert page.run("[...document.querySelectorAll('.tm-likely .sampled')].map(cell => cell.innerText)") == ["␣a", "␣a"]
    width = page.run("document.querySelector('.tm-strip svg').viewBox.baseVal.width")
    assert page.run("Number(document.querySelector('.tm-cursor').getAttribute('x1'))") == 10.5 * width / 60


def test_colours_switch(page: Browser) -> None:
    assert classes(page) == ["down3", "up5"]  # -0.25 and +0.5, full colour at 0.5
    page.mouse("[data-value=gap]", click=True)
    assert classes(page) == ["down5", "down5"]
    page.mouse("[data-value=choice]", click=True)
    assert classes(page) == ["down5", "up2"]  # the teacher prefers token 1 everywhere
    assert "agreement here 50 % of tokens, 50 % of the fifth with the highest entropy" in text(page, ".tm-legend")
    page.mouse("[data-value=credit]", click=True)
    assert classes(page) == ["up5", "up5"]
    page.mouse("[data-value=entropy]", click=True)
    assert page.run("document.querySelector('.tokens').lastChild.className") == "fork5"
    pressed = "[...document.querySelectorAll('[data-choice=mode] [aria-pressed=true]')].map(b => b.innerText)"
    assert page.run(pressed) == ["entropy"]
    assert "inset" in page.run("getComputedStyle(document.querySelector('.tokens .fork5')).boxShadow")


def test_what_is_repelled_has_a_second_sign_beside_its_colour(page: Browser) -> None:
    lines = "[...document.querySelectorAll('.tokens span')].slice(0, 2).map(s => /inset/.test(getComputedStyle(s).boxShadow))"
    assert page.run(lines) == [True, False]


def test_white_space_that_moves_the_line_has_its_sign_at_its_place(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path, document(1, text="[\n\tx\n")))
    shown = """[...document.querySelector('.tokens span').childNodes].map(node =>
        node.nodeName === 'I' ? getComputedStyle(node, '::before').content.slice(1, -1) : node.textContent).join('')"""
    assert browser.run(shown) == "[↵\n⇥\tx↵\n"
    browser.mouse(".tokens i", index=0)
    assert here(browser) == 0  # a sign is part of its token


def test_every_side_that_is_counted_can_be_seen(browser: Browser, tmp_path: Path) -> None:
    """One strong repulsion sets the scale; attraction a hundred times weaker still has its colour, and so has the legend."""
    data = document(40)
    data["rollouts"][0]["omega"] = [-0.9] * 10 + [0.004] * 29 + [0.0]
    browser.open(write(tmp_path, data))
    assert "73 % attracted, 25 % repelled" in text(browser, ".tm-facts") or "72 % attracted" in text(browser, ".tm-facts")
    assert set(classes(browser, 40)[10:39]) == {"up1"}
    assert classes(browser, 40)[39] == ""
    colours = "[...document.querySelectorAll('.tm-legend code')].map(c => getComputedStyle(c).backgroundColor)"
    assert len(set(browser.run(colours))) == 10
    assert browser.run("getComputedStyle(document.querySelector('.tokens .up1')).backgroundColor") in browser.run(colours)


def test_a_character_of_several_tokens_is_put_together(browser: Browser, tmp_path: Path) -> None:
    data = document(2)
    data["texts"] = ["⟨e286⟩", "⟨b5⟩"]
    browser.open(write(tmp_path, data))
    browser.mouse(".tokens span", index=0)
    assert "⟨e286⟩part of ↵" in text(browser, ".tm-token h4").replace("\n", "")


def test_a_method_without_teacher_shows_none(browser: Browser, tmp_path: Path) -> None:
    data = document(6) | {"method": "grpo"}
    data["rollouts"][0] |= {"omega": None, "gap": None, "teacher": None, "reference": None}
    browser.open(write(tmp_path, data))
    buttons = "[...document.querySelectorAll('[data-choice=mode] button')].filter(b => b.offsetParent).map(b => b.innerText)"
    assert browser.run(buttons) == ["entropy", "advantage"]
    browser.mouse(".tokens span", index=3)
    page = browser.run("document.querySelector('main').innerText")
    assert page.lower().count("teacher") == 1, page  # GRPO's own line: there is no teacher
    assert browser.console == []


def test_filters_and_choice_of_rollout(page: Browser) -> None:
    visible = "[...document.querySelectorAll('.tm-rollouts button')].filter(b => b.offsetParent).map(b => b.innerText)"
    assert page.run(visible) == ["✓1", "✗2", "✓1"]
    page.mouse("[data-value=wrong]", click=True)
    assert page.run(visible) == ["✗2"]
    assert "✗ incorrect" in text(page, ".rollout header")
    assert not page.run("!!document.querySelectorAll('.tm-problem-of')[1].offsetParent")
    page.mouse("[data-value=right]", click=True)
    page.mouse(".tm-rollouts button", click=True, index=2)
    assert (text(page, ".rollout h3"), page.run("document.querySelectorAll('.tokens span').length")) == ("Problem p1", 40)
    page.key("]")
    assert text(page, ".rollout h3") == "Problem p0"  # round again, past the wrong one
    assert "✓ correct" in text(page, ".rollout header")


def test_a_kind_that_no_rollout_has_is_said(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(tmp_path, document(9)))
    browser.mouse("[data-value=wrong]", click=True)
    shown = "['.rollout', '.tm-none'].map(name => !!document.querySelector(name).offsetParent)"
    assert browser.run(shown) == [False, True]
    browser.key("n")
    browser.mouse("[data-value=all]", click=True)
    assert browser.run(shown) == [True, False]
    assert browser.console == []


def test_keys_move_and_jump_to_the_forks(page: Browser) -> None:
    page.run("document.querySelector('.tokens').focus()")
    page.key("Home")
    assert here(page) == 0
    page.key("ArrowRight", times=3)
    page.key("ArrowLeft")
    assert here(page) == 2
    page.key("ArrowDown")  # every second token ends its line
    assert here(page) == 4
    page.key("ArrowUp")
    assert here(page) == 2
    page.key("n")
    assert here(page) == 57  # the three tokens of highest entropy
    page.key("n", times=2)
    assert here(page) == 59
    page.key("n")
    assert here(page) == 57
    page.key("p")
    assert here(page) == 59
    page.key("Home")
    page.key("End")
    assert here(page) == 59
    assert "fork 3 of 3" in text(page, ".tm-token")
    said = page.run("document.querySelector('#tm-here').getAttribute('aria-label')")
    assert said.startswith(" b\n, omega +0.500 attract, entropy")
    inside = "(() => { const [a, b] = ['#tm-here', '.tokens'].map(s => document.querySelector(s).getBoundingClientRect());"
    assert page.run(inside + " return a.top >= b.top && a.bottom <= b.bottom })()")


def test_everything_is_reached_with_tab_and_focus_is_seen(page: Browser) -> None:
    reached = []
    for _ in range(20):
        page.key("Tab")
        reached.append(page.run("document.activeElement.innerText.slice(0, 9)"))
        outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
        if page.run("document.activeElement.matches('.tokens')"):
            break
        assert outline == "solid", reached
    assert reached[:5] == ["direction", "entropy", "gap", "advantage", "teacher's"]
    assert page.run("document.activeElement.matches('.tokens')")


def test_a_click_on_the_strip_jumps(page: Browser) -> None:
    page.mouse(".tm-strip svg", click=True, x=0.254)
    assert here(page) == 15


def test_hostile_text_is_shown_and_does_nothing(browser: Browser, tmp_path: Path) -> None:
    data = document(4, text=HOSTILE)
    data["rollouts"][0] |= {"problem_id": HOSTILE, "status": HOSTILE}
    browser.open(write(tmp_path, data))
    shown = HOSTILE[: HOSTILE.index("\u2028")]
    assert browser.run("document.querySelector('.tokens span').textContent").startswith(shown)
    assert browser.run("document.querySelector('.tm-problem').textContent").startswith(shown)
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('b').length") == 0
    assert browser.console == []
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert browser.run("window.ran === undefined")  # the policy: this page runs its own script alone


@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_read_on_every_colour(browser: Browser, tmp_path: Path, dark: bool) -> None:
    """Contrast of text on the strongest tints over the card, WCAG 2, at least 4.5."""
    browser.open(write(tmp_path, document(60)), dark=dark)
    for mode, name in (("omega", "down3"), ("omega", "up5"), ("gap", "down5"), ("entropy", "fork5")):
        browser.mouse(f"[data-value={mode}]", click=True)
        browser.mouse(".tokens span", index=30)
        contrast = browser.run(f"""(() => {{
            const canvas = Object.assign(document.createElement('canvas'), {{width: 1, height: 1}}).getContext('2d');
            const span = getComputedStyle(document.querySelector('.tokens .{name}'));
            const paint = (...colors) => {{
                for (const color of colors) {{ canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }}
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            }};
            const card = getComputedStyle(document.querySelector('.rollout')).backgroundColor;
            const both = [paint(card, span.backgroundColor), paint(span.color)].sort((a, b) => b - a);
            return (both[0] + 0.05) / (both[1] + 0.05);
        }})()""")
        assert contrast >= 4.5, (mode, name, dark, contrast)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, tmp_path: Path, width: int) -> None:
    browser.open(write(tmp_path, document(60, 60, text=" a" + "long" * 60)), width=width)
    assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_long_rollout_stays_smooth(browser: Browser, tmp_path: Path) -> None:
    """4,000 tokens: another rollout and another colouring, each within 200 ms of the page's own time."""
    browser.open(write(tmp_path, document(4000, 4000)))
    shown = [browser.cpu_ms(f"document.querySelectorAll('.tm-rollouts button')[{index}].click()") for index in (1, 0, 1)]
    assert sorted(shown)[1] < 200
    modes = ("entropy", "gap", "omega")
    switched = [browser.cpu_ms(f"document.querySelector('[data-value={mode}]').click()") for mode in modes]
    assert sorted(switched)[1] < 200
    assert browser.run("document.querySelectorAll('.tokens span').length") == 4000


def test_the_report_shows_the_same_map(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "rollouts.json").write_text(json.dumps(document(60, 60)))
    browser.open(build_report(tmp_path))
    assert browser.run("document.querySelectorAll('#rollouts .tokens span').length") == 60
    browser.mouse(".tokens span", index=10)
    assert f"omega {MINUS}0.250 repel" in " ".join(text(browser, ".tm-token").split())
    assert browser.console == []
