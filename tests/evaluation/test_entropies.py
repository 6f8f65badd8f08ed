"""Are the entropies of samples the model's own, on file once, and the figures those of a reader who adds them up?"""

import json

import numpy as np
import pytest
import torch

from dasd.analysis import entropies as module
from dasd.analysis.entropies import entropies_of
from dasd.analysis.scores import score_completion
from dasd.cli import run
from dasd.config import ModelConfig
from dasd.evaluation.entropies import EDGES, decode, encode, entropy_distribution, entropy_sums, read_entropies
from dasd.evaluation.folder import read_samples
from dasd.files import read_lines
from dasd.models import load_model
from dasd.report.data.metrics import describe


@pytest.fixture(scope="module")
def bundled():
    return load_model(ModelConfig())


def test_what_is_on_file_is_what_was_scored_to_three_figures():
    values = [0.0, 1e-5, 0.0123, 0.6717, 3.3333, 9.876]
    assert decode(encode(values)) == pytest.approx(values, rel=1e-3, abs=1e-7)
    assert decode(encode([])).size == 0


def test_padding_and_company_change_nothing(bundled):
    """Completions of several lengths in one pass, against each by itself."""
    model, tokenizer = bundled
    texts = {"Use 3 7 8 to make 29.": "3 * 7 = 21", "Use 1 2 to make 3.": "perhaps 1 + 2 = 3. check 3 = 3.", "Use": ""}
    rows = [(tokenizer(text)["input_ids"], tokenizer(more)["input_ids"]) for text, more in texts.items()]
    together = entropies_of(model, rows, temperature=0.7)
    for (prompt, completion), found in zip(rows, together, strict=True):
        alone = score_completion(model, prompt, completion, 0.7)[1].tolist() if completion else []
        assert found == pytest.approx(alone, abs=1e-4)


def records(*entropies):
    return [{"entropies": np.array(values)} for values in entropies]


def test_figures_by_hand():
    """Two samples of one problem, one of another: 10 tokens, 2 tokens, none."""
    ten = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 4.0]
    sums = entropy_sums([records(ten, [0.0, 2.0]), records([])])
    value = {name: top.sum() / bottom.sum() for name, (top, bottom) in sums.items()}
    assert value["entropy_mean"] == pytest.approx(10 / 12)
    assert value["entropy_top_fifth"] == pytest.approx((3.0 + 2.0) / 2)
    assert value["entropy_end"] == pytest.approx(4.0)  # the short one has no last tenth of its own
    assert value["fork_rate"] == pytest.approx(5 / 12)
    assert all(describe(name).role == "health" for name in sums)
    found = entropy_distribution(records(ten, [0.0, 2.0], []))
    assert found["tokens"] == 12
    assert sum(found["shares"]) == pytest.approx(1.0)
    assert len(found["shares"]) == len(EDGES)
    assert found["shares"][0] == pytest.approx(7 / 12)
    assert found["quantiles"]["0.5"] == 0.0
    assert found["by_tenth"][9] == 4.0
    assert entropy_distribution([])["quantiles"]["0.5"] is None


WORDS = ["eval", "bundled", "--num_samples", "2", "--data.limit", "4", "--max_completion_length", "40"]


def test_the_command_scores_each_sample_once(tmp_path, monkeypatch, bundled, capsys):
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 150)
    scored, real = [], entropies_of

    def listen(model, rows, temperature):
        scored.extend(rows)
        if len(scored) > 4 and not listen.may_go_on:
            raise KeyboardInterrupt
        return real(model, rows, temperature)

    listen.may_go_on = False
    monkeypatch.setattr(module, "entropies_of", listen)
    words = [*WORDS, "--output", str(tmp_path / "e")]
    assert run(words) == 0
    assert "entropy_mean" not in json.loads((tmp_path / "e" / "summary.json").read_text())
    assert run([*words, "--entropies"]) == 1  # stopped
    before = read_lines(tmp_path / "e" / "entropies.jsonl")
    assert 0 < len(before) < 8
    listen.may_go_on = True
    scored.clear()
    assert run([*words, "--entropies"]) == 0
    assert len(scored) == 8 - len(before)
    found = read_entropies(tmp_path / "e")
    samples = read_samples(tmp_path / "e")
    assert set(found) == set(samples)
    assert all(len(values) == len(samples[key]["token_ids"]) for key, values in found.items())
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    everything = np.concatenate(list(found.values()))
    assert summary["entropy_mean"] == pytest.approx(everything.mean())
    assert summary["fork_rate"] == pytest.approx((everything > 0.672).mean())
    assert summary["entropies"]["tokens"] == everything.size
    low, high = summary["ci95"]["entropy_mean"]
    assert low <= summary["entropy_mean"] <= high
    scored.clear()
    assert run([*words, "--entropies"]) == 0
    assert run([*words, "--regrade"]) == 0  # keeps them
    assert scored == []
    assert json.loads((tmp_path / "e" / "summary.json").read_text())["entropy_mean"] == summary["entropy_mean"]
    assert run([*words, "--regrade", "--entropies"]) == 2
    assert "one of them at a time" in capsys.readouterr().err


def test_samples_without_token_ids_or_of_another_vocabulary_are_refused(tmp_path, capsys):
    words = [*WORDS, "--output", str(tmp_path / "e")]
    assert run(words) == 0
    path = tmp_path / "e" / "samples.jsonl"
    lines = read_lines(path)
    for change, complaint in (({"token_ids": None}, "return_token_ids"), ({"token_ids": [99_999]}, "99999")):
        path.write_text("".join(json.dumps(line | change) + "\n" for line in lines))
        capsys.readouterr()
        assert run([*words, "--entropies"]) == 2
        assert complaint in capsys.readouterr().err
    assert not read_lines(tmp_path / "e" / "entropies.jsonl")


def test_a_server_that_tells_no_tokens_is_refused_before_it_samples(tmp_path, capsys):
    words = [
        *WORDS,
        "--output",
        str(tmp_path / "e"),
        "--sampler.backend",
        "openai",
        "--sampler.base_urls",
        "http://127.0.0.1:9/v1",
    ]
    assert run([*words, "--entropies"]) == 2
    assert "--sampler.return_token_ids true" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_entropies_of_other_samples_are_left_out(tmp_path, bundled):
    assert run([*WORDS, "--entropies", "--output", str(tmp_path / "e")]) == 0
    path = tmp_path / "e" / "samples.jsonl"
    lines = read_lines(path)
    lines[0]["token_ids"] = lines[0]["token_ids"][:-1]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert sum("entropies" in record for record in read_samples(tmp_path / "e").values()) == len(lines) - 1
    assert torch.is_grad_enabled()
