"""Is a Countdown completion judged by the rules alone, whatever its text holds, and are problems and searches sound?"""

import builtins
import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.tasks import make_task
from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck
from dasd.tasks.countdown import (
    MAX_CHARS,
    SPLIT_SHARES,
    CountdownSpec,
    CountdownTask,
    is_solution,
    make_problems,
    problem_id,
    read_problem,
    split_of,
    write_problem,
)
from dasd.tasks.countdown_search import GIVE_UP, Searcher, all_chains
from dasd.tasks.countdown_steps import RESULT_LIMIT, apply_operator

CORRECT, INCORRECT, NO_ANSWER = GradeStatus.CORRECT, GradeStatus.INCORRECT, GradeStatus.NO_ANSWER
TASK = CountdownTask()
SOLUTION = "3 * 7 = 21, 21 + 8 = 29"
SEARCH = (
    "perhaps 3 + 8 = 11, 11 * 7 = 77. check 77 > 29. alternatively 11 + 7 = 18. check 18 < 29. "
    f"wait, maybe {SOLUTION}. check 29 = 29. answer: {SOLUTION}."
)


def make(text):
    return Problem(id="x", problem=text, answer=text.split()[-1].rstrip("."))


PROBLEM = make("Use 3 7 8 to make 29.")


def status(completion, problem=PROBLEM):
    return TASK.grade(problem, completion).status


def judged(problem, answer):
    return status(f"answer: {answer}", make(f"Use {problem}."))


# ---------------------------------------------------------------- a twin that knows nothing of the source


@lru_cache(maxsize=4096)
def answers(numbers):
    """Target -> every right answer as a tuple of written steps, by trying every ordered pair and operator exactly."""
    found = defaultdict(set)

    def walk(pool, written):
        if len(pool) == 1 and written:
            found[pool[0]].add(written)
        for i, j in permutations(range(len(pool)), 2):
            a, b, rest = pool[i], pool[j], [pool[k] for k in range(len(pool)) if k not in (i, j)]
            values = {"+": a + b, "-": a - b, "*": a * b} | ({"/": Fraction(a, b)} if b else {})
            for sign, value in values.items():
                if value.denominator == 1 and 0 <= value <= 999_999:
                    walk([*rest, int(value)], (*written, f"{a} {sign} {b} = {value}"))

    walk(list(numbers), ())
    return found


def solutions(numbers, target):
    return answers(tuple(sorted(numbers)))[target]


def in_search_language(answer):
    """Whether the searcher may write this answer: larger operand first, every result in 1..RESULT_LIMIT."""
    steps = [list(map(int, re.findall("[0-9]+", step))) for step in answer]
    return all(a >= b and 1 <= result <= RESULT_LIMIT for a, b, result in steps)


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("3 7 8 to make 29", "3 * 7 = 21, 21 + 8 = 29"),
        ("3 7 8 to make 29", "7 * 3 = 21, 8 + 21 = 29."),
        ("3 7 8 to make 29", "3*7=21,21+8=29"),
        ("3 7 8 to make 29", "  3 * 7 = 21 ,\n21 + 8 = 29 .\n"),
        ("8 3 7 to make 4", "8 - 7 = 1, 3 + 1 = 4"),
        ("12 4 to make 3", "12 / 4 = 3"),
        ("12 4 3 to make 9", "12 / 4 = 3, 3 * 3 = 9"),  # one 3 given, the other a result
        ("5 2 3 to make 25", "2 + 3 = 5, 5 * 5 = 25"),
        ("4 4 2 to make 10", "4 + 4 = 8, 8 + 2 = 10"),
        ("4 4 4 4 to make 16", "4 + 4 = 8, 4 + 4 = 8, 8 + 8 = 16"),
        ("1 2 3 4 to make 21", "1 + 2 = 3, 3 + 4 = 7, 7 * 3 = 21"),
        ("5 5 7 to make 7", "5 - 5 = 0, 0 + 7 = 7"),
        ("5 5 7 to make 0", "5 - 5 = 0, 0 / 7 = 0"),
        ("999 999 to make 998001", "999 * 999 = 998001"),
    ],
)
def test_right_answers(problem, answer):
    assert judged(problem, answer) is CORRECT


