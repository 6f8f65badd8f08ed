"""Is the data of the token map what the file says, small, and inert?"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dasd.report import build_token_map
from dasd.report.data.rollouts import MAX_BYTES, MAX_TOKENS, script_data, token_map

HOSTILE = "</script><script>alert(1)</script><!--<b>&amp;\u2028\u2029\x00\u202e\ud800"


def document(*lengths: int, text: str = " a") -> dict[str, Any]:
    """One rollout for each length, right and wrong in turn: tokens 0 and 1 by turns, entropy the token's place."""
    rollouts = []
    for index, length in enumerate(lengths):
        tokens = [i % 2 for i in range(length)]
        rollouts.append({
            "problem_id": f"p{index // 2}", "problem": text, "reference": text, "advantage": 0.5,
            "status": "incorrect" if index % 2 else "correct", "tokens": tokens,
            "omega": [0.5 if token else -0.25 for token in tokens], "entropy": [i / 1000 for i in range(length)],
            "gap": [-0.1] * length, "credit": [0.1] * length,
            "student": {"tokens": [0, 1] * length, "probabilities": [0.75, 0.25] * length},
            "teacher": {"tokens": [1, 0] * length, "probabilities": [0.875, 0.125] * length},
        })  # fmt: skip
    return {"method": "dasd", "note": text, "texts": [text, " b\n"], "rollouts": rollouts}


def test_numbers_are_whole_units_and_what_is_none_is_null() -> None:
    data = document(3)
    data["rollouts"][0] |= {"omega": [-0.4, None, "x"], "entropy": [1.23456, math.nan, math.inf], "gap": [0.1, 0.2]}
    found = token_map(data)
    assert found is not None
    (rollout,) = found["rollouts"]
    assert rollout["omega"] == [-4000, None, None]
    assert rollout["entropy"] == [12346, None, None]
    assert rollout["gap"] is None  # not one number a token
    assert rollout["teacher"] == {"tokens": [1, 0] * 3, "probabilities": [8750, 1250] * 3}
    assert (rollout["right"], rollout["status"], rollout["advantage"]) == (True, "correct", "+0.50")
    assert found["scales"]["omega"] == 4000


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"texts": [], "rollouts": [{"tokens": [0]}]},
        {"texts": ["a"], "rollouts": [None, {"tokens": [True]}, {"tokens": [-1]}, {"tokens": []}]},
        {"texts": ["a"], "rollouts": 3},
    ],
)
def test_what_is_no_rollout_is_left_out(broken: dict[str, Any]) -> None:
    assert token_map(broken) is None


def test_a_method_without_direction_has_no_omega() -> None:
    data = document(2)
    data["rollouts"][0]["omega"] = [0.0, 0.0]
    found = token_map(data)
    assert found is not None
    assert found["rollouts"][0]["omega"] is None


def test_json_cannot_leave_its_script_tag_and_says_the_same() -> None:
    written = str(script_data({"a": HOSTILE[:-2]}))
    assert not re.search("[<>&\u2028\u2029]", written)
    assert json.loads(written) == {"a": HOSTILE[:-2]}


def test_texts_that_act_are_spelled_out() -> None:
    found = token_map(document(2, text=HOSTILE))
    assert found is not None
    assert found["texts"][0].endswith("&amp;\\u2028\\u2029\\u0000\\u202e\\ud800")


def test_long_rollouts_are_cut_and_too_many_left_out(tmp_path: Path) -> None:
    found = token_map(document(MAX_TOKENS + 7))
    assert found is not None
    (rollout,) = found["rollouts"]
    assert (rollout["length"], len(rollout["tokens"]), len(rollout["gap"])) == (MAX_TOKENS + 7, MAX_TOKENS, MAX_TOKENS)
    assert len(rollout["student"]["tokens"]) == 2 * MAX_TOKENS

    many = document(*[20_000] * 10)
    (tmp_path / "rollouts.json").write_text(json.dumps(many))
    page = build_token_map(tmp_path)
    assert page.stat().st_size + 600_000 > MAX_BYTES
    assert page.stat().st_size < 5_000_000
    assert re.search(r"[1-9] more rollouts would make this page too large", page.read_text())


def test_the_page_stands_alone_and_runs_its_own_script_only(tmp_path: Path) -> None:
    (tmp_path / "rollouts.json").write_text(json.dumps(document(4, text=HOSTILE)))
    source = build_token_map(tmp_path).read_text()
    assert "://" not in source
    assert re.findall(r"<script[^>]*>", source) == ['<script type="application/json" id="token-map-data">', "<script>"]
    assert re.search(r"default-src 'none';.* script-src 'sha256-[A-Za-z0-9+/=]+'", source.replace("&#39;", "'"))
    assert "Direction-Adaptive Self-Distillation" in source
