"""Do the figures of a completion's health say what a reader would count by hand?"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.evaluation.health import (
    BACKTRACKS,
    EPISTEMIC_MARKERS,
    LEAKAGE_PHRASES,
    Loop,
    count_entropies,
    count_phrases,
    count_trigrams,
    find_loop,
)


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


def test_substrings_are_counted_inside_words_and_each_phrase_by_itself():
    text = "Await, unchecked CHECKS: it seems unlikely"
    assert count_phrases(text, EPISTEMIC_MARKERS) == 1
    assert count_phrases(text, EPISTEMIC_MARKERS, "substrings") == 5
    assert count_phrases("let me try again", BACKTRACKS, "substrings") == 2
    assert count_phrases("text", (), "substrings") == 0


def test_every_lexicon_is_lower_case_without_doubles():
    for lexicon in (EPISTEMIC_MARKERS, BACKTRACKS, LEAKAGE_PHRASES):
        assert list(lexicon) == [phrase.lower().strip() for phrase in dict.fromkeys(lexicon)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("According to the reference solution, x is 4.", 1),
        ("The provided solution uses induction; the answer key agrees.", 2),
        ("The solution of the equation is 4, see reference [1].", 0),
        ("We check the solution: it holds.", 0),
    ],
)
def test_leakage(text, count):
    assert count_phrases(text, LEAKAGE_PHRASES) == count


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([], None),
        (list(range(100)), None),
        ([1, 2, 3] * 10, Loop(3, 10)),
        ([*range(50), *[7] * 30], Loop(1, 30)),
        ([9, 9, *[1, 2, 3, 4, 5] * 5], Loop(5, 5)),
        ([*[1, 2, 3, 4, 5] * 5, 1, 2], Loop(5, 5)),  # cut off within the block
        ([1, 2, 3, 4, 5] * 3, None),  # three times only
        ([5, 6, 0, 0, 0, 0, 0], None),  # too short: 5600000
        ([*[1, 2] * 20, 3], None),  # it got out of the loop
        (("wait, let me think again . " * 6).split(), Loop(6, 6)),
    ],
)
def test_loops(tokens, loop):
    assert find_loop(tokens) == loop


def test_a_loop_needs_two_rounds():
    assert find_loop([1, 2] * 2, min_repeats=2, min_span=4) == Loop(2, 2)
    with pytest.raises(ValueError, match="min_repeats 1"):
        find_loop([1], min_repeats=1)


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(4, 8))
@settings(deadline=None, max_examples=100)
def test_a_repeated_suffix_is_always_found(start, block, times):
    loop = find_loop(start + block * times, min_span=1)
    assert loop is not None
    assert loop.period <= len(block)
    ending = (start + block * times)[-loop.period * loop.repeats :]
    assert ending == ending[: loop.period] * loop.repeats


def test_trigrams_by_hand():
    assert count_trigrams(["3 + 4 = 7", "3 + 4 = 8"]) == (4, 6)  # `3 + 4` and `+ 4 =` come twice
    assert count_trigrams(["a b", "c"]) == (0, 0)  # none reaches from one sample into the next
    assert count_trigrams(["Wait, no. wait, no."]) == (4, 6)
    assert count_trigrams([]) == (0, 0)


def test_entropies_counted_by_hand():
    counts = count_entropies([0.0, 0.1, 0.2, 0.672, 0.6721, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert counts.total == pytest.approx(15.9721 + 0.672)
    assert counts.tokens == 10
    assert counts.top_fifth == 4.5
    assert counts.forks == 6
    assert counts.tenth_sums.tolist() == [0.0, 0.1, 0.2, 0.672, 0.6721, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert count_entropies(range(20)).top_fifth == 17.5
    assert count_entropies([0.1, 0.5, 0.50001, 2.0], fork_nats=0.5).forks == 2


def test_a_short_completion_leaves_tenths_empty():
    counts = count_entropies([1.0, 3.0])
    assert counts.tenth_tokens.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert counts.tenth_sums.tolist() == [1, 0, 0, 0, 0, 3, 0, 0, 0, 0]
    empty = count_entropies([])
    assert (empty.total, empty.tokens, empty.forks) == (0.0, 0, 0)
    assert math.isnan(empty.top_fifth)
