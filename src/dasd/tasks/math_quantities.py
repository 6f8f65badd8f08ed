"""What number is this, exactly, and of what unit?

Numbers are `fractions.Fraction`: 3^{-70} and 3^{-71} differ. A unit is a scale over base units, so that 3 m is 300 cm, neither
3 cm nor 3 m^2. Other words behind a number are its label, which people leave out or vary; two labels that share nothing are
nobody's to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from dasd.tasks.arithmetic import Unsure, evaluate, tokenize
from dasd.tasks.math_notation import plain_words

Dimensions = tuple[tuple[str, int], ...]  # base unit -> exponent, in the order of the names


@dataclass(frozen=True)
class Unit:
    """`scale` of the base units in `dimensions` make one."""

    scale: Fraction
    dimensions: Dimensions


@dataclass(frozen=True)
class Quantity:
    """A number as LaTeX with its unit (None: bare or unknown) and the words behind it that are no unit."""

    number: str
    unit: Unit | None = None
    label: frozenset[str] = frozenset()


_BASE = {
    "m": "m metre meter", "g": "g gram gramme", "s": "s sec second", "dollar": "$ dollar usd buck", "euro": "€ euro eur",
    "sterling": "£ gbp", "yen": "¥ yen jpy", "rupee": "₹ rupee rs inr", "K": "K kelvin", "A": "A amp ampere", "mol": "mol mole",
    "degree": "degree deg \\circ", "radian": "rad radian", "celsius": "celsius", "fahrenheit": "fahrenheit", "year": "year yr",
    "bit": "bit", "pixel": "pixel px",
}  # fmt: skip
_DERIVED = {
    "min minute": "60 s", "h hr hour": "3600 s", "day": "86400 s", "week wk": "604800 s", "month": "1/12 year",
    "decade": "10 year", "century centurie": "100 year", "ms millisecond": "1/1000 s",
    "mm millimetre millimeter": "1/1000 m", "cm centimetre centimeter": "1/100 m", "dm decimetre decimeter": "1/10 m",
    "km kilometre kilometer": "1000 m", "in inch inche": "127/5000 m", "ft foot feet": "381/1250 m", "yd yard": "1143/1250 m",
    "mi mile": "201168/125 m", "nm nanometre nanometer": "1/1000000000 m", "kg kilogram kilo": "1000 g",
    "mg milligram": "1/1000 g",
    "tonne": "1000000 g", "lb pound": "45359237/100000 g", "oz ounce": "45359237/1600000 g", "cent ¢": "1/100 dollar",
    "penny pennie pence": "1/100 sterling", "l L litre liter": "1/1000 m^3", "ml mL millilitre milliliter": "1/1000000 m^3",
    "cl cL": "1/100000 m^3", "hectare ha": "10000 m^2", "N newton": "1000 g m s^-2", "J joule": "1000 g m^2 s^-2",
    "kJ kilojoule": "1000000 g m^2 s^-2", "W watt": "1000 g m^2 s^-3", "kW kilowatt": "1000000 g m^2 s^-3",
    "Pa pascal": "1000 g m^-1 s^-2", "Hz hertz": "1 s^-1", "V volt": "1000 g m^2 s^-3 A^-1", "mph": "1397/3125 m s^-1",
    "kph kmph kmh": "5/18 m s^-1", "byte": "8 bit",
}  # fmt: skip
# Letters that stand for something else as often as for a unit: read only inside \text{...}.
_SHY = {"A", "K", "N", "J", "W", "V", "h", "l", "L", "in", "day", "$", "rs"}
_NUMBERLESS = {"s"}  # 3s is an algebraic product as often as three seconds

_UP_TO_TEN = "zero one two three four five six seven eight nine ten"
_UP_TO_TWENTY = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
NUMBER_WORDS = f"{_UP_TO_TEN} {_UP_TO_TWENTY}".split(" ")
_MEASURE = r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)"
_CURRENCY = re.compile(r"(-?)\s*(\\?\$|[£€¥₹])\s*(-?[\d.].*)", re.DOTALL)
_WORDY = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{")
_TAIL = re.compile(
    r"(?P<number>.*?[\d})])\s*(?P<unit>(?:\^\s*\{?\s*\\circ\s*\}?|[a-zA-Z][a-zA-Z.]*)"
    r"(?:\s*(?:\^\s*\{?-?[0-9]\}?|[a-zA-Z/.,'()-]+|\\cdot|\\times))*)",
    re.DOTALL,
)
_SMALL_WORDS = {"a", "an", "the", "of", "in", "total", "each", "about", "exactly", "more", "different", "possible", "distinct"}


def quantity(text: str) -> Quantity | None:
    """The number with its unit that `text` is, None where it is anything else. A bare number is one, without a unit."""
    money = _CURRENCY.fullmatch(text)
    if money:
        rest = quantity(money[1] + money[3])
        if rest is None or (rest.unit is not None and rest.unit != read_unit(money[2].lstrip("\\"))):
            return None
        return Quantity(rest.number, read_unit(money[2].lstrip("\\")), rest.label)
    if exact(text) is not None:
        return Quantity(text)
    if plain_words(text).lower() in NUMBER_WORDS:
        return Quantity(str(NUMBER_WORDS.index(plain_words(text).lower())))
    if (whole := _compound(plain_words(text))) is not None:
        return whole
    wordy = _WORDY.search(text)
    opened = plain_words(text[wordy.start() :]) if wordy else None
    match = _TAIL.fullmatch(f"{text[: wordy.start()].rstrip()} {opened}" if wordy else text)
    if not match or (wordy and wordy.start() == 0) or (wordy is None and exact(match["number"]) is None):
        return None
    if wordy and len(match["number"]) > wordy.start():  # digits among the words: 1 hour 30 minutes
        return None
    return _with_unit(match["number"].strip(), match["unit"].strip(), in_text=wordy is not None)


def percentage(text: str) -> Fraction | None:
    """12.5 of `12.5 %` and of `12.5 percent`."""
    match = re.fullmatch(r"(.*?)\s*(?:\\?%|(?:\\text\s*\{\s*)?(?:percent|per cent|pct)\s*\}?)", text, re.DOTALL)
    return exact(match[1].strip()) if match else None


def exact(text: str) -> Fraction | None:
    """The exact value of an expression of numbers, None for any other text and where it is in doubt. No percentages."""
    if "%" in text or len(text) > 200:
        return None
    return _exact(text)


@lru_cache(maxsize=4096)
def _exact(text: str) -> Fraction | None:
    text = re.sub(r"\\(?:times|cdot|ast)(?![a-zA-Z])", "*", text)
    text = re.sub(r"\\div(?![a-zA-Z])", "/", text)
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*(?=\{)", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*(\d)", r"\1{\2}", text)
    text = re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text)
    mixed = re.fullmatch(r"\s*(-?)\s*(\d+)\s*(\\frac\{\d+\}\{\d+\})\s*", text)
    if mixed:
        text = f"{mixed[1]}({mixed[2]} + {mixed[3]})"
    try:
        return evaluate(tokenize(text.strip())).value
    except Unsure:
        return None


def read_unit(text: str) -> Unit | None:
    """The unit that `text` names, as `km/h`, `square metres`, `m s^{-1}`; None where any part of it is another word."""
    words = re.sub(r"\bper\b|/", " / ", re.sub(r"\^\s*\{?\s*\\circ\s*\}?", " degree ", text))
    words = re.sub(
        r"\bdeg(?:ree)?s?\s+(C|F)(?:elsius|ahrenheit)?\b", lambda m: {"C": "celsius", "F": "fahrenheit"}[m[1]], words
    )
    words = re.sub(r"\s*\^\s*\{?\s*(-?\d)\s*\}?", r"^\1 ", words)
    parts = re.findall(r"/|[^\s/^()]+(?:\^-?\d)?", re.sub(r"\\(?:cdot|times)|(?<=[a-zA-Z])\.|[*·]", " ", words))
    scale, powers, below, prefix = Fraction(1), dict[str, int](), False, 1
    for part in parts:
        name, _, exponent = part.partition("^")
        if name == "/":
            below = True
            continue
        if name.lower() in ("square", "sq", "cubic", "cu"):
            prefix = 2 if name.lower() in ("square", "sq") else 3
            continue
        if name.lower() in ("squared", "cubed"):
            return None
        found = _named(name)
        if found is None:
            return None
        power = prefix * int(exponent or 1) * (-1 if below else 1)
        scale, prefix = scale * found.scale**power, 1
        for base, each in found.dimensions:
            powers[base] = powers.get(base, 0) + each * power
    if not powers or prefix != 1:
        return None
    return Unit(scale, tuple(sorted((base, power) for base, power in powers.items() if power)))


def same_quantity(gold: Quantity, answer: Quantity) -> tuple[bool | None, Fraction]:
    """Whether units agree (None: nobody can say), and the factor that brings the answer's number to the gold's unit."""
    if gold.unit and answer.unit:
        return gold.unit.dimensions == answer.unit.dimensions, answer.unit.scale / gold.unit.scale
    if (gold.unit and answer.label) or (answer.unit and gold.label):
        return None, Fraction(1)
    if gold.label and answer.label and not (gold.label <= answer.label or answer.label <= gold.label):
        return None, Fraction(1)
    return True, Fraction(1)


def _compound(words: str) -> Quantity | None:
    """1 hour 30 minutes, 5 ft 6 in: measures of one dimension, added up in the first one's unit."""
    if not re.fullmatch(rf"{_MEASURE}(?:,?\s*(?:and\s+)?{_MEASURE})+", words):
        return None
    measures = [(Fraction(number), read_unit(unit)) for number, unit in re.findall(_MEASURE, words)]
    units = [unit for _, unit in measures if unit is not None]
    if len(units) < len(measures) or len({unit.dimensions for unit in units}) != 1:
        return None
    total = sum(number * unit.scale for (number, _), unit in zip(measures, units, strict=True)) / units[0].scale
    return Quantity(f"\\frac{{{total.numerator}}}{{{total.denominator}}}", units[0])


