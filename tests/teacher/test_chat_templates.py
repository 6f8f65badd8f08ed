"""Does the teacher's prompt differ from the student's by the context alone, in the chat templates that people train with?"""

import os
from pathlib import Path

import pytest
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dasd.config import ModelConfig
from dasd.models import load_tokenizer
from dasd.prompts import tokenize_prompt
from dasd.teacher.context import KINDS, PrivilegedContext
from dasd.training.trainer import SelfDistillationTrainer
from training.conftest import tiny

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
    "<think>", "</think>", "<pad>",
]  # fmt: skip
# template file, its arguments, end of turn, beginning of text
CASES = {
    "qwen3 thinking": ("qwen3", {"enable_thinking": True}, "<|im_end|>", None),
    "qwen3 not thinking": ("qwen3", {"enable_thinking": False}, "<|im_end|>", None),
    "llama3": ("llama3", {}, "<|eot_id|>", "<|begin_of_text|>"),
    "llama3_1": ("llama3_1", {}, "<|eot_id|>", "<|begin_of_text|>"),
    "gemma": ("gemma", {}, "<end_of_turn>", "<bos>"),
    "gemma3": ("gemma3", {}, "<end_of_turn>", "<bos>"),
    "phi3": ("phi3", {}, "<|end|>", "<bos>"),
}
ROW = {
    "prompt": [{"role": "user", "content": "What is 2 + 3? <b>Use</b> {digits}."}],
    "solution": "two and three\nare  five", "answer": "5", "hint": "count on",
}  # fmt: skip
OTHER = {"prompt": [{"role": "user", "content": "4 + 4?"}], "solution": "twice four is eight", "answer": "8", "hint": ""}


@pytest.fixture(scope="module")
def byte_level():
    """A small byte-level BPE tokenizer with the special tokens of all the templates, and no template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = [path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))[:8]]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def load(byte_level, case):
    name, arguments, end, begin = CASES[case]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level, eos_token=end, bos_token=begin, pad_token="<pad>", additional_special_tokens=SPECIAL
    )
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    return tokenizer, arguments


@pytest.fixture(params=CASES)
def chat(request, byte_level):
    """(tokenizer with a chat template, its arguments)."""
    return load(byte_level, request.param)


def ending(tokenizer, arguments):
    """What the template puts after the user's words: the end of that turn and the assistant's to go on from."""
    text = tokenizer.apply_chat_template(ROW["prompt"], add_generation_prompt=True, tokenize=False, **arguments)
    return text.split(ROW["prompt"][0]["content"])[1]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"none"}))
def test_the_prompts_differ_by_the_context_alone(chat, kind):
    """Take the added words out of the teacher's text and the student's is left, token by token the same before and after."""
    tokenizer, arguments = chat
    differ_by_the_context_alone(tokenizer, arguments, kind)


@pytest.mark.parametrize("folder", filter(None, os.environ.get("DASD_REAL_TOKENIZERS", "").split(os.pathsep)))
def test_the_prompts_of_real_tokenizers_differ_by_the_context_alone(folder):
    """DASD_REAL_TOKENIZERS=FOLDER:FOLDER; with its own template, `turns`, and each of those above whose tokens it knows."""
    own = AutoTokenizer.from_pretrained(folder).chat_template is not None
    known = {name: case for name, case in CASES.items() if case[2] in AutoTokenizer.from_pretrained(folder).get_vocab()}
    assert known
    for case in ("turns", *(["its own"] if own else []), *known):
        tokenizer = load_tokenizer(ModelConfig(path=folder, chat_template="turns" if case == "turns" or not own else None))
        if case in known:
            tokenizer.chat_template = (TEMPLATES / f"{CASES[case][0]}.jinja").read_text()
        for kind in sorted(set(KINDS) - {"none"}):
            arguments = known[case][1] if case in known else {}
            differ_by_the_context_alone(tokenizer, arguments, kind, apart=case != "turns")


def differ_by_the_context_alone(tokenizer, arguments, kind, apart=True):
    """`apart`: a token of its own ends a turn, and nothing of the user's words is merged with what follows."""
    context = PrivilegedContext(kind)
    told = context.prompt(ROW, peers=["a peer's way"], others=[OTHER])
    student, teacher = (tokenize_prompt(tokenizer, prompt, **arguments) for prompt in (ROW["prompt"], told))
    added = told[-1]["content"].removeprefix(ROW["prompt"][0]["content"])
    assert added.endswith(context.context(ROW, peers=["a peer's way"], others=[OTHER]))
    assert tokenizer.decode(teacher).count(added) == 1
    assert tokenizer.decode(teacher).replace(added, "") == tokenizer.decode(student)
    after = ending(tokenizer, arguments)
    assert "assistant" in after.lower() or "model" in after
    tail = tokenizer(after, add_special_tokens=False)["input_ids"]
    assert not apart or student[-len(tail) :] == teacher[-len(tail) :] == tail
    assert teacher.count(tokenizer.bos_token_id) == student.count(tokenizer.bos_token_id) <= 1


