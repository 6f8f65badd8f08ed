"""Does every command read the same prompt, with the model's template arguments, in the form that its template takes?"""

import ast
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import dasd
from dasd.config import BadInput, ModelConfig, ProbeConfig, RunConfig, SamplerConfig, TeacherConfig
from dasd.models import load_tokenizer
from dasd.prompts import NAMED, prompt_text, set_chat_template, tokenize_prompt, with_system_prompt, without_answer
from dasd.teacher.context import KINDS, PrivilegedContext
from dasd.training.trainer import SelfDistillationTrainer
from training.conftest import make_arguments, tiny

ASKED = [{"role": "user", "content": "Use 3 7 8 to make 29."}]
IN_PARTS = [{"role": "user", "content": [{"type": "text", "text": "Use 3 7 8 "}, {"type": "text", "text": "to make 29."}]}]
PARTS_ONLY = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
    "{{ '\n' }}{% endfor %}{% if shout %}!{% endif %}assistant:"
)
TEXT_ONLY = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}\n{% endfor %}assistant:"
PRINTS = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
BOTH = (
    "{% for message in messages %}{{ message['role'] }}: {% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ '\n' }}{% endfor %}assistant:"
)


@pytest.fixture
def tiny_arguments(tmp_path):
    return lambda: make_arguments(output_dir=str(tmp_path))


@pytest.fixture
def tokenizer():
    """The bundled one, fresh: its template may be changed."""
    return load_tokenizer(ModelConfig())


@pytest.mark.parametrize("template", [PARTS_ONLY, TEXT_ONLY, PRINTS, BOTH], ids=["parts", "text", "prints", "both"])
@pytest.mark.parametrize("asked", [ASKED, IN_PARTS], ids=["text", "in parts"])
def test_content_comes_in_the_form_that_the_template_takes(tokenizer, template, asked):
    tokenizer.chat_template = template
    assert prompt_text(tokenizer, asked) == "user: Use 3 7 8 to make 29.\nassistant:"


def test_what_a_template_cannot_say_is_refused(tokenizer):
    picture = [{"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "text", "text": "What is it?"}]}]
    tokenizer.chat_template = TEXT_ONLY
    with pytest.raises(BadInput, match="reads text only, and a message has a part of type 'image'"):
        prompt_text(tokenizer, picture)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(BadInput, match="refuses a prompt: System role not supported"):
        prompt_text(tokenizer, ASKED)
    tokenizer.chat_template = "assistant:"
    with pytest.raises(BadInput, match="leaves out what a user says"):
        prompt_text(tokenizer, ASKED)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"none"}))
def test_the_teacher_is_told_the_same_in_parts(kind):
    """A message in parts gets the context as the joined text would; the parts stay parts."""
    row = {"solution": "3 * 7 = 21, {problem}", "answer": "29", "hint": "multiply {context}"}
    others = [{"prompt": [{"role": "user", "content": "Use 1 1 to make 2."}], "solution": "1 + 1 = 2", "answer": "2"}]
    context = PrivilegedContext(kind)
    plain, parts = (context.prompt({"prompt": asked, **row}, ["a peer"], others) for asked in (ASKED, IN_PARTS))
    assert [part["type"] for part in parts[0]["content"]] == ["text", "text"]
    assert "".join(part["text"] for part in parts[0]["content"]) == plain[0]["content"]
    assert IN_PARTS[0]["content"][1]["text"] == "to make 29."


@pytest.mark.parametrize("template", ["{context}: {problem}", "{problem} {context} {problem}", "a {problem} b {context}"])
def test_a_wording_of_ones_own_in_parts(template):
    context = PrivilegedContext("answer", template)
    plain, parts = (context.prompt({"prompt": asked, "answer": "29"}) for asked in (ASKED, IN_PARTS))
    assert "".join(part["text"] for part in parts[0]["content"]) == plain[0]["content"]


def test_a_picture_keeps_its_place():
    content = [{"type": "image", "image": "x"}, {"type": "text", "text": "How many?"}]
    told = PrivilegedContext("answer").prompt({"prompt": [{"role": "user", "content": content}], "answer": "3"})
    assert told[0]["content"] == [content[0], {"type": "text", "text": "How many?\nThe answer is: 3"}]


def test_a_system_prompt_takes_the_place_of_the_datas_own():
    own = [{"role": "system", "content": "old"}, *ASKED]
    new = [{"role": "system", "content": "new"}, *ASKED]
    assert with_system_prompt(ASKED, "new") == with_system_prompt(own, "new") == new
    assert with_system_prompt(own, None) == own


def test_an_answer_is_left_out():
    said = {"role": "assistant", "content": "29 it is"}
    assert without_answer([*ASKED, said, *ASKED, said]) == [*ASKED, said, *ASKED]
    assert without_answer(ASKED) is ASKED
    assert without_answer("29?") == "29?"
    with pytest.raises(ValueError, match="needs a user message"):
        without_answer([said])


