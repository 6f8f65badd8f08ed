"""Does an answer of mathematics equal the gold answer? math-verify decides, inside bounds that are ours.

The answer is the content of the last box (boxes joined by a comma, "and" or "or" count as one), or without a box what
math-verify takes for the final expression. Before math-verify: numbers and units exactly, and shapes whose order or parts it
loses (congruences, cases, tuples, named values, letters in order, intervals against inequalities), part by part. After it: what
it calls equal must not differ in value at a few points, for it rounds. Where neither can tell, the grade is UNDECIDED. What is
still judged wrongly is listed, with reasons, in tests/golden/math_answers.jsonl.

All of this may take for ever or fill the memory on a hostile answer: call it in a worker (`dasd.tasks.workers`) only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from fractions import Fraction
from typing import Any

from dasd.tasks import math_forms as forms
from dasd.tasks.base import GradeStatus
from dasd.tasks.math_expressions import equal, expression, is_malformed, read, read_last, values_differ
from dasd.tasks.math_notation import balanced, is_words, last_boxed, plain_words, tidy
from dasd.tasks.math_quantities import Quantity, exact, percentage, quantity, same_quantity
from dasd.tasks.math_sets import real_set

MAX_PARTS = 12  # of a list that is compared part by part; math-verify has longer ones
ROUNDED = 6  # significant digits from which on a gold decimal may be the rounded value of an exact answer

_POINTS = re.compile(r"(\\(?:angle|triangle|overline|overrightarrow|vec))?\{?([A-Z](?:[A-Z]'?){2,})\}?")


class Verdict(Enum):
    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


RIGHT, WRONG, UNDECIDED = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED
_STATUS = {RIGHT: GradeStatus.CORRECT, WRONG: GradeStatus.INCORRECT, UNDECIDED: GradeStatus.UNDECIDED}


def call(name: str, *arguments: Any) -> Any:
    """One of this file's questions, by name; a gold answer without fault is an empty text, for None is a worker's failure."""
    answer = {"judge": judge, "same": same, "unreadable": unreadable}[name](*arguments)  # type: ignore[operator]
    return "" if answer is None else answer


def judge(gold: str, completion: str, boxed_only: bool = False) -> tuple[GradeStatus, str | None]:
    """(status, extracted answer). GRADER_ERROR where the gold answer cannot be read."""
    boxed = last_boxed(completion)
    if (boxed is None and boxed_only) or (boxed is not None and not boxed.strip()):
        return GradeStatus.NO_ANSWER, None
    gold = tidy(gold)
    if boxed is not None:
        answer = tidy(boxed)
        return _STATUS[compare(gold, answer)] if gold else GradeStatus.GRADER_ERROR, answer[:200]
    found = read_last(completion)
    if not found:
        return GradeStatus.NO_ANSWER, None
    if not read(gold):
        return GradeStatus.GRADER_ERROR, None
    return _STATUS[_verified(gold, found)], str(found[-1])[:200]


def same(first: str, second: str) -> bool:
    """Whether two extracted answers are one answer; a comparison that is in doubt keeps them apart."""
    first, second = tidy(first), tidy(second)
    return compare(first, second) is RIGHT or compare(second, first) is RIGHT


def unreadable(gold: str) -> str | None:
    """Why no answer can be compared with this gold answer, None where one can."""
    text = tidy(gold)
    if not text:
        return "it is empty"
    if not balanced(text) or is_malformed(text):
        return "its brackets do not match, or an operation lacks a part"
    words = plain_words(text)
    if re.fullmatch(r"(?i:nan|none|null|n/?a|unknown|tbd)", words) or not re.search(r"\w|\\emptyset|\\infty|\\pm", text):
        return "it says nothing"
    if re.search(r"(?i)\b(?:about|approximately|roughly|around|or so|or more)\b", words):
        return "it is vague"
    if not re.search(r"[\d\\=<>+*/^]", words) and len(words.split()) > 4:
        return f"it is a sentence of {len(words.split())} words"
    if quantity(text) or forms.congruence(text) or forms.cases(text) or is_words(text) or expression(text) is not None:
        return None
    parts = forms.ordered(text) or forms.unordered(text) or []
    reasons = [unreadable(part) for part in parts] if len(parts) > 1 else ["math-verify cannot read it"]
    return next((reason for reason in reasons if reason), None)


def compare(gold: str, answer: str) -> Verdict:
    """Whether two tidy texts are the same answer, part by part where they have parts."""
    if gold and gold == answer:
        return RIGHT
    for rule in _RULES:
        verdict = rule(gold, answer)
        if verdict is not None:
            return verdict
    return _verified(gold, read(answer)) if read(answer) else (WRONG if not re.search(r"\w", answer) else UNDECIDED)


def _by_quantity(gold: str, answer: str) -> Verdict | None:
    first, second = quantity(gold), quantity(answer)
    if first is None or second is None:
        return None
    agree, factor = same_quantity(first, second)
    if agree is False:
        return WRONG
    value, other = exact(first.number), exact(second.number)
    if value is not None and other is not None:
        verdict = RIGHT if value == other * factor or _rounds_to(other * factor, first.number) else WRONG
    elif first == Quantity(gold) and second == Quantity(answer):
        return None
    else:
        scaling = "" if factor == 1 else rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot "
        verdict = compare(first.number, f"{scaling}({second.number})" if scaling else second.number)
    return UNDECIDED if agree is None and verdict is RIGHT else verdict


def _by_angle(gold: str, answer: str) -> Verdict | None:
    """Degrees against a multiple of pi."""
    sides = [
        (text, re.fullmatch(r"(.+?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\text\{\s*degrees?\s*\})", text)) for text in (gold, answer)
    ]
    bare = [text for text, degrees in sides if not degrees]
    if len(bare) != 1 or "\\pi" not in bare[0]:
        return None
    turned = [
        rf"\frac{{({degrees[1]}) \pi}}{{180}}" if degrees else re.sub(r"\s*\\text\{\s*rad(?:ians?)?\s*\}$", "", text)
        for text, degrees in sides
    ]
    return compare(*turned)


def _rounds_to(value: Fraction, gold: str) -> bool:
    """Whether a gold decimal of many digits is `value`, rounded."""
    match = re.fullmatch(r"-?(\d*)\.(\d+)", gold)
    if match is None or len((match[1] + match[2]).lstrip("0")) < ROUNDED:
        return False
    return 2 * abs(value - Fraction(gold)) <= Fraction(1, 10 ** len(match[2]))


def _by_congruence(gold: str, answer: str) -> Verdict | None:
    first, second = forms.congruence(gold), forms.congruence(answer)
    if first is None and second is None:
        return None
    if first is None or second is None:
        number, other = (first, answer) if first else (second, gold)
        assert number is not None
        value, modulus = exact(other), exact(number.modulus)
        residues = [exact(residue) for residue in number.residues]
        if value is None or modulus is None or len(residues) != 1 or residues[0] is None or second is None:
            return UNDECIDED
        return RIGHT if value == residues[0] else UNDECIDED if (value - residues[0]) % modulus == 0 else WRONG
    if compare(first.modulus, second.modulus) is not RIGHT:
        return WRONG
    if first.subject and second.subject and compare(first.subject, second.subject) is not RIGHT:
        return WRONG
    modulus = exact(first.modulus)
    values = [[exact(residue) for residue in side.residues] for side in (first, second)]
    if modulus and modulus > 0 and all(value is not None for side in values for value in side):
        left, right = ({value % modulus for value in side if value is not None} for side in values)
        return RIGHT if left == right else WRONG
    return _matched(first.residues, second.residues)


def _by_cases(gold: str, answer: str) -> Verdict | None:
    first, second = forms.cases(gold), forms.cases(answer)
    if first is None and second is None:
        return None
    if first and second and len(first) == len(second):
        matched = _matched(first, second, _same_row)
        if matched is RIGHT:
            return RIGHT
    return WRONG if values_differ(first or gold, second or answer) else UNDECIDED


def _same_row(gold: tuple[str, str], answer: tuple[str, str]) -> Verdict:
    verdicts = {compare(*pair) for pair in zip(gold, answer, strict=True)}
    return RIGHT if verdicts == {RIGHT} else WRONG if WRONG in verdicts else UNDECIDED


def _by_letters(gold: str, answer: str) -> Verdict | None:
    """Points in order, ABCD: neither a product nor a set. An angle may be read from either side, a triangle from any corner."""
    first, second = (_POINTS.fullmatch(plain_words(text).replace(" ", "")) for text in (gold, answer))
    if first is None or second is None:
        return None
    if first.groups() == second.groups() or (first[1] == second[1] == "\\angle" and first[2] == second[2][::-1]):
        return RIGHT
    return UNDECIDED if first[1] == second[1] == "\\triangle" and sorted(first[2]) == sorted(second[2]) else WRONG


def _by_words(gold: str, answer: str) -> Verdict | None:
    """Words are the same in any case, with or without an article; whether others mean the same is not asked."""
    if not (is_words(gold) and is_words(answer)):
        return None
    first, second = (re.sub(r"^(?:an?|the)\s+", "", plain_words(text).lower()) for text in (gold, answer))
    return RIGHT if first == second else None


def _by_clock(gold: str, answer: str) -> Verdict | None:
    """3:30 PM is 15:30; without a half of the day 3:30 may be either."""
    first, second = forms.clock(gold), forms.clock(answer)
    if first is None or second is None or not (first.half or second.half):
        return None
    if first.minutes == second.minutes:
        return RIGHT if first.half == second.half or max(first.minutes, second.minutes) >= 780 else UNDECIDED
    return UNDECIDED if not (first.half and second.half) and (first.minutes - second.minutes) % 720 == 0 else WRONG


def _by_percentage(gold: str, answer: str) -> Verdict | None:
    """Exactly; a percentage is also right as the number before its sign, for "what percent" is answered by 12.5 and 12.5 %."""
    first, second = percentage(gold), percentage(answer)
    if first is None and second is None:
        return None
    value, other = first if first is not None else exact(gold), second if second is not None else exact(answer)
    if value is None or other is None:
        return None
    if first is not None and second is not None:
        return RIGHT if value == other else WRONG
    if first is not None:
        return RIGHT if other in (value, value / 100) else WRONG
    return RIGHT if value == other / 100 or (value == other and abs(value) >= 1) else WRONG


def _by_ratio(gold: str, answer: str) -> Verdict | None:
    """3:4 is 6:8, and 3/4."""
    first, second = forms.ratio(gold), forms.ratio(answer)
    if first is None and second is None:
        return None
    terms = [
        [exact(term) for term in side] if side else [exact(text), Fraction(1)]
        for side, text in ((first, gold), (second, answer))
    ]
    known = [[term for term in side if term is not None] for side in terms]
    if known != terms or any(len(side) < 2 or side[0] == 0 for side in known):
        return None
    scaled = [[term / side[0] for term in side] for side in known]
    return RIGHT if scaled[0] == scaled[1] else WRONG


def _by_base(gold: str, answer: str) -> Verdict | None:
    """101_2: the same number in the same base. In another base, or in none, it is the question that decides."""
    first, second = forms.numeral(gold), forms.numeral(answer)
    if first is None and second is None:
        return None
    values = [int(*side) if side else exact(text) for side, text in ((first, gold), (second, answer))]
    if None in values:
        return None
    if first and second and first[1] == second[1]:
        return RIGHT if values[0] == values[1] else WRONG
    return UNDECIDED if values[0] == values[1] else WRONG


def _by_names(gold: str, answer: str) -> Verdict | None:
    """a = 1, b = 2: by name where the answer has names, in the gold answer's order where it has none."""
    parts, others = forms.unordered(gold), forms.ordered(answer) or forms.unordered(answer)
    values = forms.named(parts) if parts and len(parts) > 1 else None
    theirs = forms.named(others) if others and len(others) > 1 else None
    if values is not None:
        if theirs is not None:
            return _all(values.values(), [theirs[n] for n in values]) if theirs.keys() == values.keys() else WRONG
        return _all(values.values(), others) if others and len(others) == len(values) else WRONG
    places = forms.ordered(gold)
    if places and theirs and len(theirs) == len(places) and not any("=" in place for place in places):
        return _all(places, [theirs[name] for name in sorted(theirs)])
    return None