@pytest.mark.parametrize(
    ("problem", "answer", "why"),
    [
        ("3 7 8 to make 29", "3 * 7 = 20, 20 + 8 = 29", "both equations false"),
        ("3 7 8 to make 29", "3 + 7 = 21, 21 + 8 = 29", "first equation false"),
        ("3 7 8 to make 29", "3 * 7 = 21, 21 + 8 = 28", "last equation false"),
        ("3 7 8 to make 29", "3 + 7 = 10, 10 + 8 = 18", "true, another target"),
        ("3 7 8 to make 21", "3 * 7 = 21", "8 is left"),
        ("3 7 8 to make 29", "21 + 8 = 29", "21 was never there"),
        ("3 7 8 to make 29", "21 + 8 = 29, 3 * 7 = 21", "21 used before it is made"),
        ("3 7 8 to make 29", "3 * 7 = 21, 21 + 8 = 29, 29 + 0 = 29", "0 was never there"),
        ("3 7 8 to make 58", "3 * 7 = 21, 21 + 8 = 29, 29 + 29 = 58", "last result used twice"),
        ("2 3 to make 25", "2 + 3 = 5, 5 * 5 = 25", "result used twice"),
        ("2 3 9 to make 25", "2 + 3 = 5, 5 * 5 = 25", "result used twice, 9 unused"),
        ("4 5 2 to make 10", "4 + 4 = 8, 8 + 2 = 10", "4 used twice"),
        ("4 4 2 to make 8", "4 * 2 = 8", "second 4 is left"),
        ("4 4 2 to make 10", "4 + 4 = 8, 4 + 4 = 8, 8 + 2 = 10", "pair of 4 used twice"),
        ("7 2 to make 3", "7 / 2 = 3", "division with remainder"),
        ("2 8 to make 4", "2 / 8 = 4", "division the wrong way"),
        ("5 5 3 to make 0", "5 - 5 = 0, 3 / 0 = 0", "division by zero"),
        ("3 8 to make 5", "3 - 8 = 5", "sign ignored"),
        ("3 7 8 to make 29", "3 * 7 + 8 = 29", "not one step"),
        ("3 7 8 to make 29", "3 * 7 = 21 + 8 = 29", "chained"),
        ("3 7 8 to make 29", "3 * 7 = 21, 21 + 8 = 29,", "comma at the end"),
        ("3 7 8 to make 29", "3 * 7 = 21 21 + 8 = 29", "no comma"),
        ("3 7 8 to make 29", "3 x 7 = 21, 21 + 8 = 29", "another sign"),
        ("3 7 8 to make 29", "3 * 7 = 21, 21 + 8 = 29. done", "text after it"),
        ("3 7 8 to make 29", "3 * 7 = 21, 21 + 8 = 29..", "two full stops"),
        ("3 7 8 to make 29", "29", "no steps"),
        ("29 to make 29", "29", "no steps, though the number is the target"),
        ("29 to make 29", "", "nothing"),
        ("999 9999 to make 99", "999 * 9999 = 9989001", "seven digits"),
    ],
)
def test_wrong_answers(problem, answer, why):
    assert judged(problem, answer) is INCORRECT, why


def test_the_order_in_which_numbers_are_given_does_not_matter():
    assert [judged(f"{a} {b} {c} to make 29", SOLUTION) for a, b, c in permutations((3, 7, 8))] == [CORRECT] * 6


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("", Grade(NO_ANSWER)),
        (f"perhaps {SOLUTION}. check 29 = 29.", Grade(NO_ANSWER)),
        (f"Answer: {SOLUTION}.", Grade(NO_ANSWER)),
        ("hmm, no luck.", Grade(NO_ANSWER)),
        ("answer:", Grade(INCORRECT, "")),
        (SEARCH, Grade(CORRECT, SOLUTION)),
        (f"answer: 3 + 7 = 10. answer: {SOLUTION}.", Grade(CORRECT, SOLUTION)),
        (f"answer: {SOLUTION}. answer: 3 + 7 = 10.", Grade(INCORRECT, "3 + 7 = 10")),
        (f"answer: {SOLUTION}. answer:", Grade(INCORRECT, "")),
        (f"answer: {SOLUTION}. check 29 = 29.", Grade(INCORRECT, f"{SOLUTION}. check 29 = 29")),
        (f"answer: {'x' * 300}", Grade(INCORRECT, "x" * 200)),
    ],
)
def test_the_text_after_the_last_mark_is_the_answer(completion, expected):
    assert TASK.grade(PROBLEM, completion) == expected


