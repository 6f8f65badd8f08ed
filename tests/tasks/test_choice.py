"""Is the letter found that a completion settles on, and none where it settles on none?"""

import pytest

from dasd.tasks import make_task
from dasd.tasks.base import Grade, GradeStatus, Problem
from dasd.tasks.choice import ChoiceTask, read_choice

TASK = ChoiceTask()


def make(answer):
    return Problem(id="x", problem="Which?\n(A) 1 (B) 2 (C) 3", answer=answer)


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"so $\boxed{\text{(B)}}$.", "B"),
        (r"\boxed{\textbf{B}}", "B"),
        (r"\boxed{b}", "B"),
        (r"\boxed{B) 42}", "B"),
        (r"\boxed{\text{Option B}}", "B"),
        (r"\boxed{\text{option (b)}}", "B"),
        (r"\boxed{Option B: 42}", "B"),
        (r"\boxed{\text{The answer is B}}", "B"),
        (r"\boxed{\text{Answer: B}}", "B"),
        (r"\boxed{**B**}", "B"),
        (r"\boxed{\textcolor{red}{B}}", "B"),
        (r"\boxed{B;}", "B"),
        (r"\boxed{Ｂ}", "B"),  # noqa: RUF001
        (r"\boxed{\text{Option B or C}}", "B,C"),
        (r"\boxed{\text{no option}}", None),
        (r"\boxed{B. 42 m/s}", "B"),
        (r"\boxed{\text{B: mitochondria}}", "B"),
        (r"First \boxed{A}. Wait, no: \boxed{C}", "C"),
        (r"The answer is A. Hmm, rather \boxed{D}", "D"),
        ("Answer: (B)", "B"),
        ("Answer: B", "B"),
        ("**Answer: B**", "B"),
        ("**Answer:** B", "B"),
        ("ANSWER: J", "J"),
        ("The answer is (B).", "B"),
        ("The correct answer is **C**.", "C"),
        ("the answer is option D", "D"),
        ("Answer choice is E", "E"),
        ("The answer is A", "A"),
        ("The answer is I.", "I"),
        ("The answer is B because A is too small.", "B"),
        ("The answer is B, since 2 > 1", "B"),
        ("The answer is B, C is wrong.", "B"),
        ("The answer is A. No: the answer is B.", "B"),
        ("Thinking about A and C.\n\nB", "B"),
        ("Thus\n(B)", "B"),
        ("C.", "C"),
        ("**D**", "D"),
        ("The answer is B or C.", "B,C"),
        ("Answer: A, B and D", "A,B,D"),
        (r"\boxed{A, C}", "A,C"),
        (r"\boxed{B} or \boxed{C}", "B,C"),
        ("", None),
        ("I cannot tell.", None),
        ("The answer is a large number.", None),
        ("The answer is A large number.", None),
        ("The answer is I think unclear", None),
        ("The answer is Boron", None),
        ("The answer is C = 5", None),
        ("The answer is 42", None),
        ("Answer: K", None),
        ("A is larger than B, but B comes first, so it is one of them", None),
        (r"\boxed{42}", None),
        (r"\boxed{}", None),
        (r"\boxed{C_2}", None),
        (r"\boxed{E=mc^2}", None),
        (r"\boxed{A number}", None),
        ("The answers B and C are tempting", None),
        ("answer is B'", None),
    ],
)
def test_the_letter_a_completion_settles_on(completion, letter):
    assert read_choice(completion) == letter


def test_grades():
    assert TASK.grade(make("B"), r"\boxed{B}") == Grade(GradeStatus.CORRECT, "B")
    assert TASK.grade(make("(B)"), "Answer: B") == Grade(GradeStatus.CORRECT, "B")
    assert TASK.grade(make("B"), "Answer: C") == Grade(GradeStatus.INCORRECT, "C")
    assert TASK.grade(make("B"), "Answer: B or C") == Grade(GradeStatus.INCORRECT, "B,C")
    assert TASK.grade(make("B"), "no idea") == Grade(GradeStatus.NO_ANSWER)
    assert TASK.grade(make("2"), "Answer: B") == Grade(GradeStatus.GRADER_ERROR)
    pairs = [(make("A"), "Answer: A"), (make("B"), "Answer: A"), (make("B"), "hm")]
    assert TASK.grade_all(pairs) == [TASK.grade(*pair) for pair in pairs]


@pytest.mark.parametrize("letter", "ABCDEFGHIJ")
def test_gold_completions_grade_as_right(letter):
    for answer in (letter, f"({letter})", letter.lower()):
        assert TASK.grade(make(answer), TASK.gold_completion(make(answer))).correct


@pytest.mark.parametrize("answer", ["K", "2", "AB", "", "ten"])
def test_a_gold_answer_that_is_no_letter_is_refused(answer):
    with pytest.raises(ValueError, match="letter from A to J"):
        TASK.gold_completion(make(answer))


def test_equations_are_steps():
    steps = TASK.check_steps(make("B"), "2 + 2 = 4 and 2 * 3 = 5. Answer: B")
    assert (steps.right, steps.checked) == (1, 2)


def test_it_has_a_name():
    assert make_task("choice") == TASK


def test_without_a_box_there_is_no_letter_where_a_box_was_asked_for():
    asking = Problem(id="x", problem="Which? Put the letter in \\boxed{}.\n(A) 1 (B) 2", answer="B")
    assert make_task("choice").grade(asking, "The answer is B.") == Grade(GradeStatus.NO_ANSWER)
    assert make_task("choice", "last").grade(asking, "The answer is B.").correct
    assert make_task("choice", "boxed").grade(make("B"), "The answer is B.") == Grade(GradeStatus.NO_ANSWER)
    assert make_task("choice").grade(asking, "\\boxed{B}").correct