def _by_order(gold: str, answer: str) -> Verdict | None:
    parts, others = forms.ordered(gold), forms.ordered(answer)
    if parts and others:
        return _all(parts, others) if len(parts) == len(others) else WRONG
    return None


def _by_parts(gold: str, answer: str) -> Verdict | None:
    parts, others = forms.unordered(gold), forms.unordered(answer)
    if ("\\pm" in gold or "\\pm" in answer) and (parts or others) and not (parts and others):
        return _matched(parts or [gold], others or [answer])
    if not parts or not others or any(forms.alternatives(part) for part in parts + others):
        return None
    if len(parts) != len(others):  # 1, 1, 2 against 1, 2: a sequence, or solutions with their multiplicity?
        return UNDECIDED if _matched(list(dict.fromkeys(parts)), list(dict.fromkeys(others))) is RIGHT else WRONG
    return _matched(parts, others) if len(parts) <= MAX_PARTS else None


def _all(golds: Any, answers: Any) -> Verdict:
    golds, answers = list(golds), list(answers)
    if len(golds) != len(answers):
        return WRONG
    verdicts = [compare(*pair) for pair in zip(golds, answers, strict=True)]
    return WRONG if WRONG in verdicts else UNDECIDED if UNDECIDED in verdicts else RIGHT


