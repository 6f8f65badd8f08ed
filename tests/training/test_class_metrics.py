"""Does training log the teacher's pressure by class of token?"""

import pytest

from dasd.analysis.token_classes import CLASSES
from dasd.credit import make_method


def test_shares_of_the_classes_add_up(train):
    log = train(method_settings={"beta": 0.5}).state.log_history[0]
    for share in ("tokens", "credit"):
        assert sum(log.get(f"class/{name}/{share}", 0.0) for name in CLASSES) == pytest.approx(1.0, abs=1e-3)
    mean = sum(log[f"class/{name}/tokens"] * log[f"class/{name}/gap"] for name in CLASSES if f"class/{name}/gap" in log)
    deciles = [log[f"gap/decile_{decile}"] for decile in range(1, 11)]
    assert min(deciles) <= mean <= max(deciles)


def test_without_a_teacher_there_is_nothing_to_class(train):
    log = train(method=make_method("grpo")).state.log_history[0]
    assert not any(name.startswith("class/") for name in log)