def test_only_correct_counts_as_correct():
    assert [Grade(each).correct for each in GradeStatus] == [each is CORRECT for each in GradeStatus]
    assert TASK.grade(PROBLEM, f"answer: {SOLUTION}").correct


def test_a_number_is_no_solution_without_a_step():
    assert is_solution([29], 29, []) is False
    assert is_solution([3, 7], 21, [(3, "*", 7, 21)]) is True


def test_operators():
    assert [apply_operator(12, sign, 5) for sign in "+-*/"] == [17, 7, 60, None]
    assert [apply_operator(12, "/", b) for b in (4, 0)] == [3, None]
    with pytest.raises(ValueError, match=r"operator '%' is not one of"):
        apply_operator(12, "%", 5)


def test_problem_texts():
    assert write_problem([3, 7, 8], 29) == "Use 3 7 8 to make 29."
    assert read_problem("Use 3 7 8 to make 29.") == ([3, 7, 8], 29)
    assert read_problem("Please. Use 3 to make 4. Thanks.") == ([3], 4)
    for text in ("Use to make 29.", "Use 3, 7 to make 29.", "Use 3 7 to make 29", "Use 1234567 to make 2.", "Use ٣ to make ٤."):
        with pytest.raises(ValueError, match=r"not a Countdown problem: .*expected a text like 'Use 3 7 8 to make 29\.'"):
            read_problem(text)


def test_tasks_by_name():
    assert [make_task(name).name for name in ("countdown", "math")] == ["countdown", "math"]
    with pytest.raises(KeyError, match="chess"):
        make_task("chess")


@pytest.mark.parametrize("text", ["Use 10 20 5 to make 205.", "Use 25 5 30 to make 95.", "Use 5 5 7 to make 0."])
def test_gold_completion_is_found_for_every_solvable_problem(text):
    numbers, target = read_problem(text)
    assert solutions(numbers, target)
    assert status(TASK.gold_completion(make(text)), make(text)) is CORRECT


def test_gold_completion_without_a_reference_is_found_by_search():
    assert status(TASK.gold_completion(PROBLEM)) is CORRECT
    unsolvable = make("Use 1 1 1 to make 90.")
    assert status(TASK.gold_completion(unsolvable), unsolvable) is INCORRECT
    told = Problem(id="x", problem="Use 3 7 8 to make 29.", answer="29", solution="8 + 21 = 29")
    assert TASK.gold_completion(told) == "answer: 8 + 21 = 29"


# ---------------------------------------------------------------- hostile texts

