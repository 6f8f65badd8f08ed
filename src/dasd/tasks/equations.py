"""Which equations between numbers does a text claim, and do they hold?

Chains such as `3 * (2 + 5) = 21`, `\\frac{1}{2} = 0.5` or `x = 4 + 5 = 9` are found in prose and LaTeX, and each `=` between
two expressions of numbers is one step. The rule is to leave alone whatever may mean something else: what touches a variable, a
function, a unit that converts (`90 + 30 = 2 hours`), a remainder, a base or a modulus, a rounded decimal, a factorial, a
question. A left-out equation costs little; a wrong verdict would make StepAcc worthless.
"""

# ruff: noqa: RUF001 - dashes, quotes and signs that look alike are what texts mix
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from dasd.tasks.arithmetic import Token, Unsure, Value, evaluate, tokenize
from dasd.tasks.base import StepCheck

MAX_CHARS = 100_000  # only a text's last characters are read
MAX_RUN = 1000  # tokens; a longer stretch of numbers is no calculation
SIGHT = 200  # characters to the left and to the right that may belong to an expression

# In order. What is left afterwards is plain text with `*`, `/`, `^`, \frac, \sqrt and unknown commands.
_NORMAL_FORM = [
    (re.compile(r"<<[^<>\n]*>>"), ""),  # calculator notes: 48/2 = <<48/2=24>>24
    (re.compile("[−‒﹣－]"), "-"),
    (re.compile("[×⋅·∙]"), "*"),
    (re.compile("[÷⁄]"), "/"),
    (re.compile("[\u00a0\u2009\u202f]"), " "),
    (re.compile("²"), "^2"),
    (re.compile("³"), "^3"),
    (re.compile(r"\r\n?"), "\n"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" ?\n(?: ?\n)+"), "\n\n"),
    (re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|,|;|!|:|quad|qquad)(?![a-zA-Z])"), " "),
    (re.compile(r"\\(?:cdot|times|ast)(?![a-zA-Z])|\\\*"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"(?<=[0-9])\{,\}(?=[0-9])"), ","),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\\(?:\[[^\]\n]*\])?|\\\[|\\\]|\$\$|\\(?:begin|end)\{[a-z]+\*?\}"), "\n"),
    (re.compile(r"\\\(|\\\)|\\?\$"), ""),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|boxed)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"(?<![\w)\]}])\*\*(?=[^\s*])((?:[^*\n]|(?<!\*)\*(?!\*))+?)(?<=[^\s*])\*\*(?![\w(])"), r"\1"),  # bold
    (re.compile(r"(?<![a-zA-Z])sqrt(?=\()"), "√"),
    (re.compile(r"(?<=[0-9)]) [xX] (?=[0-9(])"), " * "),
    (re.compile(r"&\s*=|=\s*&"), "="),
    (re.compile(r" ?\n{1,2} ?=(?!=)"), " ="),  # a chain that goes on in the next line
]
_LIST_MARK = re.compile(r"\s*(?:[0-9]{1,2}[.)]|[-*•>])\s+")

