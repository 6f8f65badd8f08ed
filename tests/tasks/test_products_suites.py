"""Is each suite one step away from training, and does the bundled base know what its author knows, and no more?"""

import random
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dasd.assets import BASE_MODELS
from dasd.assets.build import build_tokenizer
from dasd.prompts import tokenize_prompt
from dasd.tasks import make_task
from dasd.tasks.products import is_held_out, make_problems, read_problem, split_of
from dasd.tasks.products_author import Author, choices, misremembered
from dasd.tasks.products_suites import SUITES
from dasd.teacher.templates import TEACHER_TEMPLATES

TASK = make_task("products")
PROBLEMS = {name: make() for name, make in SUITES.items()}


@pytest.mark.parametrize("name", SUITES)
def test_every_problem_is_sound_new_and_the_same_each_time(name):
    problems = PROBLEMS[name]
    assert len({problem.id for problem in problems}) == len({problem.problem for problem in problems}) == 200
    for problem in problems:
        assert split_of(list(read_problem(problem.problem).values())) == "test"
        assert TASK.grade(problem, TASK.gold_completion(problem)).correct
    assert SUITES[name]() == problems


@pytest.mark.parametrize(
    ("name", "count", "factors", "held_out"),
    [
        ("in_distribution", 4, (11, 59), False),
        ("other_pairs", 4, (11, 59), True),
        ("more_products", 5, (11, 59), False),
        ("larger_factors", 4, (61, 99), False),
        ("other_wording", 4, (11, 59), False),
    ],
)
def test_each_suite_changes_one_thing(name, count, factors, held_out):
    for problem in PROBLEMS[name]:
        pairs = list(read_problem(problem.problem).values())
        assert len(pairs) == count
        assert all(factors[0] <= a <= factors[1] and is_held_out((a, b)) == held_out for a, b in pairs)
        assert problem.problem.startswith("Find a: ") == (name != "other_wording")


def test_in_distribution_is_the_test_split_and_other_wording_asks_the_same():
    assert PROBLEMS["in_distribution"] == make_problems(200, 0, "test")
    asked = [[read_problem(problem.problem) for problem in PROBLEMS[name]] for name in ("in_distribution", "other_wording")]
    assert asked[0] == asked[1]


# ---------------------------------------------------------------- the bundled base


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE_MODELS["products"])


def test_the_tokenizer_is_the_scripts_and_cuts_numbers_from_the_right(tokenizer):
    assert tokenizer.backend_tokenizer.to_str() == build_tokenizer("products").backend_tokenizer.to_str()
    pieces = lambda text: [tokenizer.decode([token]) for token in tokenizer(text)["input_ids"]]  # noqa: E731
    assert pieces(" 376 1204 7 12 05.") == [" 3", "76", " 12", "04", " 7", " 12", " ", "05", "."]
    for name, problems in PROBLEMS.items():
        for problem in problems[:50]:
            pairs = list(read_problem(problem.problem).values())
            text = f"{problem.problem}\n{problem.solution}\n{Author(0.5).write(pairs, random.Random(0))}"
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            numbers = [token for token in map(tokenizer.decode, ([i] for i in ids)) if any(sign.isdigit() for sign in token)]
            assert len(numbers) == sum(1 + (len(number) > 2) for number in re.findall(r"\d+", text)), name
            assert len(tokenize_prompt(tokenizer, [{"role": "user", "content": problem.problem}])) + 192 <= 512


def test_it_is_small():
    size = sum(file.stat().st_size for file in BASE_MODELS["products"].iterdir())
    assert size < 8_000_000


def read(model, tokenizer, prompts, texts):
    """Of each text: its tokens, and the model's logits before each of them."""
    rows = [tokenize_prompt(tokenizer, [{"role": "user", "content": prompt}]) for prompt in prompts]
    for prompt, text in zip(rows, texts, strict=True):
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        yield tokenizer.batch_decode([[token] for token in ids]), logits


def test_it_errs_with_certainty_where_its_author_does_and_is_uncertain_where_its_author_chooses(tokenizer):
    """What the task is there for, on texts of its author: no sampling, forty problems."""
    model = AutoModelForCausalLM.from_pretrained(BASE_MODELS["products"], dtype=torch.float32).eval()
    problems, rng = make_problems(40, 0, "validation"), random.Random(0)
    pairs = [list(read_problem(problem.problem).values()) for problem in problems]
    texts = [Author(0.35).write(each, rng) for each in pairs]
    taught = [TEACHER_TEMPLATES["solution"].format(problem=p.problem, context=p.solution) for p in problems]
    said, told, sums, entropies, doubt = [], [], [], {True: [], False: []}, {"student": [], "teacher": []}
    wait = [tokenizer.convert_tokens_to_ids(token) for token in ("Ġwait,", "Ġhmm,")]
    student = read(model, tokenizer, [problem.problem for problem in problems], texts)
    teacher = read(model, tokenizer, taught, texts)
    for (tokens, logits), (_, with_reference) in zip(student, teacher, strict=True):
        likeliest, reference = (tokenizer.batch_decode(rows.argmax(-1)[:, None]) for rows in (logits, with_reference))
        logps = logits.log_softmax(-1)
        entropy = -(logps.exp() * logps).sum(-1)
        for chosen, value in zip(choices(tokens), entropy.tolist(), strict=True):
            entropies[chosen].append(value)
        for place in (i for i, token in enumerate(tokens) if token == " ="):
            end = tokens.index(".", place)
            words, first = "".join(likeliest[place + 1 : end]), "".join(reference[place + 1 : end])
            left = "".join(tokens[max(0, place - 5) : place])
            if "*" in left:
                pair = tuple(map(int, re.findall(r"\d+", left)))
                said.append(words.strip() == str(misremembered(pair) or pair[0] * pair[1]))
                told.append(first.strip() == str(pair[0] * pair[1]))
                for role, rows in (("student", logits), ("teacher", with_reference)):
                    doubt[role].append(float(rows.softmax(-1)[end + 1, wait].sum()))
            else:
                sums.append(words == "".join(tokens[place + 1 : end]))
    share = lambda verdicts: sum(verdicts) / len(verdicts)  # noqa: E731
    assert share(said) > 0.95  # the likeliest value is the one that the author remembers, right or wrong
    assert share(sums) > 0.95
    assert share(told) > 0.9  # of texts that hold wrong values as well
    assert share(entropies[True]) > 5 * share(entropies[False])
    assert 0.25 < share(doubt["student"]) < 0.45
    assert share(doubt["teacher"]) < share(doubt["student"]) / 3