def _matched(golds: Sequence[Any], answers: Sequence[Any], alike: Callable[[Any, Any], Verdict] = compare) -> Verdict:
    """Whether each gold part has an answer's part of its own: equality is transitive, so the first that fits will do."""
    left, doubtful = list(answers), False
    for gold in golds:
        verdicts = [alike(gold, answer) for answer in left]
        if RIGHT in verdicts:
            del left[verdicts.index(RIGHT)]
        elif UNDECIDED in verdicts:
            doubtful = True
        else:
            return WRONG
    return UNDECIDED if doubtful else WRONG if left else RIGHT


def _by_set(gold: str, answer: str) -> Verdict | None:
    """Intervals, their unions and inequalities in one letter. (0, 7) is a pair unless the other side is no pair."""
    first, second = real_set(gold), real_set(answer)
    if first is None or second is None or (not first.relation and not second.relation and first.letter == second.letter):
        return None
    if first.letter != second.letter and first.letter and second.letter and first.relation == second.relation:
        return WRONG
    return RIGHT if first.points == second.points or first.points.symmetric_difference(second.points).is_empty else WRONG


_RULES: list[Callable[[str, str], Verdict | None]] = [
    _by_congruence, _by_cases, _by_clock, _by_angle, _by_percentage, _by_quantity, _by_ratio, _by_base, _by_letters,
    _by_words, _by_names, _by_order, _by_set, _by_parts,
]  # fmt: skip


def _verified(gold: str, found: tuple[Any, ...]) -> Verdict:
    """math-verify's verdict, taken back where the two differ in value, and withheld where it could not read one of them."""
    # A percentage is also right as the number before its sign: "what percent" has the answers 12.5 and 12.5 %.
    expected = [value for reading in sorted({gold, gold.rstrip("\\% ")}) for value in read(reading)]
    if not expected:
        return UNDECIDED
    if any(equal(value, answer) for value in expected for answer in found):
        return RIGHT
    unread = all(isinstance(value, str) for value in expected) or all(isinstance(answer, str) for answer in found)
    text = str(found[-1])
    return UNDECIDED if unread and balanced(text) and not (is_words(gold) or is_words(text) or is_malformed(text)) else WRONG
