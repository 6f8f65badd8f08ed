"""Which of a problem's answers are the same answer? Maj@k counts answers, not the texts that say them.

Right answers are one class: they equal the gold answer. The others are compared by the task itself, each with one member of
every class so far, all problems in the same rounds; at most `MOST_COMPARED` different texts a problem, the most frequent ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from dasd.tasks.base import GradeStatus, ReadsAnswers, Task

MOST_COMPARED = 24  # different texts of one problem: at most 24 * 23 / 2 comparisons

Classes = dict[str, dict[str, str]]  # problem id -> text of an answer -> the text that stands for its class, where another does


def answer_classes(records: Iterable[dict[str, Any]], task: Task) -> Classes:
    """For each problem the texts that say the same as another text. Empty for a task that cannot compare answers."""
    if not isinstance(task, ReadsAnswers):
        return {}
    right: dict[str, Counter[str]] = defaultdict(Counter)
    others: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        if record["extracted"] is not None:
            side = right if record["status"] == GradeStatus.CORRECT else others
            side[record["problem_id"]][record["extracted"]] += 1
    classes: Classes = defaultdict(dict)
    for problem, texts in right.items():
        first, *rest = (text for text, _ in texts.most_common())
        classes[problem] |= dict.fromkeys(rest, first)
    left = {
        problem: [text for text, _ in texts.most_common(MOST_COMPARED) if text not in right[problem]]
        for problem, texts in others.items()
    }
    while left := {problem: texts for problem, texts in left.items() if len(texts) > 1}:
        pairs = [(problem, texts[0], text) for problem, texts in left.items() for text in texts[1:]]
        same = task.same_answers([(first, text) for _, first, text in pairs])
        for (problem, first, text), equal in zip(pairs, same, strict=True):
            if equal:
                classes[problem][text] = first
        # What took too long once would do so with every class: it stays alone.
        gone = {(problem, text) for (problem, _, text), equal in zip(pairs, same, strict=True) if equal or equal is None}
        left = {problem: [text for text in texts[1:] if (problem, text) not in gone] for problem, texts in left.items()}
    return {problem: merged for problem, merged in classes.items() if merged}
