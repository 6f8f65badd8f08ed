"""How is an answer's text put into the one notation that its readers know?

Only the writing changes, never the value: characters become LaTeX, decoration goes, numbers written in other ways (4e33, 3 1/2,
0.1\\overline{6}) become LaTeX numbers. `top_level` cuts a text where no bracket is open.
"""

# ruff: noqa: RUF001 - signs that look alike are what answers mix
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_NAMES = "alpha beta gamma delta epsilon zeta eta theta kappa mu nu xi pi rho sigma tau phi chi psi omega"
_GREEK = {unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): rf"\{name} " for name in _NAMES.split(" ")}
_GREEK["λ"] = r"\lambda "
_SIGNS = {
    **_GREEK, "−": "-", "‒": "-", "﹣": "-", "－": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
    "∗": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ",
    "∞": r"\infty ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "≡": r"\equiv ",
    "≈": r"\approx ", "°": r"^\circ ", "º": r"^\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ", "△": r"\triangle ",
    "′": "'", "’": "'", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2003": " ", "\u200b": "", "\ufeff": "",
}  # fmt: skip
_VULGAR = {c: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", c).split("⁄")) for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_FULL_WIDTH = {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
_CHARACTERS = str.maketrans({**_FULL_WIDTH, **_SIGNS, **_VULGAR})

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_JOINED = re.compile(r"[\s$]*(?:,|,?\s*and|,?\s*or)[\s$]*")

_SHELL = r"\\(?:underline|mathbf|boldsymbol|bm|bf|fbox|boxed|(?:overset|textcolor|color|colorbox)\{[^{}]*\})"
_REPEATING = re.compile(r"(?<![\d.,])(\d{0,9})\.(\d{0,9})\\overline\{(\d{1,9})\}")
_DOTTED = re.compile(r"\\dot\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?")
_DEGREES = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?-?\d\}?)?)\s*([({])?\s*"
    r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?(?(2)\s*[)}])"
)
_MIXED = re.compile(r"(?<![\w.}/^])(\d{1,9})[ ]+(\d{1,9}) ?/ ?(\d{1,9})(?![\d/.])")
_NOTATION: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"√\s*(\d+(?:\.\d+)?|[a-z])"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√(?=\s*\{)"), r"\\sqrt"),
    (re.compile(r"(?<!\d)–|–(?!\d)"), "-"),
    (re.compile(r"\\(?:displaystyle|textstyle|large|Large|LARGE|huge|Huge|small|normalsize|limits)(?![a-zA-Z])\s*"), ""),
    (re.compile(r"\{\s*\\(?:color\s*\{[^{}]*\}|bf|rm|it)(?![a-zA-Z])\s*([^{}]*)\}"), r"\1"),
    (re.compile(r"\\left(?=[\\(\[{|.])|\\right(?=[\\)\]}|.])"), ""),
    (re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\})(?=\d{3}(?!\d))"), ""),  # thousands: 1\,234 and 1{,}234
    (re.compile(r"\\[,;:!](?![a-zA-Z])|\\(?:quad|qquad)(?![a-zA-Z])|~"), " "),
    (re.compile(r"(?<![\d.,])(\d{1,3}) (?=\d{3}(?: \d{3})*(?![\d.,]))|(?<= \d{3}) (?=\d{3}(?!\d))"), r"\1"),
    (re.compile(r"\\\((.*?)\\\)", re.DOTALL), r"\1"),
    (re.compile(r"\\mathrm\s*\{\s*([ie])\s*\}|\\imath(?![a-zA-Z])"), r" \1"),
    (re.compile(r"\\log_\{?\s*e\s*\}?(?![a-zA-Z])"), r"\\ln "),
    (re.compile(r"(?<=\d)\s*\^?\s*\{?\s*\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}?|(?<=\d)(?:st|nd|rd|th)\b"), ""),
    (re.compile(r"^(?:=|\\approx(?![a-zA-Z])|\\sim(?![a-zA-Z]))\s*"), ""),
    (_DEGREES, r"\1(\\frac{\3 \\pi}{180})"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne"),
    (re.compile(r"\\langle(?![a-zA-Z])(.*?)\\rangle(?![a-zA-Z])", re.DOTALL), r"(\1)"),
    (re.compile(r"(?<![\w.}\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,6})(?![\w.])"), r"\1 \\times 10^{\2}"),
    (re.compile(r"(?<=10\^\{)\+(?=\d+\})"), ""),
    (re.compile(r"(?<![a-zA-Z\d.}])(\d+)\s+(?=\\[dt]?frac)"), r"\1"),
]
_MARKS = re.compile(r"(?:\s|\\[,;:! ]|(?<!\\)[.,;:])+$")
_WRAPPED = re.compile(r"(\*\*|__|\*|`+|\$\$|\$)(.+)\1", re.DOTALL)
_INTRODUCTION = re.compile(r"(?:thus|so|hence|therefore)?,?\s*(?:the |my )?(?:final )?answer(?: is|:)+\s*", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")


def tidy(answer: str) -> str:
    """`answer` in plain LaTeX without decoration, without the full stop of its sentence."""
    text = _with_scripts(_digits_as_written(answer).translate(_CHARACTERS)).strip()
    text = _until_still(text, _undressed)
    text = _DOTTED.sub(lambda m: f"\\overline{{{m[1]}{m[2] or ''}{m[3] or ''}}}", text.replace("\\bar{", "\\overline{"))
    text = _REPEATING.sub(_as_fraction, text)
    for pattern, replacement in _NOTATION:
        text = pattern.sub(replacement, text)
    return _until_still(_MIXED.sub(_as_mixed, text), _undressed)


def top_level(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts of `text` between separators that stand outside all brackets, braces and environments."""
    depth, start, parts, position = 0, 0, [], 0
    while position < len(text):
        match = separator.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            parts.append(text[start:position])
            start = position = match.end()
            continue
        piece = re.compile(r"\\begin(?![a-zA-Z])|\\end(?![a-zA-Z])|\\[{}]|\\.|.", re.DOTALL).match(text, position)
        assert piece is not None
        depth += {"\\begin": 1, "\\end": -1, "\\{": 1, "\\}": -1}.get(piece[0], 0) or (piece[0] in "([{") - (piece[0] in ")]}")
        depth, position = max(depth, 0), piece.end()
    return [part.strip() for part in [*parts, text[start:]]]


def plain_words(text: str) -> str:
    """`text` with the contents of \\text{...} and its like in the open."""
    return " ".join(_TEXT.sub(r" \1 ", text).replace("\\ ", " ").split())


def balanced(text: str) -> bool:
    """No bracket closes that was not opened in `text`; [ may close with ) as intervals do."""
    depth = 0
    for piece in re.findall(r"\\[{}]|\\.|.", text, re.DOTALL):
        depth += (piece in ("(", "[", "{", "\\{")) - (piece in (")", "]", "}", "\\}"))
        if depth < 0:
            return False
    return depth == 0


def last_boxed(text: str) -> str | None:
    """Content of the last closed box, joined to the boxes it is listed with; None where there is no closed box."""
    contents: list[str] = []
    previous_end = None
    for match in _BOX.finditer(text):
        end = _closing_brace(text, match.end())
        if end is None or (previous_end is not None and match.start() < previous_end):
            continue  # cut off, or a box inside a box, which is taken off later
        joined = previous_end is not None and _JOINED.fullmatch(text, previous_end, match.start())
        contents = [*contents, text[match.end() : end]] if joined else [text[match.end() : end]]
        previous_end = end + 1
    return ", ".join(contents) if contents else None


def is_words(text: str) -> bool:
    """Nothing but words: an answer such as Tuesday, or I do not know."""
    return re.fullmatch(r"[A-Za-z][a-z]+(?:[\s'-]+[A-Za-z]+)*", plain_words(text)) is not None


def _undressed(text: str) -> str:
    """Without one layer of what surrounds the whole: marks, bold, colours, `The answer is`, \\text around a number."""
    text = _MARKS.sub("", text).strip()
    if (wrapped := _WRAPPED.fullmatch(text)) and wrapped[1] not in wrapped[2]:
        return wrapped[2].strip()
    text = re.sub(rf"{_SHELL}\s*\{{([^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*)\}}", r"\1", text)
    whole = _TEXT.fullmatch(text)
    if whole:
        inner = _MARKS.sub("", whole[1]).strip()
        text = inner if re.search(r"\d", inner) else text.replace(whole[1], inner)
    return _INTRODUCTION.sub("", text, count=1) if _INTRODUCTION.match(text) else text


def _until_still(text: str, change: Callable[[str], str]) -> str:
    for _ in range(8):
        changed = change(text)
        if changed == text:
            break
        text = changed
    return text


def _digits_as_written(text: str) -> str:
    """A vulgar fraction behind a digit is a mixed number, in front of one it is a factor; neither needs more than a space."""
    return re.sub(r"(?<=\d)\s+(?=[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])", "", text)


def _with_scripts(text: str) -> str:
    text = re.sub(f"[{''.join(_SUPERSCRIPTS)}]+", lambda m: "^{" + "".join(map(_SUPERSCRIPTS.__getitem__, m[0])) + "}", text)
    return re.sub(f"[{''.join(_SUBSCRIPTS)}]+", lambda m: "_{" + "".join(map(_SUBSCRIPTS.__getitem__, m[0])) + "}", text)


def _as_fraction(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction: the digits with one period, less those without, over as many nines and zeros."""
    whole, fixed, period = match.groups()
    numerator = int(whole + fixed + period) - int(whole + fixed or "0")
    return f"\\frac{{{numerator}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _as_mixed(match: re.Match[str]) -> str:
    whole, top, bottom = match.groups()
    return f"{whole}\\frac{{{top}}}{{{bottom}}}" if int(top) < int(bottom) else match[0]


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None
