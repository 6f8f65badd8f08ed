"""Does the teacher see what its kind of context says, and never what it must not see? Rows and results by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd.credit import make_method
from dasd.teacher.context import COLUMNS, KINDS, PrivilegedContext, choose_peers, wrong_hints


def chat(text):
    return [{"role": "user", "content": text}]


ROW = {"prompt": chat("How much is 2 + 3?"), "answer": "5", "solution": "two and three make five", "hint": "count on"}
OTHERS = [
    {"prompt": chat("How much is 2 + 3?"), "answer": "5", "solution": "two and three make five", "hint": "count on"},
    {"prompt": chat("How much is 4 + 4?"), "answer": "8", "solution": "twice four is eight", "hint": "double it"},
    {"prompt": chat("How much is 1 + 4?"), "answer": "5", "solution": "one more than four", "hint": "next"},
]


def content(kind, row=ROW, **sources):
    """The teacher's only message."""
    (message,) = PrivilegedContext(kind).prompt(row, **sources)
    assert message["role"] == "user"
    return message["content"]


# ---------------------------------------------------------------- each kind


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("solution", "How much is 2 + 3?\nReference solution: two and three make five"),
        ("answer", "How much is 2 + 3?\nThe answer is: 5"),
        ("hint", "How much is 2 + 3?\nHint: count on"),
        ("peer", "How much is 2 + 3?\nReference solution: 2 + 3 = 5"),
        ("solution_else_peer", "How much is 2 + 3?\nReference solution: two and three make five"),
        ("peer_else_solution", "How much is 2 + 3?\nReference solution: 2 + 3 = 5"),
        ("truncated", "How much is 2 + 3?\nReference solution: two and"),
        ("other_problem", "How much is 2 + 3?\nReference solution: twice four is eight"),
        ("wrong_answer", "How much is 2 + 3?\nThe answer is: 8"),
        ("length_matched", "How much is 2 + 3?\nReference solution: How much is 2 +"),
        ("none", "How much is 2 + 3?"),
    ],
)
def test_each_kind_word_for_word(kind, expected):
    assert content(kind, peers=["2 + 3 = 5", "five"], others=OTHERS[:2]) == expected


def test_every_kind_is_tested_above():
    marks = test_each_kind_word_for_word.pytestmark[0].args[1]
    assert {kind for kind, _ in marks} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_prompt_is_told_like_a_message(kind):
    """Plain text in, plain text out, with the same words."""
    plain = [row | {"prompt": row["prompt"][0]["content"]} for row in OTHERS]
    told = PrivilegedContext(kind).prompt(plain[0], peers=["2 + 3 = 5"], others=plain)
    assert told == content(kind, peers=["2 + 3 = 5"], others=OTHERS)


def test_system_message_and_earlier_turns_stay():
    prompt = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "2 + 3?", "name": "ann"},
    ]  # fmt: skip
    told = PrivilegedContext("answer").prompt(ROW | {"prompt": prompt})
    assert told == [*prompt[:3], {"role": "user", "content": "2 + 3?\nThe answer is: 5", "name": "ann"}]
    assert prompt[3]["content"] == "2 + 3?"  # the student's own is left alone


def test_the_last_user_message_is_told_when_an_assistant_turn_follows():
    prompt = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "It is"}]
    assert PrivilegedContext("answer").prompt(ROW | {"prompt": prompt})[1] == prompt[1]


def test_a_conversation_without_user_is_refused():
    with pytest.raises(ValueError, match="needs a user message"):
        PrivilegedContext().prompt(ROW | {"prompt": [{"role": "system", "content": "x"}]})


# ---------------------------------------------------------------- cells and columns


@pytest.mark.parametrize("empty", [None, "", "  \n"])
@pytest.mark.parametrize("kind", ["solution", "answer", "hint", "truncated", "length_matched"])
def test_an_empty_cell_is_no_context(kind, empty):
    assert PrivilegedContext(kind).prompt(ROW | {COLUMNS.get(kind, kind): empty}, peers=["p"], others=OTHERS) is None


def test_a_number_is_taken_as_text():
    assert content("answer", ROW | {"answer": 0}).endswith("The answer is: 0")


