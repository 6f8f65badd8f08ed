"""Does the probe intervene where it says, and with the token it says?"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dasd.analysis.positions import choose_positions, interventions


def test_each_uncertain_token_is_matched_with_the_nearest_sure_one():
    entropies = [0.1, 0.2, 3.0, 0.3, 0.4, 0.5, 0.6, 0.7, 4.0, 0.8]  # the top fifth: tokens 2 and 8
    chosen = choose_positions(entropies, count=4, rho=0.8, seed=0)
    pairs = {chosen[i].index: chosen[i + 1].index for i in (0, 2)}
    assert pairs == {2: 1, 8: 7}  # of two neighbours the earlier one
    assert [position.uncertain for position in chosen] == [True, False, True, False]
    assert {position.index: position.rank for position in chosen} == {2: 0.8, 1: 0.1, 8: 0.9, 7: 0.6}
    assert all(position.entropy == entropies[position.index] for position in chosen)


def test_equal_entropies_still_have_the_share_one_minus_rho_of_uncertain_tokens():
    chosen = choose_positions([1.0] * 10, count=10, rho=0.8, seed=0)
    assert sorted(position.index for position in chosen if position.uncertain) == [8, 9]


@given(st.lists(st.floats(0, 5), min_size=0, max_size=60), st.integers(2, 12), st.floats(0.05, 0.95), st.integers(0, 5))
def test_positions_are_distinct_halved_and_repeatable(entropies, count, rho, seed):
    chosen = choose_positions(entropies, count, rho, seed)
    assert len({position.index for position in chosen}) == len(chosen) <= count
    assert sum(position.uncertain for position in chosen) * 2 == len(chosen)
    if chosen:
        assert min(p.entropy for p in chosen if p.uncertain) >= max(p.entropy for p in chosen if not p.uncertain)
    assert chosen == choose_positions(entropies, count, rho, seed)


def test_another_seed_chooses_other_tokens():
    entropies = [i % 7 + i / 1000 for i in range(100)]
    assert choose_positions(entropies, 6, 0.8, 0) != choose_positions(entropies, 6, 0.8, 1)


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
    assert forced == {"conform": conform, "deviate": deviate, "resample": None}
