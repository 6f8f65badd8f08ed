"""Are tokens classed by their text, and do the sums of the classes add up?"""

import pytest
import torch

from dasd.analysis.token_classes import CLASSES, TokenClasses, class_ratios, classify, shown_texts, token_texts
from dasd.credit import DirectionAdaptive, TokenSignals, assign_credit
from dasd.report.figures.teacher import CLASSES as SHOWN


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" 12", "digits"), ("3.5", "digits"), ("1,000", "digits"), ("٣", "digits"), (" x2", "words"),
        (" +", "operators"), ("-", "operators"),
        (" ≤", "operators"), ("\N{DIVISION SIGN}", "operators"), ("**", "operators"), (" =", "operators"),
        (" Wait,", "epistemic"), ("perhaps", "epistemic"), (" check", "epistemic"), ("unchecked", "words"),
        ("waiting", "words"),
        (" the", "words"), ("数", "words"), ("\\frac", "words"),
        ("", "other"), ("\n\n", "other"), (" (", "other"), (",", "other"), ("�", "other"),
    ],
)  # fmt: skip
def test_text_decides(text, name):
    assert classify(text) == name


class ByteLevel:
    """Decodes the pieces of a byte-level vocabulary, as Hugging Face's tokenizers do."""

    pieces = ("a", "âĨ", "µ", "<0xE2>", "ĠÃ©", "�")

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [0]}

    def convert_ids_to_tokens(self, token):
        return self.pieces[token]

    def decode(self, ids, **options):
        raw = [b"a", b"\xe2\x86", b"\xb5", b"\xe2", " é".encode(), "�".encode()]
        return b"".join(raw[token] for token in ids).decode(errors="replace")

    def batch_decode(self, rows, **options):
        return [self.decode(row) for row in rows]


def test_a_part_of_a_character_is_shown_as_its_bytes():
    """`âĨ` and `µ` are the signs of bytes e2 86 and b5, which are one arrow together; a text that has the mark itself stays."""
    assert shown_texts(ByteLevel(), [1, 2, 3, 4, 5]) == ["⟨e286⟩", "⟨b5⟩", "⟨e2⟩", " é", "�"]


def test_the_bundled_vocabulary(bundled):
    _, tokenizer = bundled
    classes = TokenClasses.of(tokenizer)
    assert classes.of_token.shape == (len(tokenizer) + 1,)

    def of(text):
        return [CLASSES[classes.of_token[token]] for token in tokenizer(text)["input_ids"]]

    assert of("perhaps 11 + 9 = 20") == ["epistemic", "digits", "operators", "digits", "operators", "digits"]
    assert of(" wait, no luck.") == ["epistemic", "words", "words", "other"]
    assert of("<|im_end|>") == ["other"]
    assert CLASSES[classes.of_token[-1]] == "other"  # beyond the tokenizer: padding of the embedding


def test_texts_keep_their_leading_space(bundled):
    _, tokenizer = bundled
    ids = tokenizer("perhaps 11 + 9 = 20, wait,\n")["input_ids"]
    assert "".join(token_texts(tokenizer, ids)) == "perhaps 11 + 9 = 20, wait,\n"
    assert token_texts(tokenizer, ids)[1] == " 11"


def signals(rows=slice(None)):
    """Two rollouts of three tokens; the last token of the second is padding."""
    return TokenSignals(
        student_logps=torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -0.25, 9.0]])[rows],
        teacher_logps=torch.tensor([[-0.5, -2.5, -0.5], [-2.0, -0.125, torch.nan]])[rows],
        entropies=torch.tensor([[0.1, 1.5, 0.2], [0.3, 0.9, 9.0]])[rows],
        completion_mask=torch.tensor([[1, 1, 1], [1, 1, 0]])[rows],
        advantages=torch.tensor([1.0, -1.0])[rows],
    )


IDS = torch.tensor([[0, 1, 2], [0, 9, 0]])  # digits, operators, words; digits, beyond the vocabulary, (padding)
TABLE = TokenClasses(torch.tensor([CLASSES.index(name) for name in ("digits", "operators", "words", "other")]))


def test_ratios_by_hand():
    batch = signals()
    credit = assign_credit(batch, DirectionAdaptive())
    metrics = class_ratios({name: float(total) for name, total in TABLE.totals(IDS, batch, credit).items()})
    assert metrics["class/digits/tokens"] == pytest.approx(2 / 5)
    assert metrics["class/digits/gap"] == pytest.approx((0.5 - 1.0) / 2)
    assert metrics["class/operators/gap"] == pytest.approx(-0.5)
    assert metrics["class/other/gap"] == pytest.approx(0.125)
    term = (credit.advantages - batch.rollout_advantages).abs()
    share = (term[0, 0] + term[1, 0]) / term.sum()
    assert metrics["class/digits/credit"] == pytest.approx(float(share))
    assert sum(metrics[f"class/{name}/credit"] for name in CLASSES if f"class/{name}/credit" in metrics) == pytest.approx(1.0)
    assert "class/epistemic/gap" not in metrics  # no such token: left out, not 0


def test_micro_batches_add_up():
    method = DirectionAdaptive()
    whole = TABLE.totals(IDS, signals(), assign_credit(signals(), method))
    parts = [TABLE.totals(IDS[r], signals(r), assign_credit(signals(r), method)) for r in (slice(0, 1), slice(1, 2))]
    for name, total in whole.items():
        assert float(total) == pytest.approx(sum(float(part[name]) for part in parts), abs=1e-6), name


def test_no_term_no_share():
    batch = signals()
    totals = TABLE.totals(IDS, batch, assign_credit(batch, DirectionAdaptive(beta=0.0)))
    metrics = class_ratios({name: float(total) for name, total in totals.items()})
    assert "class/digits/gap" in metrics
    assert not any(name.endswith("/credit") for name in metrics)
    assert class_ratios({}) == {}


def test_the_report_knows_the_classes():
    assert tuple(SHOWN) == CLASSES
