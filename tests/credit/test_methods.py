"""Is every method found by its name, and every wrong setting refused with a word that helps?"""

from dataclasses import fields, replace

import pytest
import torch

from dasd.credit import (
    METHODS,
    Controlled,
    Credit,
    DirectionAdaptive,
    Divergence,
    GroupRelative,
    Schedule,
    TokenSignals,
    assign_credit,
    has_teacher,
    make_method,
)
from dasd.credit.advantage import AntiSelfDistillation, RewardRescaled
from dasd.credit.distillation import Distillation
from reference.batches import credit_of, full_batch, outputs

OPTIONAL = (
    "correct", "teacher_entropies", "contrast_logps", "teacher_entropy_history", "attention_entropies", "sum_squared_probs",
    "token_frequencies",
)  # fmt: skip


def test_the_table_is_complete():
    assert len(METHODS) == 29
    assert METHODS["rlsd"] == RewardRescaled("conform", Schedule(0.5, 0.0, steps=50), 0.8, 1.2, correct_only=False)
    assert METHODS["rlrt"] == RewardRescaled("deviate", 0.5, 0.0, 2.0, correct_only=True)
    assert METHODS["antisd"] == AntiSelfDistillation(lam=0.5, switch=0.93, warmup_steps=5)
    sdpo = Distillation(Divergence("jsd", mixture=0.5, top_k=100, tail="bucket"), ratio_cap=2.0, average="taught")
    assert METHODS["sdpo"] == sdpo


@pytest.mark.parametrize("name", METHODS)
def test_needs_are_what_a_method_reads(name):
    """Without what it does not need, the same credit; without any one thing that it needs, an error or another credit."""
    method, batch = METHODS[name], full_batch(0)
    plain = outputs(credit_of(method, batch))
    bare = batch | dict.fromkeys(set(OPTIONAL) - method.needs)
    for signal in {"teacher_logps", "entropies"} - method.needs:
        bare[signal] = torch.zeros(4, 14)
    found = outputs(credit_of(method, bare))
    assert all(torch.equal(found[output], plain[output]) for output in plain)
    for signal in set(OPTIONAL) & method.needs:
        with pytest.raises(ValueError, match=f"needs {signal}"):
            credit_of(method, batch | {signal: None})
    reads = {"teacher_logps", "entropies"} & method.needs
    if "teacher_distribution" in method.needs and name not in ("dasd_vocab", "eopd", "ad_opsd"):
        reads -= {"teacher_logps"}  # a teacher there is, of whom these read the distribution alone
    for signal in reads:
        other = outputs(credit_of(method, batch | {signal: batch[signal].flip(-1) * 0.5}))
        assert any(not torch.equal(other[output], plain[output]) for output in plain), signal


@pytest.mark.parametrize("name", METHODS)
def test_whoever_reads_anything_of_a_teacher_has_one(name):
    of_a_teacher = {read for read in METHODS[name].needs if read.startswith(("teacher", "contrast"))}
    assert has_teacher(METHODS[name]) == bool(of_a_teacher)
    assert has_teacher(METHODS[name]) == (name not in ("grpo", "dr_grpo", "dapo", "forking", "hepo", "opsa"))


def test_a_plain_callable_is_thought_to_have_a_teacher():
    assert has_teacher(lambda signals: Credit(signals.advantages))


def test_assign_credit_takes_any_callable():
    given = TokenSignals(**full_batch(0))
    credit = assign_credit(given, lambda s: Credit(2 * s.rollout_advantages))
    assert torch.equal(credit.advantages, 2 * given.rollout_advantages)
    assert torch.equal(assign_credit(given, METHODS["dasd"]).advantages, METHODS["dasd"](given).advantages)


# ---------------------------------------------------------------- settings that are taken


@pytest.mark.parametrize("name", METHODS)
def test_without_settings_it_is_the_table_entry(name):
    assert make_method(name) == make_method(name, {}) == METHODS[name]