MILLION = 10**6
HOSTILE = {
    "arabic-indic digits": "answer: ٣ * ٧ = ٢١, ٢١ + ٨ = ٢٩",  # noqa: RUF001
    "one arabic-indic digit": "answer: 3 * 7 = 21, 21 + 8 = 2٩",
    "full-width digits": "answer: ３ * ７ = ２１, ２１ + ８ = ２９",  # noqa: RUF001
    "superscript": "answer: 3 * 7 = 21, 21 + 8 = 2⁹",
    "superscript after the target": "answer: 3 * 7 = 21, 21 + 8 = 29²",
    "other signs": "answer: 3 × 7 = 21, 21 ＋ 8 ＝ 29",  # noqa: RUF001
    "number of a million digits": "answer: 3 * 7 = 21, 21 + 8 = " + "2" * MILLION,
    "a million digits and no mark": "9" * MILLION,
    "number of nineteen thousand digits": "answer: 3 * 7 = 21, 21 + 8 = " + "9" * 19_000,
    "product of long numbers": f"answer: {'9' * 9000} * {'9' * 9000} = 29",
    "seven digits": "answer: 3 * 7 = 0000021, 0000021 + 8 = 29",
    "a million parentheses": "answer: " + "(" * MILLION + "3" + ")" * MILLION,
    "parentheses": "answer: " + "(" * 9000 + "3 * 7 = 21, 21 + 8 = 29" + ")" * 9000,
    "import": "answer: __import__('os').system('touch pwned')",
    "import in a number's place": "answer: 3 * 7 = 21, 21 + 8 = __import__('os').system('touch pwned') or 29",
    "eval": "answer: eval(\"open('pwned', 'w')\")",
    "format": "answer: {0.__class__} %s %(a)s ${HOME} `touch pwned` $(touch pwned)",
    "tower": "answer: 9**9**9**9 = 29",
    "null byte at the end": f"answer: {SOLUTION}\0",
    "null byte inside": "answer: 3 * 7 = 2\x001, 21 + 8 = 29",
    "decimals": "answer: 3.0 * 7 = 21, 21 + 8 = 29",
    "decimal result": "answer: 3 * 7 = 21, 21 + 8 = 29.0",
    "negative number": "answer: 3 * 7 = 21, 21 - -8 = 29",
    "plus sign": "answer: +3 * 7 = 21, 21 + 8 = 29",
    "underscore": "answer: 3 * 7 = 2_1, 2_1 + 8 = 29",
    "hexadecimal": "answer: 3 * 7 = 0x15, 0x15 + 8 = 29",
    "newline in an equation": "answer: 3 * 7 =\n21, 21 + 8 = 29",
    "newline for a comma": "answer: 3 * 7 = 21\n21 + 8 = 29",
    "zero-width space": "answer: 3 * 7 = 21, 21 + 8 = 29\u200b",
    "lone surrogate": f"answer: {SOLUTION}\ud800",
    "many spaces": "answer: 3" + " " * 19_000 + "* 7 = 21, 21 + 8 = 29",
    "many commas": "answer: " + "," * 19_000,
    "many marks": "answer:" * 140_000,
    "many checks": "check " * 160_000,
    "many beginnings": "answer: " + "3 + " * 250_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_wrong_at_once_and_never_evaluated(name, monkeypatch, tmp_path):
    def forbidden(*args, **kwargs):
        raise AssertionError("text of a completion was evaluated")

    monkeypatch.chdir(tmp_path)
    seconds = []
    with monkeypatch.context() as patched:
        for builtin in ("eval", "exec", "compile", "open"):
            patched.setattr(builtins, builtin, forbidden)
        for module_function in ("system", "popen"):
            patched.setattr(os, module_function, forbidden)
        for _ in range(2):  # the better of two: a garbage collection may fall into one
            started = time.thread_time()
            grade = TASK.grade(PROBLEM, HOSTILE[name])
            steps = TASK.check_steps(PROBLEM, HOSTILE[name])
            seconds.append(time.thread_time() - started)
    assert grade.status in (INCORRECT, NO_ANSWER)
    assert grade.extracted is None or len(grade.extracted) <= 200
    assert 0 <= steps.right <= steps.checked
    assert list(tmp_path.iterdir()) == []
    assert min(seconds) < 0.05


def test_exponents_are_not_numbers():
    problem = "100000 5 to make 100005"
    assert judged(problem, "100000 + 5 = 100005") is CORRECT
    assert judged(problem, "1e5 + 5 = 100005") is INCORRECT


def test_only_the_end_of_a_long_text_is_read():
    assert status("(" * MILLION + f" answer: {SOLUTION}.") is CORRECT
    end = f"answer: {SOLUTION}".rjust(MAX_CHARS)
    assert status(f"9{end}") is CORRECT
    assert status(f"{end.strip()}{' ' * MAX_CHARS}") is NO_ANSWER


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("text", "right", "checked"),
    [
        ("", 0, 0),
        ("wait, maybe", 0, 0),
        (SEARCH, 10, 10),
        ("3 + 8 = 11", 1, 1),
        ("3+8=11", 1, 1),
        ("8 - 3 = 5, 5 * 7 = 35.", 2, 2),
        ("3 + 8 = 12", 0, 1),
        ("7 / 3 = 2", 0, 1),
        ("8 / 0 = 0", 0, 1),
        ("4 + 8 = 12", 0, 1),  # 4 was never there
        ("8 + 4 = 12", 0, 1),
        ("3 + 8 = 11, 11 + 9 = 20", 1, 2),  # 9 was never there
        ("11 + 7 = 18, 3 + 8 = 11", 1, 2),  # 11 is not there yet
        ("3 + 8 = 12, 12 + 7 = 19", 1, 2),  # a wrong result has been written all the same
        ("4 + 8 = 12, 12 + 7 = 19", 1, 2),
        ("perhaps 3 + 8 = 11, 11 * 7 = 78. check 78 > 29. answer: 3 * 8 = 24, 24 + 5 = 29.", 3, 5),
        ("check 77 > 29", 1, 1),
        ("check 77 > 29. check 18 < 29. check 29 = 29.", 3, 3),
        ("check 77 < 29", 0, 1),
        ("check 77 = 29", 0, 1),
        ("check 29 < 29, check 29 > 29", 0, 2),
        ("check 18 > 29", 0, 1),
        ("check 77 > 30", 0, 1),  # true, but 30 is not the target
        ("check 29 < 77", 0, 1),  # the target stands on the right
        ("check 77 > 290", 0, 1),
        ("check 77 > 0000029", 0, 0),
        ("check 77 > 29 and check 3 > 29", 1, 2),
        ("77 > 29", 0, 0),
        ("recheck 77 > 29", 0, 0),
        ("check 77 ≥ 29", 0, 0),
        ("check 77.5 > 29", 0, 0),
        ("1.5 + 2 = 3.5", 0, 0),  # never 5 + 2 = 3
        ("0.3 + 8 = 11", 0, 0),
        ("3 + 8.0 = 11", 0, 0),
        ("1000003 + 8 = 11", 0, 0),
        ("3 + 8 = 1100000", 0, 0),
        ("3 + 8 = 11\n7 - 3 = 4", 2, 2),
        ("٣ + ٨ = ١١", 0, 0),  # noqa: RUF001
    ],
)
def test_steps_counted_by_hand(text, right, checked):
    assert TASK.check_steps(PROBLEM, text) == StepCheck(right=right, checked=checked)