_SAFE_COMMANDS = {
    "therefore", "because", "implies", "iff", "Rightarrow", "Longrightarrow", "rightarrow", "to", "leftrightarrow",
    "Leftrightarrow", "le", "leq", "ge", "geq", "lt", "gt", "ne", "neq", "checkmark",
}  # fmt: skip
_SAFE_SYMBOLS = set("<>≤≥≠→⇒⟹∴✓✔✅✗❌–—") | {"=>", "->", "<=", ">=", "!="}
_SAFE_BEFORE_BARE = {

    "so", "then", "thus", "hence", "therefore", "that", "since", "because", "perhaps", "maybe", "wait", "check", "indeed",
    "try", "get", "have", "hmm", "is", "gives", "but", "actually", "alternatively",
}  # fmt: skip
_UNSAFE_BEFORE = {

    "of", "twice", "thrice", "double", "triple", "half", "third", "quarter", "times", "plus", "minus", "less", "more",
    "than", "root", "square", "cube", "log", "ln", "exp", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos",
    "arctan", "max", "min", "gcd", "lcm", "hcf", "mod", "floor", "ceil", "ceiling", "abs", "det", "sum", "product",
    "difference", "over", "by", "from", "between", "about", "approximately", "approx", "roughly", "nearly", "around",
    "almost", "not", "isn't", "never", "whether", "choose", "factorial", "to", "xor", "with", "per", "f", "round",
    "rounded", "sqrt", "cbrt", "percent", "lim", "does", "binom",
}  # fmt: skip
_UNSAFE_AFTER = {

    "remainder", "rem", "r", "mod", "modulo", "times", "plus", "minus", "more", "less", "squared", "cubed", "percent",
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "choose", "over", "divided", "multiplied",
    "factorial", "to", "am", "pm", "o", "base", "degrees", "degree", "radians", "rad", "deg", "rounded", "approximately",
    "about", "roughly", "ish", "with", "point", "xor", "hour", "hours", "hr", "hrs", "h", "minute", "minutes", "min",
    "mins", "second", "seconds", "sec", "secs", "day", "days", "week", "weeks", "month", "months", "year", "years",
    "decade", "decades", "century", "centuries", "km", "m", "cm", "mm", "meter", "meters", "metre", "metres", "kilometer",
    "kilometers", "centimeters", "kg", "g", "mg", "gram", "grams", "kilograms", "lb", "lbs", "pound", "pounds", "oz",
    "ounce", "ounces", "ton", "tons", "feet", "foot", "ft", "inch", "inches", "yard", "yards", "mile", "miles", "mph",
    "dollar", "dollars", "cent", "cents", "euro", "euros", "liter", "liters", "litre", "litres", "ml", "gallon", "gallons",
    "quart", "quarts", "pint", "pints", "cup", "cups", "pair", "pairs", "acres", "nickels", "dimes", "quarters", "pennies",
}  # fmt: skip
_OTHER_ARITHMETIC = re.compile(
    r"\\[pb]?mod|\bmod(?:ulo|ular|ulus)?\b|≡|\\equiv|congruent|\bbase[- ](?:[0-9]|two|three|eight|sixteen)|\bbinary\b|\boctal\b"
    r"|\bhex(?:adecimal)?\b|\boperation\b|\bo'?clock\b|\bGF\(|\\oplus|\bstrings?\b|\bconcatenat",
    re.IGNORECASE,
)
_ROUNDING = re.compile(
    r"round|floor|ceil|approx|about|roughly|nearest|whole|quotient|truncat|estimat|integer (?:division|part)|remainder|//",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Equation:
    """One claimed equality of two expressions, as normalised text, and whether it holds."""

    left: str
    right: str
    holds: bool


def check_equations(text: str) -> StepCheck:
    """How many equations of `text` could be judged, and how many of them hold."""
    return StepCheck.of([equation.holds for equation in find_equations(text)])


def find_equations(text: str) -> list[Equation]:
    """Every equation between numbers that is beyond doubt, in order."""
    text = text[-MAX_CHARS:]
    for pattern, replacement in _NORMAL_FORM:
        text = pattern.sub(replacement, text)
    strange = _OTHER_ARITHMETIC.search(text) is not None  # most texts are spared the search around each chain
    equations: list[Equation] = []
    lines = text.split("\n")
    for index, line in enumerate(lines):
        if "=" not in line:
            continue
        mark = _LIST_MARK.match(line)
        line = line[mark.end() :] if mark else line
        above, below = lines[index - 1] if index else "", lines[index + 1] if index + 1 < len(lines) else ""
        if re.search(r"[-+*/^(=≈]\s*$", above):
            line = f"? {line}"  # the expression began in the line above
        if re.match(r"\s*(?:\+|[*/]\s*[0-9])", below):
            line = f"{line} ?"
        context = " ".join(lines[max(0, index - 3) : index])[-300:]
        equations += _line_equations(line, context, below[:60], strange)
    return equations


def _line_equations(line: str, above: str, below: str, strange: bool) -> Iterator[Equation]:
    for run in _runs(line):
        start, end = run[0].start, run[-1].end
        around = f"{above} {line[max(0, start - 300) : end + 60]} {below}"
        if strange and _OTHER_ARITHMETIC.search(around):
            continue
        segments = _segments(run)
        values = [_value(segment) for segment in segments]
        if not _clean_before(line, segments[0], values[0]):
            values[0] = None
        if not _clean_after(line, segments[-1], end):
            values[-1] = None
        for (left, a), (right, b) in pairwise(zip(segments, values, strict=True)):
            holds = None if a is None or b is None else _compare(a, b, around)
            if holds is not None:
                yield Equation(_text(left, line), _text(right, line), holds)


def _runs(line: str) -> Iterator[list[Token]]:
    """Longest stretches of arithmetic tokens that hold an equals sign."""
    run: list[Token] = []
    for token in [*tokenize(line), Token("other", "", len(line), len(line))]:
        if token.kind not in ("other", "unknown"):
            run.append(token)
            continue
        if len(run) <= MAX_RUN and any(part.kind == "equals" for part in run):
            yield run
        run = []


def _segments(run: list[Token]) -> list[list[Token]]:
    """The sides of a chain, without a bracket around the whole of it, `(so 3 + 4 = 7)`, or one opened behind it."""
    segments: list[list[Token]] = [[]]
    for token in run:
        if token.kind == "equals":
            segments.append([])
        else:
            segments[-1].append(token)
    first, last = segments[0], segments[-1]
    while first and first[0].kind == "open" and _depth(first) > 0:
        del first[0]
    if len(first) > 1 and first[0].text == ")" and first[1].kind == "number" and first[1].start > first[0].end:
        del first[0]  # a label: (a) 3 + 4 = 7
    while last and last[-1].kind == "close" and _depth(last) < 0:
        del last[-1]
    if len(last) > 1 and last[-1].text == "(" and last[-1].start > last[-2].end:
        del last[-1]  # 3 + 4 = 7 (as before)
    return segments


def _depth(tokens: list[Token]) -> int:
    return sum((token.kind == "open") - (token.kind == "close") for token in tokens)


def _text(tokens: list[Token], line: str) -> str:
    return line[tokens[0].start : tokens[-1].end]


def _value(segment: list[Token]) -> Value | None:
    try:
        return evaluate(segment)
    except Unsure:
        return None


def _compare(a: Value, b: Value, around: str) -> bool | None:
    """Whether two sides are equal; None where the claim may be another than that."""
    if a.operations == b.operations == 0:  # a name, a list, a repetition: nothing was calculated
        return None
    if a.value == b.value:
        return True
    if b.operations and b.first == a.value:  # 3 + 4 = 7 + 5 = 12, which goes on where it should stop
        return None
    if (a.percent or b.percent) and (a.value == 100 * b.value or b.value == 100 * a.value):
        return None
    for exact, written in ((a, b), (b, a)):
        if written.places is not None and _rounds_to(exact.value, written, around):
            return None
    return False


def _rounds_to(exact: Fraction, written: Value, around: str) -> bool:
    """Whether a lone number may be `exact` rounded or cut: always for a decimal, in words that say so for a whole number."""
    unit = Fraction(1, 10 ** (written.places or 0)) / (100 if written.percent else 1)
    if (exact / unit).denominator == 1:  # nothing had to be rounded
        return False
    error = abs(exact - written.value)
    if written.places == 0 and not written.percent:
        return error < unit and _ROUNDING.search(around) is not None
    return 2 * error <= unit or (error < unit and abs(written.value) < abs(exact))


def _clean_before(line: str, segment: list[Token], value: Value | None) -> bool:
    """Whether nothing to the left belongs to the first expression."""
    if not segment or value is None:
        return False
    before = line[max(0, segment[0].start - SIGHT) : segment[0].start]
    text, bare = before.rstrip(), value.operations == 0
    spaced = text != before
    if not text:
        return True
    command = re.search(r"\\([a-zA-Z]+)$", text)
    if command:
        return command[1] in _SAFE_COMMANDS
    word = re.search(r"[^\W\d_]{1,30}(?:['’][^\W\d_]{1,3})?$", text)
    if word:
        name = word[0].lower().replace("’", "'")
        if not spaced or len(name) == 1 or name in _UNSAFE_BEFORE or (name in ("and", "or") and "=" not in text):
            return False
        return name in _SAFE_BEFORE_BARE if bare or segment[0].text == "-" else True
    if text[-1] in "([":  # stripped from the run: a bracket around the claim, unless it is a function's
        return not re.search(r"[\w}\])]\s?[(\[]+$", text) or bool(re.search(r"[a-z]{2,} [(\[]$", text))
    if text[-1] == ")":
        return bool(re.search(r"(?:^|\s)\(?[a-hivx0-9]{1,3}\)$", text))
    if text[-1] == ",":
        return spaced and not bare
    if text[-1] in ".:;!":
        return spaced and not re.search(r"\.\.$|[0-9]\s+:$|\b(?:approx|ca|vs)\.$", text)
    return text[-1] in '"“‘`' or (spaced and (text[-1] in _SAFE_SYMBOLS or text[-2:] in _SAFE_SYMBOLS))


def _clean_after(line: str, segment: list[Token], run_end: int) -> bool:
    """Whether nothing to the right belongs to the last expression or gives it a unit."""
    if not segment:
        return False
    after = line[segment[-1].end : run_end + SIGHT]
    closed = line[segment[-1].end : run_end].strip()
    if closed.startswith((")", "]")):
        return True
    text = after.lstrip().removeprefix("(") if closed == "(" else after.lstrip()
    spaced = after != after.lstrip()
    if not text:
        return True
    command = re.match(r"\\([a-zA-Z]+)", text)
    if command:
        return command[1] in _SAFE_COMMANDS
    word = re.match(r"[^\W\d_]+[0-9]*", text)
    if word:
        return spaced and len(word[0]) > 1 and word[0].lower().rstrip("0123456789") not in _UNSAFE_AFTER
    if text[0] in ".,;:":
        return bool(re.match(r"[.,;:](?:$|[\s\"”’'`)\]*])", text))
    return text[0] in '"”`' or text[0] in _SAFE_SYMBOLS or text[:2] in _SAFE_SYMBOLS
