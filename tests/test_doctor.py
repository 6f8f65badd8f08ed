"""Does doctor show what student and teacher read, to the letter, as training renders it?"""

import json

import pytest

from dasd.cli import run
from dasd.config import RunConfig, load_config
from dasd.training.run import build_trainer, prepare

WORDS = "Use 3 7 8 to make 29.  [/x] countdown:train: " + "word " * 30 + "\n\tend"
CONFIG = """
data: {{task: math, source: {data}, system_prompt: "Think :brain: [b]first[/b]."}}
method: {{name: {method}}}
model: {{chat_template_kwargs: {{enable_thinking: false}}}}
training: {{steps: 1, rollouts_per_step: 4, group_size: 2, micro_batch_size: 4, max_completion_length: 16}}
output: {output}
"""


@pytest.mark.parametrize("method", ["dasd", "grpo"])
def test_prompts_are_shown_as_they_are_read(tmp_path, capsys, method):
    (tmp_path / "data.jsonl").write_text((json.dumps({"problem": WORDS, "answer": "29", "solution": "21 + 8"}) + "\n") * 4)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(data=tmp_path / "data.jsonl", output=tmp_path / "run", method=method))
    assert run(["doctor", str(path)]) == 0
    shown = capsys.readouterr().out
    config = load_config(RunConfig, path)
    model, tokenizer, problems, task = prepare(config)
    trainer = build_trainer(config, model, tokenizer, problems, task)
    prompts, _, _ = trainer._tokenize_prompts([problem.messages for problem in problems])
    student = (
        shown.partition("what the student sees:\n")[2].partition("\n\nwhat the teacher sees:\n")[0].partition("\n\nReady.")[0]
    )
    assert WORDS in student
    assert "Think :brain: [b]first[/b]." in student
    assert tokenizer(student, add_special_tokens=False)["input_ids"] == prompts[0]
    assert (f"{WORDS}\nReference solution: 21 + 8" in shown) == (method == "dasd")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_reward_that_tells_nothing_apart_is_no_ok(tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text((json.dumps({"problem": "2 + 2", "answer": "4", "solution": "4"}) + "\n") * 4)
    (tmp_path / "r.py").write_text(
        "def none(completions, **columns):\n    return [None for _ in completions]\n"
        "def same(completions, **columns):\n    return [0.5 for _ in completions]\n"
        "def good(completions, **columns):\n    return [float('4' in c[0]['content']) for c in completions]\n"
    )
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(data=tmp_path / "data.jsonl", output=tmp_path / "run", method="grpo"))
    rewards = ",".join(f"{tmp_path}/r.py:{name}" for name in ("none", "same", "good"))
    weights = "--training.reward_weights=1,1,1"
    assert run(["doctor", str(path), "--training.rewards", rewards, weights]) == 0
    shown = {line.split(": ")[0].rpartition(":")[2]: line for line in capsys.readouterr().out.splitlines() if "r.py:" in line}
    assert shown["none"].startswith("note")
    assert "does it ever apply?" in shown["none"]
    assert shown["same"].startswith("note")
    assert "0.5 on junk: it does not tell them apart" in shown["same"]
    assert shown["good"].strip().startswith("ok")