@pytest.mark.parametrize("case", ["qwen3 thinking", "llama3", "llama3_1", "gemma3"])
def test_system_message_and_turns_are_kept(byte_level, case):
    tokenizer, arguments = load(byte_level, case)
    turns = [
        {"role": "system", "content": "Answer in words."}, {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "two"}, {"role": "user", "content": "2 + 3?"},
    ]  # fmt: skip
    student, teacher = (
        tokenizer.decode(tokenize_prompt(tokenizer, prompt, **arguments))
        for prompt in (turns, PrivilegedContext("answer").prompt(ROW | {"prompt": turns}))
    )
    assert [student.index(turn["content"]) for turn in turns] == sorted(student.index(turn["content"]) for turn in turns)
    assert teacher.replace("\nThe answer is: 5", "") == student
    assert teacher.index("two") < teacher.index("The answer is: 5")


def test_thinking_on_and_off_are_different_prefixes(byte_level):
    tokenizer, _ = load(byte_level, "qwen3 thinking")
    on, off = (ending(tokenizer, {"enable_thinking": enabled}) for enabled in (True, False))
    assert off == on + "<think>\n\n</think>\n\n"


def test_a_text_prompt_takes_no_template(byte_level):
    tokenizer, _ = load(byte_level, "qwen3 thinking")
    assert tokenizer.decode(tokenize_prompt(tokenizer, "2 + 3?", enable_thinking=False)) == "2 + 3?"


# ---------------------------------------------------------------- through the trainer


class Scored(SelfDistillationTrainer):
    """Keeps what the teacher was scored on."""

    def __init__(self, *args, **kwargs):
        self.scored = []
        super().__init__(*args, **kwargs)

    def score(self, prompt_ids, prompt_mask, batch, *args):
        scores = super().score(prompt_ids, prompt_mask, batch, *args)
        prompts = [row[mask.bool()].tolist() for row, mask in zip(prompt_ids, prompt_mask, strict=True)]
        students = [row[mask.bool()].tolist() for row, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
        self.scored.append((students, prompts, batch["completion_ids"], batch["completion_mask"], scores.logps))
        return scores


def train_on(tokenizer, arguments, **changes):
    model = tiny(tokenizer, max_position_embeddings=512)
    with torch.no_grad():  # so that the random model writes special tokens, too
        for token in ("<think>", "<|im_start|>", "<start_of_turn>", "<|user|>"):
            model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(token)] *= 3.0
    rows = [
        ROW | {"prompt": [{"role": "user", "content": f"What is {i} + 3?"}], "solution": f"it is {i + 3}"} for i in range(8)
    ]
    trainer = Scored(
        model, lambda completion_ids, **_: [float(sum(ids) % 5) for ids in completion_ids], arguments(**changes),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    return trainer, weights


@pytest.mark.parametrize("case", ["qwen3 thinking", "llama3", "gemma", "phi3"])
def test_the_ids_scored_are_the_students_own_special_tokens_too(byte_level, arguments, case):
    """Every completion token, at its position, as plain transformers score it after the teacher's prompt."""
    tokenizer, template = load(byte_level, case)
    trainer, weights = train_on(tokenizer, arguments, chat_template_kwargs=template, max_steps=1, max_completion_length=24)
    ((students, prompts, ids, mask, logps),) = trainer.scored
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids)) & mask.bool()
    assert special.sum() > special.size(0)  # more than the end tokens
    model = tiny(tokenizer, max_position_embeddings=512).eval()
    model.load_state_dict(weights)
    for i, prompt in enumerate(prompts):
        length = int(mask[i].sum())
        completion = ids[i, :length]
        with torch.no_grad():
            logits = model(torch.cat([torch.tensor(prompt), completion])[None]).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1).gather(-1, completion[:, None])[:, 0]
        torch.testing.assert_close(logps[i, :length], wanted, atol=2e-4, rtol=1e-4)
        student, teacher = tokenizer.decode(students[i]), tokenizer.decode(prompt)
        number = student.split("What is ")[1].split(" ")[0]
        assert teacher.replace(f"\nReference solution: it is {int(number) + 3}", "") == student


@pytest.mark.parametrize(
    ("student", "teacher", "thinks"),
    [(False, None, (False, False)), (False, True, (False, True)), (True, False, (True, False)), (None, False, (True, False))],
)
def test_student_and_teacher_may_have_their_own_template_arguments(byte_level, arguments, student, teacher, thinks):
    tokenizer, _ = load(byte_level, "qwen3 thinking")
    given = {
        "chat_template_kwargs": None if student is None else {"enable_thinking": student},
        "teacher_chat_template_kwargs": None if teacher is None else {"enable_thinking": teacher},
    }
    trainer, _ = train_on(tokenizer, arguments, max_steps=1, **given)
    students, prompts, *_ = trainer.scored[0]
    empty = "<think>\n\n</think>\n\n"
    for rendered, think in zip((students, prompts), thinks, strict=True):
        assert all(tokenizer.decode(ids).endswith(empty) != think for ids in rendered)
