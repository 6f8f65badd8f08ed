"""Are words of doubt and backtracks counted as whole words, in any case, and nothing else?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.evaluation.health import BACKTRACKS, EPISTEMIC_MARKERS, count_phrases


def doubts(text):
    return count_phrases(text, EPISTEMIC_MARKERS)


def backtracks(text):
    return count_phrases(text, BACKTRACKS)


def test_the_markers_are_the_published_ones():
    assert sorted(EPISTEMIC_MARKERS) == [
        "actually", "alternatively", "check", "hmm", "likely", "maybe", "might", "perhaps", "seems", "wait",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("3 + 8 = 11", 0),
        ("wait, maybe 3 + 8 = 11. check 11 < 29.", 3),
        ("Wait! MAYBE? (perhaps) 'likely'", 4),
        ("hmm,hmm.hmm\nhmm", 4),
        ("It seems it might, actually; alternatively not", 4),
        ("wait-and-see", 1),
        ("await waiting waits waiter", 0),
        ("checked checks checking paycheck recheck", 0),
        ("unlikely seemed mighty factually hmmm maybes", 0),
        ("wait2 _wait wait_ 2wait", 0),
        ("attendez, peut-être", 0),
        ("éwait waité wait", 1),
    ],
)
def test_doubts_counted_by_hand(text, count):
    assert doubts(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("let me try", 1),
        ("Let me try again.", 1),  # two phrases that share a word are one backtrack
        ("let me try. Now try again, then GO BACK.", 3),
        ("hmm, wait: alternatively 3 + 8 = 11", 3),
        ("maybe perhaps check", 0),
        ("try, again", 0),
        ("outlet me try", 0),
        ("let me trying", 0),
        ("let us try; I go backwards", 0),
    ],
)
def test_backtracks_counted_by_hand(text, count):
    assert backtracks(text) == count


def test_phrases_are_taken_literally_and_the_longest_first():
    assert count_phrases("axb a.b", ("a.b",)) == 1
    assert count_phrases("let me try again", ("let me", "try again", "let me try")) == 1


def test_an_empty_lexicon_counts_nothing():
    assert count_phrases("wait, maybe", ()) == 0


@given(st.lists(st.sampled_from([*EPISTEMIC_MARKERS, "await", "checked", "29", "unlikely", "Seemsly"]), max_size=30))
@settings(deadline=None, max_examples=100)
def test_every_whole_marker_counts_once_whatever_its_case(words):
    expected = sum(word in EPISTEMIC_MARKERS for word in words)
    assert doubts(" ".join(words)) == doubts(", ".join(words).upper()) == doubts("\n".join(map(str.title, words))) == expected