@pytest.mark.parametrize(
    "text",
    ["3 + 8 = 11.5", "check 30 > 29.5", "-3 + 8 = 11", "10 - 3 + 8 = 11", "3 + 8 = 11 * 2", "3 + 8 = 11/2", "3 + 8 = 11e5"],
)
def test_a_part_of_a_false_statement_is_not_a_right_step(text):
    assert TASK.check_steps(PROBLEM, text).right == 0


@given(st.lists(st.tuples(st.sampled_from([3, 7, 8, 11, 40]), st.sampled_from("+-*/<>="), st.integers(0, 60)), max_size=12))
@settings(deadline=None, max_examples=200)
def test_steps_agree_with_their_own_making(items):
    """Texts are put together from known pieces, so the counts are known without reading the text."""
    numbers, target, words, right = [3, 7, 8], 29, [], 0
    seen = set(numbers)
    for a, sign, b in items:
        if sign in "<>=":
            words.append(f"check {a} {sign} {target if b % 2 else b}.")
            other = target if b % 2 else b
            right += other == target and {"<": a < other, ">": a > other, "=": a == other}[sign]
        else:
            exact = Fraction(a, b) if sign == "/" and b else {"+": a + b, "-": a - b, "*": a * b}.get(sign)
            written = b if exact is None or exact < 0 or Fraction(exact).denominator > 1 else int(exact)
            words.append(f"maybe {a} {sign} {b} = {written},")
            right += a in seen and b in seen and exact == written
            seen.add(written)
    assert TASK.check_steps(PROBLEM, " ".join(words)) == StepCheck(right=right, checked=len(items))


# ---------------------------------------------------------------- any text, and the twin

PIECES = [
    *"0123789+-*/=<>,.()\n\0 ",
    "answer:",
    "check ",
    " + ",
    " = ",
    "29",
    "21",
    SOLUTION,
    "٣",
    "²",
    "wait, ",
    "1e5",
    "\ud800",
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))