@pytest.mark.parametrize("column", ["prompt", "messages"])
def test_the_trainer_never_shows_the_answer(column, tokenizer, tiny_arguments):
    said = {"role": "assistant", "content": "the secret"}
    rows = [{column: [{"role": "system", "content": "Count."}, *ASKED, said], "solution": "3 * 7"} for _ in range(8)]
    trainer = SelfDistillationTrainer(
        tiny(tokenizer), lambda completions, **_: [0.0] * len(completions), tiny_arguments(),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip
    prompts = trainer.train_dataset["prompt"]
    assert [message["role"] for message in prompts[0]] == ["system", "user"]
    assert "secret" not in str(prompts)
    assert PrivilegedContext().prompt(trainer.train_dataset[0])[-1]["content"].endswith("Reference solution: 3 * 7")


# ---------------------------------------------------------------- templates by name


def test_named_templates(tokenizer):
    turns = [{"role": "system", "content": "Be brief."}, *ASKED]
    for name, text in {
        "plain": "Be brief.\n\nUse 3 7 8 to make 29.\n\n",
        "turns": "Be brief.\n\nUser: Use 3 7 8 to make 29.\n\nAssistant:",
    }.items():
        set_chat_template(tokenizer, name)
        assert prompt_text(tokenizer, turns) == text
    set_chat_template(tokenizer, "chatml")
    assert prompt_text(tokenizer, ASKED) == "<|im_start|>user\nUse 3 7 8 to make 29.<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.eos_token == "<|im_end|>"
    assert set(NAMED) == {"chatml", "plain", "turns"}


def test_chatml_needs_its_tokens():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "<u>": 1}, unk_token="<u>")), unk_token="<u>")
    with pytest.raises(BadInput, match=r"needs <\|im_start\|> in the vocabulary"):
        set_chat_template(words, "chatml")
    set_chat_template(words, "plain")
    assert prompt_text(words, [{"role": "user", "content": "a"}]) == "a\n\n"


def test_a_template_begins_as_the_tokenizer_does(tokenizer):
    """A model that was trained on texts with a first token gets it once."""
    tokenizer.bos_token = tokenizer.eos_token
    set_chat_template(tokenizer, "plain")
    assert prompt_text(tokenizer, ASKED) == "Use 3 7 8 to make 29.\n\n"
    begin = tokenizer.bos_token_id
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, begin)]
    )
    set_chat_template(tokenizer, "plain")
    assert tokenize_prompt(tokenizer, ASKED)[:1] == [begin]
    assert tokenize_prompt(tokenizer, ASKED).count(begin) == tokenize_prompt(tokenizer, "Use 3").count(begin) == 1


def test_a_template_from_a_file_or_a_slip(tokenizer, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("<{{ messages[0]['content'] }}>")
    config = ModelConfig(chat_template=str(path))
    assert prompt_text(load_tokenizer(config), ASKED) == "<Use 3 7 8 to make 29.>"
    with pytest.raises(BadInput, match=r"no name, did you mean 'chatml'\? Names: chatml, plain, turns"):
        set_chat_template(tokenizer, "chat_ml")
    path.write_text("{% for %}")
    with pytest.raises(BadInput, match="chat template refuses"):
        load_tokenizer(config)


# ---------------------------------------------------------------- one function for all


def test_no_other_file_renders_a_prompt():
    root = Path(dasd.__file__).parent
    for path in root.rglob("*.py"):
        if path.name in ("prompts.py", "pretraining.py"):  # which makes the bundled models, before there is a package
            continue
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "apply_chat_template" not in names, path


ARGUMENTS = {"shout": True}


def test_every_command_renders_with_the_models_arguments(tokenizer, monkeypatch, tmp_path):
    """Sampler, probe, token reader and trainer read the same ids of the same problem, teacher's arguments over them."""
    from dasd.analysis.token_credit import TokenReader
    from dasd.analysis.workbench import Workbench
    from dasd.credit import make_method
    from dasd.evaluation.samplers import SamplingParams, make_sampler
    from dasd.evaluation.samplers.base import Request
    from dasd.training.run import build_trainer, prepare

    path = tmp_path / "template.jinja"
    path.write_text(
        "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if shout %} !{% endif %}{% if calm %} .{% endif %}"
    )
    model = ModelConfig(chat_template=str(path), chat_template_kwargs=ARGUMENTS)
    teacher = TeacherConfig(chat_template_kwargs={"shout": False, "calm": True})
    config = RunConfig(
        model=model, teacher=teacher, output=str(tmp_path / "run"), data={"limit": 4},
        training={"steps": 1, "rollouts_per_step": 4, "group_size": 2, "micro_batch_size": 4, "max_completion_length": 8},
    )  # fmt: skip
    loaded, words, problems, task = prepare(config)
    problem = problems[0]
    want = words(problem.problem + " !", add_special_tokens=False)["input_ids"]

    sampler = make_sampler(SamplerConfig(), model)
    request = Request("0/0", [{"role": "user", "content": problem.problem}], 0)
    seen = []

    def write(model, prompts, *rest, finished, **settings):
        seen.extend(prompts)
        finished(0, [5])

    monkeypatch.setattr("dasd.evaluation.samplers.transformers.write", write)
    sampler.sample([request], SamplingParams(4))
    assert seen == [want]
    assert sampler.longest_prompt([request.prompt]) == len(want)
    assert Workbench(loaded, words, task, problems, ProbeConfig(model=model)).prompt(problem.id) == want
    reader = TokenReader(
        loaded,
        words,
        make_method("dasd", {}),
        PrivilegedContext(),
        problems,
        1.0,
        None,
        ARGUMENTS,
        teacher.chat_template_kwargs,
    )
    read = []
    monkeypatch.setattr(
        "dasd.analysis.token_credit.hidden_states",
        lambda m, prompt, completion: read.append(prompt) or torch.zeros(len(completion), loaded.config.hidden_size),
    )
    reader.read({"token_ids": [5, 6], "status": "correct"}, problem, 1.0)
    assert read[0] == want
    assert words.decode(read[1]) == words.decode(
        words(problem.problem + f"\nReference solution: {problem.solution} .")["input_ids"]
    )
    trainer = build_trainer(config, loaded, words, problems, task)
    rendered, _, _ = trainer._tokenize_prompts([row["prompt"] for row in trainer.train_dataset])
    assert rendered[0] == want
    assert trainer._teacher_template == {"tools": None, "chat_template": None, "shout": False, "calm": True}
