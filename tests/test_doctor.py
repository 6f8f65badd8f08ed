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