@given(texts)
@settings(deadline=None, max_examples=400)
def test_any_text_is_graded(text):
    grade, steps = TASK.grade(PROBLEM, text), TASK.check_steps(PROBLEM, text)
    assert grade.status in ((CORRECT, INCORRECT) if "answer:" in text else (NO_ANSWER,))
    assert (grade.extracted is None) == (grade.status is NO_ANSWER)
    assert 0 <= steps.right <= steps.checked <= text.count("=") + text.count("<") + text.count(">")
    if grade.correct:
        written = re.sub(r"\s+|\.", "", text.rpartition("answer:")[2])
        assert written in {re.sub(r"\s+", "", ",".join(answer)) for answer in solutions((3, 7, 8), 29)}


def random_chain(numbers, rng):
    """A chain of true steps over all numbers, in any order of operands; None where it leaves the whole numbers."""
    pool, steps = list(numbers), []
    while len(pool) > 1:
        a = pool.pop(rng.randrange(len(pool)))
        b = pool.pop(rng.randrange(len(pool)))
        sign = rng.choice("+-*/")
        value = Fraction(a, b) if sign == "/" and b else {"+": a + b, "-": a - b, "*": a * b}.get(sign)
        if value is None or value < 0 or value > 999_999 or Fraction(value).denominator > 1:
            return None
        steps.append([a, sign, b, int(value)])
        pool.append(int(value))
    return steps


def mutate(steps, numbers, rng):
    """The chain with one thing changed, sometimes into another right one."""
    steps = [list(step) for step in steps]
    step = rng.choice(steps)
    kind = rng.randrange(7)
    if kind == 0:
        step[0], step[2] = step[2], step[0]
    elif kind == 1:
        step[rng.choice((0, 2, 3))] = rng.choice([*numbers, *(s[3] for s in steps)])
    elif kind == 2:
        step[1] = rng.choice("+-*/")
    elif kind == 3:
        step[3] += rng.choice((-1, 1)) if step[3] else 1
    elif kind == 4:
        rng.shuffle(steps)
    elif kind == 5:
        steps.remove(step)
    else:
        steps.insert(rng.randrange(len(steps) + 1), list(step))
    return steps


def test_grades_agree_with_brute_force():
    rng, counts = random.Random(7), Counter()
    while sum(counts.values()) < 4000:
        numbers = [rng.randint(1, 6) for _ in range(rng.choice((2, 3, 3, 3, 3, 3, 4)))]
        if (chain := random_chain(numbers, rng)) is None:
            continue
        target = chain[-1][3]
        for steps in (chain, mutate(chain, numbers, rng), mutate(chain, numbers, rng)):
            answer = tuple(f"{a} {sign} {b} = {result}" for a, sign, b, result in steps)
            right = answer in solutions(numbers, target)
            shown = rng.sample(numbers, len(numbers))
            grade = TASK.grade(make(write_problem(shown, target)), f"answer: {', '.join(answer)}.")
            assert grade.correct == right, (shown, target, answer)
            counts[steps is chain, right] += 1
    assert counts[True, False] == 0  # every unchanged chain is right
    assert min(counts[True, True], counts[False, True], counts[False, False]) > 300  # and each case was really met


# ---------------------------------------------------------------- problems and splits

SPECS = [
    CountdownSpec(),
    CountdownSpec(num_numbers=4),
    CountdownSpec(num_numbers=2, number_range=(1, 30)),
    CountdownSpec(number_range=(1, 40), target_range=(10, 99)),
]


def test_splits_never_share_a_problem():
    canonical = {split: set() for split in SPLIT_SHARES}
    for split, seen in canonical.items():
        for spec in SPECS:
            for seed in range(3):
                for problem in make_problems(60 if split != "validation" else 15, seed, split, spec):
                    numbers, target = read_problem(problem.problem)
                    seen.add((tuple(sorted(numbers)), target))
                    assert problem.id == problem_id(numbers, target)
    assert min(map(len, canonical.values())) > 100
    for one, other in combinations(canonical.values(), 2):
        assert one.isdisjoint(other)