@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_a_missing_column_is_named_with_those_there_are(kind):
    row = {name: value for name, value in ROW.items() if name != COLUMNS[kind]}
    with pytest.raises(KeyError, match=f"needs a column '{COLUMNS[kind]}'; this dataset has prompt"):
        PrivilegedContext(kind).prompt(row, others=OTHERS)


def test_a_peer_needs_no_column():
    assert PrivilegedContext("peer").prompt({"prompt": chat("x")}, peers=["y"]) is not None


def test_peer_else_solution_prefers_the_peer():
    context = PrivilegedContext("peer_else_solution")
    assert context.needs_peers
    assert context.context(ROW, peers=["", "a peer"]) == "a peer"
    assert context.context(ROW, peers=[" "]) == ROW["solution"]
    assert context.context(ROW | {"solution": ""}) is None


@pytest.mark.parametrize(("solution", "peers", "expected"), [(None, ["a"], "a"), (" ", ["\n", "b"], "b"), (None, [" "], None)])
def test_solution_else_peer_without_a_solution(solution, peers, expected):
    assert PrivilegedContext("solution_else_peer").context(ROW | {"solution": solution}, peers=peers) == expected


# ---------------------------------------------------------------- how much of the solution


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.2, "a"), (0.39, "a"), (0.4, "a b"), (0.5, "a b"), (0.99, "a b c d"), (0.01, "a")]
)
def test_truncated_fraction(fraction, expected):
    assert PrivilegedContext("truncated", fraction=fraction).context(ROW | {"solution": "a b c d e"}) == expected


def test_truncated_counts_words_on_lines_of_their_own():
    """A solution in lines gives its first lines, not all of them, and keeps their breaks."""
    context = PrivilegedContext("truncated", fraction=0.5)
    assert context.context(ROW | {"solution": "a\nb\nc\nd"}) == "a\nb"
    assert context.context(ROW | {"solution": "a  b\n\nc d\ne f"}) == "a  b\n\nc"


@given(st.text(alphabet="ab \n", min_size=1), st.text(alphabet="xy ", min_size=1).filter(str.strip))
def test_length_matched_has_as_many_words_all_of_the_problem(solution, problem):
    context = PrivilegedContext("length_matched").context({"prompt": chat(problem), "solution": solution})
    if not solution.strip():
        assert context is None
    else:
        assert len(context.split()) == len(solution.split())
        assert set(context.split()) <= set(problem.split())


# ---------------------------------------------------------------- another problem's


def rows(answers):
    return [{"prompt": chat(f"problem {i}"), "answer": a, "solution": f"because {a}"} for i, a in enumerate(answers)]


@given(st.lists(st.sampled_from(["1", "2", "3", "", None]), min_size=1, max_size=12), st.integers(0, 5), st.data())
def test_another_problems_context_is_never_the_rows_own(answers, choice, data):
    table = rows(answers)
    row = data.draw(st.sampled_from(table))
    for kind, column in (("wrong_answer", "answer"), ("other_problem", "solution")):
        context = PrivilegedContext(kind).context(row, others=table, choice=choice)
        usable = [r[column] for r in table if (r[column] or "").strip() and r[column] != row[column] and r is not row]
        assert context in usable if usable else context is None
        assert context == PrivilegedContext(kind).context(row, others=table, choice=choice)


def test_the_same_problem_twice_does_not_help_itself():
    twice = [
        {"prompt": chat("p"), "answer": "1", "solution": "first way"},
        {"prompt": chat("p"), "answer": "1", "solution": "2nd"},
    ]
    assert PrivilegedContext("other_problem").context(twice[0], others=twice) is None


def test_choices_give_different_hints():
    table = rows(map(str, range(50)))
    context = PrivilegedContext("answer").wrong()
    assert len({context.context(table[0], others=table, choice=choice) for choice in range(10)}) > 5
    assert len({context.context(row, others=table) for row in table}) > 20


