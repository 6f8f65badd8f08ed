"""Is a revision found where a reader would say that the response turned back, and nowhere else?"""

import time

import pytest

from dasd.evaluation.revisions import MAX_CHARS, find_revisions

REVISED = {
    "another branch": "perhaps 3 + 8 = 11, 11 * 7 = 77. alternatively 11 + 7 = 18.",
    "another start": "3 + 8 = 11, 11 * 7 = 77. wait, maybe 3 * 7 = 21, 21 + 8 = 29.",
    "the same start, then another step": "3 + 8 = 11, 11 * 7 = 77. Wait, 3 + 8 = 11, 11 - 7 = 4.",
    "a corrected result": "3 * 7 = 22. Hmm, 3 * 7 = 21.",
    "another value of a variable": "so x = 7. Actually, x = 5 works.",
    "LaTeX": r"\(3 \times 7 = 21\), no. Wait: \(\frac{1}{2} + 8 = 8.5\)",
    "another answer": r"so \boxed{42}. Wait, the sign is wrong: \boxed{-42}",
    "an answer in words": "The answer is 12. On second thought, the answer is 13.",
    "two markers in a row": "3 * 7 = 21. wait, hmm, 8 + 7 = 15.",
}
NOT_REVISED = {
    "no marker": "3 + 8 = 11, 11 * 7 = 77. maybe 3 * 7 = 21, 21 + 8 = 29.",
    "it goes on": "3 * 7 = 21. wait, 21 + 8 = 29.",
    "it says the same again": "3 * 7 = 21. Wait, check: 3 * 7 = 21.",
    "it repeats and goes on": "3 * 7 = 21. wait, 3 * 7 = 21, 21 + 8 = 29.",
    "nothing stood before": "Hmm, 3 * 7 = 21.",
    "nothing follows": "3 * 7 = 21. wait, what about the eight?",
    "the same answer": r"\boxed{42}. Wait, let me check. Yes, \boxed{42}.",
    "the next marker ends the stretch": "3 * 7 = 21. wait, let me see. actually it is fine",
    "inside a word": "3 * 7 = 21 awaits 8 + 7 = 15",
    "empty": "",
}


@pytest.mark.parametrize("name", REVISED)
def test_a_turn_is_found(name):
    assert len(find_revisions(REVISED[name])) == 1


@pytest.mark.parametrize("name", NOT_REVISED)
def test_no_turn_is_found(name):
    assert find_revisions(NOT_REVISED[name]) == []


def test_what_changed_is_told():
    text = "3 + 8 = 11, 11 * 7 = 77. Wait, 3 * 7 = 21, 21 - 8 = 13. let me try 7 - 3 = 4."
    first, second = find_revisions(text)
    assert (first.marker, first.before, first.after) == ("Wait", "11*7 = 77", "3*7 = 21")
    assert (second.marker, second.before, second.after) == ("let me try", "21-8 = 13", "7-3 = 4")
    assert text[first.start :].startswith("Wait")
    assert text[second.start :].startswith("let me try")


def test_places_are_those_of_the_whole_text():
    text = "x" * MAX_CHARS + "3 * 7 = 22. wait, 3 * 7 = 21"
    [found] = find_revisions(text)
    assert text[found.start :].startswith("wait")


def test_a_bundled_search_revises_at_each_new_try():
    text = (
        "perhaps 3 + 8 = 11, 11 * 7 = 77. check 77 > 29. alternatively 11 + 7 = 18. check 18 < 29.\n"
        "wait, maybe 3 * 7 = 21, 21 + 8 = 29. check 29 = 29. answer: 3 * 7 = 21, 21 + 8 = 29."
    )
    assert [found.marker for found in find_revisions(text)] == ["alternatively", "wait"]


def test_hostile_texts_are_read_quickly():
    started = time.perf_counter()
    for piece in ("1 + ", "wait ", "((((", "answer is ", "\\boxed{", "1 = ", "\\frac{", "9" * 50, "wait, 1 + 1 = 2. "):
        find_revisions(piece * (20_000 // len(piece)))
    assert time.perf_counter() - started < 8