def test_the_split_of_a_problem_is_a_hash_of_its_canonical_name():
    assert problem_id([8, 3, 7], 29) == "3-7-8=29"
    bucket = int(hashlib.sha256(b"3-7-8=29").hexdigest()[:16], 16) % 100
    expected = "pretrain" if bucket < 60 else "train" if bucket < 85 else "validation" if bucket < 90 else "test"
    assert {split_of(numbers, 29) for numbers in permutations((3, 7, 8))} == {expected}
    # Fixed for ever: the bundled model has seen the pretrain split.
    assert [split_of([3, 7, 8], target) for target in (29, 30, 31, 32, 33, 34, 35)] == [
        "pretrain", "pretrain", "validation", "test", "train", "train", "pretrain",
    ]  # fmt: skip


def test_splits_have_their_shares():
    counts = Counter(split_of([a, b, c], target) for a, b, c in combinations(range(1, 15), 3) for target in range(10, 40))
    assert SPLIT_SHARES == {"pretrain": 60, "train": 25, "validation": 5, "test": 10}
    for split, share in SPLIT_SHARES.items():
        assert counts[split] / counts.total() == pytest.approx(share / 100, abs=0.019)  # 4 standard errors of 10,920 problems


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_problems_are_what_was_asked_for(spec):
    problems = make_problems(80, 3, "train", spec)
    assert len({problem.id for problem in problems}) == len(problems) == 80
    for problem in problems:
        numbers, target = read_problem(problem.problem)
        assert len(numbers) == spec.num_numbers
        assert all(spec.number_range[0] <= number <= spec.number_range[1] for number in numbers)
        assert spec.target_range[0] <= target <= spec.target_range[1]
        assert problem.answer == str(target)
        assert split_of(numbers, target) == "train"
        assert tuple(problem.solution.split(", ")) in solutions(numbers, target)
        assert status(TASK.gold_completion(problem), problem) is CORRECT
        assert TASK.check_steps(problem, problem.solution) == StepCheck(spec.num_numbers - 1, spec.num_numbers - 1)


def test_problems_depend_on_seed_split_and_specification_only():
    first = make_problems(30, 0, "train")
    assert make_problems(30, 0, "train") == first
    assert make_problems(10, 0, "train") == first[:10]
    assert make_problems(0, 0, "train") == []
    others = [make_problems(30, 1, "train"), make_problems(30, 0, "test"), make_problems(30, 0, "train", SPECS[3])]
    for other in others:
        assert len({p.id for p in first} & {p.id for p in other}) < 15


def test_problems_are_the_same_in_every_process():
    code = (
        "import random; from dasd.tasks.countdown import make_problems; from dasd.tasks.countdown_search import Searcher;"
        "print(make_problems(20, 0, 'train')); print(Searcher().write([3, 7, 8, 11], 29, random.Random(0)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("count", "split", "spec"),
    [
        (1, "dev", CountdownSpec()),
        (1, "", CountdownSpec()),
        (1, "train", CountdownSpec(target_range=(80, 10))),
        (1, "train", CountdownSpec(target_range=(RESULT_LIMIT + 1, 500))),
        (1, "train", CountdownSpec(number_range=(20, 1))),
        (500, "validation", CountdownSpec(number_range=(1, 3))),
        (50, "test", CountdownSpec(num_numbers=2, number_range=(1, 5))),
    ],
)
def test_impossible_requests(count, split, spec):
    with pytest.raises(ValueError, match=r"is not one of pretrain, train, validation, test|found only \d+ of|empty range"):
        make_problems(count, 0, split, spec)


@pytest.mark.parametrize(("count", "num_numbers"), [(1, 1), (1, 0), (1, -1), (-1, 3)])
def test_requests_that_make_no_sense(count, num_numbers):
    with pytest.raises(ValueError, match=r"num_numbers|count"):
        make_problems(count, 0, "train", CountdownSpec(num_numbers=num_numbers))


# ---------------------------------------------------------------- searches


@pytest.mark.parametrize("numbers", [(5, 3), (3, 7, 8), (4, 4, 2), (1, 1, 1), (2, 3, 9, 10), (6, 6, 6, 2)], ids=str)
def test_chains_are_all_there_are(numbers):
    chains = [tuple(f"{a} {sign} {b} = {result}" for a, sign, b, result in chain) for chain in all_chains(numbers)]
    expected = {
        answer for target in range(1, RESULT_LIMIT + 1) for answer in solutions(numbers, target) if in_search_language(answer)
    }
    assert len(chains) == len(set(chains))
    assert set(chains) == expected