@pytest.mark.parametrize(("kind", "wrong"), [("solution", "other_problem"), ("answer", "wrong_answer")])
def test_wrong_hints_are_worded_as_the_right_ones(kind, wrong):
    right = PrivilegedContext(kind, template="{problem}: {context}")
    assert right.wrong() == PrivilegedContext(wrong, template="{problem}: {context}")
    assert PrivilegedContext(kind).wrong().text == PrivilegedContext(kind).text


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"solution", "answer"}))
def test_kinds_without_a_wrong_counterpart_say_which_have_one(kind):
    with pytest.raises(ValueError, match=f"solution or answer, got '{kind}'"):
        PrivilegedContext(kind).wrong()


@pytest.mark.parametrize("kind", ["solution", "peer", "solution_else_peer", "peer_else_solution"])
def test_failed_rollouts_as_wrong_hints_are_worded_as_the_right_one(kind):
    right = PrivilegedContext(kind, template="{problem}: {context}")
    wrong = right.wrong("failed_rollouts")
    told = [wrong.prompt(ROW, peers=["1 + 2 = 4", " ", "2 + 3 = 6"], choice=choice) for choice in range(3)]
    assert [prompt and prompt[-1]["content"].partition(": ")[2] for prompt in told] == ["1 + 2 = 4", "2 + 3 = 6", None]
    assert PrivilegedContext(kind).wrong("failed_rollouts").text == PrivilegedContext(kind).text


@pytest.mark.parametrize("kind", ["answer", "hint", "none", "truncated"])
def test_a_failed_rollout_stands_in_for_no_other_context(kind):
    with pytest.raises(ValueError, match=f"stand in for a solution, context is '{kind}': take context solution, peer, "):
        PrivilegedContext(kind).wrong("failed_rollouts")


def test_wrong_hints_are_made_for_methods_that_contrast_them():
    context = PrivilegedContext("solution")
    assert wrong_hints(context, make_method("dasd")) is None
    assert wrong_hints(context, make_method("rlcsd")).kind == "peer"
    assert wrong_hints(context, make_method("sipo", {"hints_from": "other_problems"})).kind == "other_problem"


# ---------------------------------------------------------------- peers


def test_peers_by_hand():
    texts = ["a", "b", "a", "c", "other group"]
    accepted = [True, True, True, False, True]
    assert choose_peers(texts, accepted, 0, range(4)) == ["b"]  # 2 is a copy of 0, 3 is wrong
    assert choose_peers(texts, accepted, 1, range(4)) == ["a", "a"]
    assert choose_peers(texts, accepted, 3, range(4)) == ["a", "b", "a"]  # a wrong one learns from all, wrapped around
    assert choose_peers(texts, accepted, 4, range(4, 5)) == []


@given(st.integers(1, 6), st.integers(1, 4), st.data())
def test_a_peer_is_accepted_of_the_same_group_and_no_copy(size, groups, data):
    count = size * groups
    texts = data.draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    accepted = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    for index in range(count):
        group = range(index // size * size, (index // size + 1) * size)
        allowed = [texts[i] for i in group if accepted[i] and i != index and texts[i] != texts[index]]
        assert sorted(choose_peers(texts, accepted, index, group)) == sorted(allowed)


# ---------------------------------------------------------------- templates


def test_nothing_is_replaced_twice():
    row = {"prompt": chat("Say {context} and {problem}"), "solution": r"\1 {problem} \g<0> {context} {x} {}"}
    assert content("solution", row) == r"Say {context} and {problem}" "\nReference solution: " + row["solution"]


def test_a_template_keeps_its_other_braces():
    context = PrivilegedContext("solution", template=r"{{x}} {} {0} \boxed{{problem}} {context} {problem}")
    (message,) = context.prompt({"prompt": chat("P"), "solution": "C"})
    assert message["content"] == r"{{x}} {} {0} \boxed{P} C P"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "solutoin"}, "'solutoin' is not one of solution, answer"),
        ({"template": "{problem}"}, "needs {problem} and {context}, got '{problem}'"),
        ({"template": "{context}"}, "needs {problem} and {context}, got '{context}'"),
        ({"template": ""}, "needs {problem} and {context}, got ''"),
        ({"fraction": 0.0}, "between 0 and 1, got 0.0"),
        ({"fraction": 1.0}, "the whole solution is kind 'solution'"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        PrivilegedContext(**settings)
    assert message in str(caught.value)