def _with_unit(number: str, words: str, in_text: bool) -> Quantity | None:
    first = re.match(r"[a-zA-Z]+", words)
    shy = not in_text and first is not None and (first[0] in _SHY or first[0] in _NUMBERLESS)
    unit = None if shy else read_unit(words)
    if unit is not None:
        return Quantity(number, unit)
    if not in_text and (shy or len(words) < 3):  # a product of letters
        return None
    parts = words.split()
    for end in range(len(parts) - 1, 0, -1):  # metres long, hours in total
        unit = read_unit(" ".join(parts[:end]))
        if unit is not None:
            return Quantity(number, unit)
    label = frozenset(_singular(word) for word in re.findall(r"[a-z]+", words.lower())) - _SMALL_WORDS
    if re.search(r"\b(?:and|or|not|to|than|is|are|was|isn't)\b", words) or (not in_text and re.search(r"[^a-zA-Z\s'-]", words)):
        return None
    return Quantity(number, None, label)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


@lru_cache(maxsize=1)
def _table() -> dict[str, Unit]:
    table = {alias: Unit(Fraction(1), ((base, 1),)) for base, names in _BASE.items() for alias in names.split()}
    table |= {base: Unit(Fraction(1), ((base, 1),)) for base in _BASE}
    for names, definition in _DERIVED.items():
        factor, _, units = definition.partition(" ")
        scale, powers = Fraction(factor), dict[str, int]()
        for part in units.split():
            name, _, exponent = part.partition("^")
            scale *= table[name].scale ** int(exponent or 1)
            for base, each in table[name].dimensions:
                powers[base] = powers.get(base, 0) + each * int(exponent or 1)
        table |= {name: Unit(scale, tuple(sorted(powers.items()))) for name in names.split()}
    return table


def _named(name: str) -> Unit | None:
    """A unit by one name; words in any case and number, symbols (up to two letters) as they are written."""
    table = _table()
    if name in table:
        return table[name]
    lowered = name.lower()
    if len(name) <= 2:
        return None
    return table.get(lowered) or table.get(_singular(lowered)) or table.get(lowered.removesuffix("es"))