SEARCHERS = [
    Searcher(),
    Searcher(insight=0.0, persistence=1.0, attempts=(1, 3)),
    Searcher(insight=0.8, persistence=0.0, attempts=(3, 4)),
    Searcher(insight=0.3, persistence=0.7, attempts=(0, 2)),
]


@pytest.mark.parametrize("searcher", SEARCHERS, ids=str)
def test_searches_are_graded_as_they_end(searcher):
    rng, ends = random.Random(11), Counter()
    for _ in range(150):
        numbers = tuple(rng.randint(1, 12) for _ in range(rng.choice((2, 3, 3, 4))))
        target = rng.randint(5, 60)
        problem = make(write_problem(numbers, target))
        text = searcher.write(numbers, target, rng)
        grade, steps = TASK.grade(problem, text), TASK.check_steps(problem, text)
        tries = text.count("check ")
        ends[grade.status] += 1
        assert steps.right == steps.checked == text.count("=") + text.count("<") + text.count(">")
        assert tries <= searcher.attempts[1]
        if "answer:" in text:
            assert grade.correct
            assert any(in_search_language(answer) for answer in solutions(numbers, target))
            assert f"check {target} = {target}. answer: " in text
        else:
            assert grade.status is NO_ANSWER
            assert text.endswith(GIVE_UP)
    assert set(ends) == {CORRECT, NO_ANSWER}


def test_a_search_without_end_finds_a_solution_wherever_there_is_one():
    rng, ends = random.Random(5), Counter()
    for insight in (0.0, 0.3):
        searcher = Searcher(insight=insight, attempts=(10_000, 10_000))
        for _ in range(60):
            numbers, target = tuple(rng.randint(1, 12) for _ in range(3)), rng.randint(5, 60)
            solvable = any(in_search_language(answer) for answer in solutions(numbers, target))
            found = status(searcher.write(numbers, target, rng), make(write_problem(numbers, target))) is CORRECT
            assert found == solvable
            ends[found] += 1
    assert min(ends[True], ends[False]) > 10


def test_a_search_without_end_tries_every_chain_once():
    for seed in range(5):
        text = Searcher(attempts=(10_000, 10_000)).write([3, 7, 8], 98, random.Random(seed))
        assert text.count("check ") == len(all_chains([3, 7, 8]))


def test_a_search_with_insight_needs_one_attempt():
    for seed in range(30):
        text = Searcher(insight=1.0, attempts=(1, 1)).write([3, 7, 8], 29, random.Random(seed))
        assert re.fullmatch(r"(perhaps|maybe|try) (.*)\. check 29 = 29\. answer: \2\.", text)


def test_a_persistent_search_keeps_the_start_until_it_is_used_up():
    for seed in range(30):
        text = Searcher(insight=0.0, persistence=1.0, attempts=(2, 2)).write([3, 7, 8], 98, random.Random(seed))
        first, second = r"(perhaps|maybe|try) [^.]*, [^.]*\. check [^.]*\.", r"alternatively [^.,]*\. check [^.]*\."
        assert re.fullmatch(f"{first} {second} hmm, no luck\\.", text)


def test_a_search_repeats_itself_for_the_same_seed():
    texts = [Searcher().write([3, 7, 8], 29, random.Random(seed)) for seed in (0, 0, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 2


@pytest.mark.parametrize(
    ("text", "first_wrong"),
    [
        ("3 + 8 = 11, 11 * 7 = 77. check 77 > 29.", None),
        ("3 + 8 = 11, 11 * 7 = 77. check 77 < 29. 3 + 8 = 12", 3),
        ("check 77 < 29. 3 + 8 = 12", 1),  # comparisons and equations in the order of the text
        ("3 + 8 = 11, 11 * 7 = 78, 3 + 8 = 12", 2),
        ("", None),
    ],
)
def test_the_first_wrong_step_is_counted_from_one(text, first_wrong):
    assert TASK.check_steps(PROBLEM, text).first_wrong == first_wrong
