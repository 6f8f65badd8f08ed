"""Does the probe intervene where it says, and with the token it says?"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dasd.analysis.positions import begins_marker, choose_positions, interventions, revision_tokens, suppressed
from dasd.analysis.probe import marker_tokens
from dasd.analysis.token_classes import token_texts


def of_kind(chosen, kind):
    return [position.index for position in chosen if kind in position.kinds]


def test_each_high_token_is_matched_with_the_nearest_low_one():
    entropies = [0.1, 0.2, 3.0, 0.3, 0.4, 0.5, 0.6, 0.7, 4.0, 0.8]  # the top fifth: tokens 2 and 8
    chosen = choose_positions(entropies, count=2, rho=0.8, seed=0)
    assert of_kind(chosen, "high") == [2, 8]
    assert of_kind(chosen, "low") == [1, 7]  # of two neighbours the earlier one
    assert len(of_kind(chosen, "random")) == 2
    ranks = {position.index: position.rank for position in chosen}
    assert {index: ranks[index] for index in (1, 2, 7, 8)} == {2: 0.8, 1: 0.1, 8: 0.9, 7: 0.6}
    assert all(position.entropy == entropies[position.index] for position in chosen)


def test_equal_entropies_still_have_the_share_above_rho_of_high_tokens():
    chosen = choose_positions([1.0] * 10, count=10, rho=0.8, seed=0)
    assert of_kind(chosen, "high") == [8, 9]
    assert of_kind(chosen, "random") == list(range(10))


def test_random_places_do_not_look_at_entropy():
    """Each of 5 tokens is chosen about as often, whatever its entropy."""
    counts = [0] * 5
    for seed in range(400):
        for index in of_kind(choose_positions([0.0, 0.0, 9.0, 0.0, 1.0], 1, 0.8, seed), "random"):
            counts[index] += 1
    assert min(counts) > 50


@given(st.lists(st.floats(0, 5), min_size=0, max_size=60), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 5))
def test_positions_are_distinct_and_repeatable(entropies, count, rho, seed):
    chosen = choose_positions(entropies, count, rho, seed)
    assert [position.index for position in chosen] == sorted({position.index for position in chosen})
    high, low = of_kind(chosen, "high"), of_kind(chosen, "low")
    assert len(high) == len(low) <= count
    assert len(of_kind(chosen, "random")) == min(count, len(entropies))
    if high:
        assert min(entropies[index] for index in high) >= max(entropies[index] for index in low)
    assert chosen == choose_positions(entropies, count, rho, seed)


@pytest.mark.parametrize(
    ("student", "teacher", "conform", "deviate"),
    [
        ([0.5, 0.3, 0.2], [0.1, 0.8, 0.1], 1, 0),  # the teacher turns from the student's favourite
        ([0.5, 0.3, 0.2], [0.7, 0.1, 0.2], 0, 1),  # and here it strengthens it
        ([0.2, 0.5, 0.3], [0.3, 0.6, 0.1], 1, 2),
        ([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], 0, 1),  # no opinion of its own: the student's second choice
    ],
)
def test_forced_tokens_by_hand(student, teacher, conform, deviate):
    forced = interventions(torch.tensor(student).log(), torch.tensor(teacher).log())
    assert forced == {"conform": conform, "deviate": deviate}


def test_the_tokens_of_revisions(bundled):
    _, tokenizer = bundled
    text = "perhaps 3 + 8 = 11, 11 * 7 = 77. check 77 > 29. wait, maybe 3 * 7 = 21, 21 + 8 = 29."
    texts = token_texts(tokenizer, tokenizer(text)["input_ids"])
    [place] = revision_tokens(texts)
    assert texts[place].strip(" ,") == "wait"
    assert revision_tokens(["3 + 8 = 11. ", "wa", "it", ", 3 * 7 = 21"]) == [1]
    assert revision_tokens([]) == revision_tokens(["no", " turn"]) == []


@pytest.mark.parametrize(
    ("text", "begins"),
    [(" Wait", True), ("wait,", True), ("Al", True), (" let", True), ("go", True), (" a", False), (" 3", False), ("", False),
     ("maybe", False), (" checks", False), ("waits", False)],
)  # fmt: skip
def test_what_begins_a_marker(text, begins):
    assert begins_marker(text) is begins


def test_suppressing_takes_the_likeliest_token_that_is_neither_marker_nor_the_own():
    student = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()
    markers = torch.tensor([False, True, False])  # logits are padded beyond the vocabulary
    assert suppressed(student, 0, markers) == 2
    assert suppressed(student, 2, markers) == 0
    assert suppressed(student, 0, torch.ones(9, dtype=torch.bool)[:3]) == 3


def test_markers_of_the_bundled_vocabulary(bundled):
    _, tokenizer = bundled
    texts = token_texts(tokenizer, range(len(tokenizer)))
    found = {text.strip(" ,") for text, flag in zip(texts, marker_tokens(tokenizer), strict=True) if flag}
    assert {"wait", "alternatively"} <= found
    assert not found & {"maybe", "perhaps", "check", "answer"}