def test_settings_replace_the_defaults_and_the_table_stays():
    assert make_method("dasd", {"beta": 0.3, "map": "hard"}) == DirectionAdaptive(beta=0.3, map="hard")
    assert make_method("fork_only", {"rho": 0.4}) == DirectionAdaptive(map="repel", arm="high", gate="none", rho=0.4)
    assert make_method("antisd", {"switch": None}) == AntiSelfDistillation(switch=None)
    assert make_method("dasd", {"beta": 1}) == DirectionAdaptive(beta=1)  # a whole number is a number
    assert make_method("grpo", {}) == GroupRelative()
    assert METHODS["dasd"] == DirectionAdaptive()


def test_a_mapping_is_a_schedule():
    beta = {"start": 0.0, "end": 0.5, "steps": 100, "shape": "cosine"}
    assert make_method("dasd", {"beta": beta}) == DirectionAdaptive(beta=Schedule(0.0, 0.5, 100, "cosine"))
    assert make_method("dasd", {"beta": Schedule(0.0, 0.5, 100)}).beta == Schedule(0.0, 0.5, 100)
    # one that is there already keeps what is not given
    assert make_method("rlsd", {"lam": {"steps": 200}}).lam == Schedule(0.5, 0.0, steps=200)


def test_a_mapping_changes_a_divergence_and_keeps_the_rest():
    assert make_method("sdpo", {"divergence": {"top_k": 20}}).divergence == Divergence("jsd", top_k=20)
    assert make_method("opsd", {"divergence": {"summand_cap": None}}).divergence == Divergence("forward_kl")
    assert make_method("dasd_vocab", {"attract": {"kind": "jsd"}, "repel": {"mixture": 0.25}}).repel.mixture == 0.25
    assert METHODS["sdpo"].divergence.top_k == 100


def test_settings_given_are_not_changed():
    settings = {"beta": {"start": 0.0, "end": 0.5, "steps": 100}, "control": "permuted_gap", "control_seed": 3}
    make_method("dasd", settings)
    assert settings == {"beta": {"start": 0.0, "end": 0.5, "steps": 100}, "control": "permuted_gap", "control_seed": 3}


def test_a_control_wraps_the_method():
    assert make_method("dasd", {"beta": 0.3, "control": "permuted_entropy", "control_seed": 7}) == Controlled(
        DirectionAdaptive(beta=0.3), "permuted_entropy", seed=7
    )
    assert make_method("dasd", {"control": "permuted_gap"}).seed == 0
    assert (
        make_method("dasd", {"control": None})
        == make_method("dasd", {"control": None, "control_seed": None})
        == METHODS["dasd"]
    )


# ---------------------------------------------------------------- settings that are refused


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dsad", None, "^unknown method 'dsad', did you mean 'dasd'"),
        ("conformty", None, "^unknown method 'conformty', did you mean 'conformity'"),
        ("xyzzy", None, r"^unknown method 'xyzzy'; methods: dasd, dasd_paper, dasd_vocab, lookahead, grpo, .*scaffold_only$"),
        ("dasd", {"betta": 0.1}, "^method dasd has no setting 'betta', did you mean 'beta'"),
        ("dasd", {"gap_clipp": 0.1}, "^method dasd has no setting 'gap_clipp', did you mean 'gap_clip'"),
        ("sdpo", {"strenght": 0.1}, "^method sdpo has no setting 'strenght', did you mean 'strength'"),
        ("grpo", {"beta": 0.1}, "^method grpo has no setting 'beta'; it has no settings"),
        ("dasd", {"needs": []}, "^method dasd has no setting 'needs'"),
        ("dasd", {"beta": -1.0}, "^beta must be at least 0"),
        ("conformity", {"map": "repel"}, "^method conformity has map fixed at 'attract': that is what it is"),
        ("novelty", {"gate": "gap"}, "^method novelty has gate fixed at 'none'"),
        ("fork_only", {"arm": "low"}, "^method fork_only has arm fixed at 'high'"),
        ("dasd_paper", {"rho": 0.8}, r"^method dasd_paper has rho fixed at 0\.2"),
        ("rlsd", {"side": "deviate"}, "^method rlsd has side fixed at 'conform'"),
        ("rlrt", {"correct_only": False}, "^method rlrt has correct_only fixed at True"),
        ("opsd", {"verifier_weight": 1.0}, r"^method opsd has verifier_weight fixed at 0\.0"),
        ("pw_opsd", {"weighting": "uniform"}, "^method pw_opsd has weighting fixed at 'position'"),
        ("pw_opsd", {"verifier_weight": 1.0}, "^method pw_opsd has verifier_weight fixed"),
        (
            "dasd",
            {"beta": {"start": 0.0, "finish": 1.0}},
            "^dasd.beta has no setting 'finish'; its settings: start, end, steps",
        ),
        ("dasd", {"beta": {"start": 0.0, "step": 1}}, "^dasd.beta has no setting 'step', did you mean 'steps'"),
        ("dasd", {"beta": {"start": 0.0, "end": 1.0}}, "^dasd.beta as a schedule needs start, end and steps, got start, end"),
        ("dasd", {"beta": {"start": 0.0, "end": 1.0, "steps": 0}}, "^a schedule's steps must be"),
        ("dasd", {"beta": {"start": -1.0, "end": 1.0, "steps": 9}}, "^beta must be at least 0"),
        ("sdpo", {"divergence": {"topk": 5}}, "^sdpo.divergence has no setting 'topk', did you mean 'top_k'"),
        ("sdpo", {"divergence": {"kind": "kl"}}, "^kind must be one of forward_kl"),
        ("sdpo", {"divergence": "jsd"}, "^sdpo: divergence must be a mapping of a divergence's settings, got 'jsd'"),
        ("sdpo", {"divergence": {"top_k": 2.5}}, r"^sdpo.divergence: top_k must be a whole number or null, got 2\.5"),
        ("dasd_vocab", {"repel": {"kind": "reverse_kl"}}, "^repel must be a jsd"),
        ("rlcsd", {"width": {"start": 1.0, "end": 2.0, "steps": 9}}, "^rlcsd: width must be a number, got Schedule"),
        ("dasd", {"gate": "no"}, "^gate must be one of gap, none, threshold, magnitude, got 'no'"),
        ("dasd", {"rank": "no"}, "^dasd: rank must be true or false, got 'no'"),
        ("dasd", {"control": "permuted"}, "^control must be one of permuted_entropy, .*got 'permuted'"),
        ("dasd", {"control_seed": 3}, "^control_seed is 3 without a control: name one of permuted_entropy"),
        ("dasd", {"control": "permuted_gap", "control_seed": "x"}, "^control_seed must be a whole number from 0"),
        ("grpo", {"control": "permuted_gap"}, "^control permuted_gap changes nothing: this method does not read teacher_logps"),
    ],
)
def test_what_is_refused_and_how(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, settings)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "value", ["x", None, True, -1, float("nan"), 0.5, 1.5, 3, [1], {}, {"start": 0.1, "end": 0.2, "steps": 3}], ids=str
)
def test_any_value_of_any_setting_is_refused_or_works(name, value):
    """What comes out of a file must end in ValueError before training, never in a traceback during it."""
    for field in fields(METHODS[name]):
        try:
            method = make_method(name, {field.name: value})
        except ValueError:
            continue
        assert all(torch.isfinite(output).all() for output in outputs(credit_of(method, full_batch(0), 1)).values())
        for term in credit_of(method, full_batch(0), 1).terms:
            term.divergence(torch.randn(3, 5), torch.randn(3, 5))


def test_a_fixed_setting_is_one_that_the_method_has():
    for name in METHODS:
        replace(METHODS[name])
        for setting in ("side", "correct_only", "verifier_weight", "weighting", "map", "arm", "flip", "gate"):
            if setting not in [field.name for field in fields(METHODS[name])]:
                with pytest.raises(ValueError, match=f"has no setting '{setting}'"):
                    make_method(name, {setting: None})
