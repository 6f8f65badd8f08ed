"""Which signals can any method be tried on? Random ragged batches with every optional tensor, and ways to cut them up.

Scores lie on grids of exact float32 values, so that a float64 twin agrees on which tokens lie at a threshold.
"""

import torch

from dasd.credit import METHODS, DirectionAdaptive, TokenSignals, assign_credit, make_method
from dasd.credit.lookahead import Lookahead
from dasd.credit.routing import SIGNALS

TOKENS = (
    "student_logps", "teacher_logps", "entropies", "completion_mask", "teacher_entropies", "contrast_logps", "ratio",
    "attention_entropies", "sum_squared_probs", "token_frequencies",
)  # fmt: skip
ROLLOUTS = ("advantages", "correct", "has_teacher")
SCORES = tuple(name for name in TOKENS if name != "completion_mask")
ADVANTAGES = torch.tensor([-1.3098765, 0.0, 0.3712345, 1.7320508])  # no term cancels these exactly
HISTORY = [1.0] * 5 + [0.95]  # antisd's switch is on; in warm-up the mean is 1
# Of a batch that all rollouts here are part of, so that its normalisers do not depend on how these are split.
TOTALS = {"certainty": 12.5, "distilled": 20.0, "with_term": 16.0, "tokens": 64.0}

# Every method of the table as a function of one rollout (some papers take a threshold from the batch), and some more.
ROLLOUT_METHODS = {
    **METHODS,
    "forking": make_method("forking", {"scope": "rollout"}),
    "opsa": make_method("opsa", {"scope": "rollout"}),
    "dapo": make_method("dapo"),
    "dasd hard std": DirectionAdaptive(0.5, 0.75, map="hard", gap_scale="std", gap_clip=2.0, sigma_center="median"),
    "dasd tanh nat": DirectionAdaptive(2.0, 0.5, gap_scale="none", gap_clip=0.75, sigma_center="quantile"),
    "dasd by side": DirectionAdaptive(0.5, 0.75, sigma="side", gap_units="side", gate="threshold"),
    "dasd flipped rank": DirectionAdaptive(0.5, 0.75, map="linear", rank=True, flip="low", gate="magnitude"),
    "dasd less its mean": DirectionAdaptive(0.5, baseline="rollout"),
    "dasd less its side's mean": DirectionAdaptive(0.5, 0.5, baseline="side", gap_units="side"),
    "conformity less its side's mean": make_method("conformity", {"baseline": "side"}),
    "scaffold only less its mean": make_method("scaffold_only", {"baseline": "rollout"}),
    **{f"dasd by {signal}": DirectionAdaptive(0.5, signal=signal) for signal in SIGNALS},
    "sdpo by position with verifier": make_method("sdft", {"weighting": "position", "ratio_cap": 1.5, "anchor": 0.5}),
}


# Of two problems' sums in each entropy decile: a clear direction in some, none in others.
EVIDENCE = Lookahead().update(None, torch.tensor([[1.0, -1.0, 2.0, 0.0, 1.0] * 2, [1.0, -1.0, 1.9, 0.0, -1.0] * 2]))


def full_batch(seed=0, rollouts=4, tokens=14):
    """Keyword arguments of TokenSignals; masks are full, ragged or with holes, now and then a whole row is masked."""
    rng = torch.Generator().manual_seed(seed)

    def grid(highest, step, *lead):
        return torch.randint(0, highest + 1, (*lead, rollouts, tokens), generator=rng).float() * step

    def coins(*shape):
        return torch.rand(shape, generator=rng) < 0.6

    lengths = torch.randint(0, tokens + 1, (rollouts, 1), generator=rng)
    masks = torch.ones(rollouts, tokens, dtype=torch.bool), torch.arange(tokens) < lengths, coins(rollouts, tokens)
    return {
        "student_logps": -grid(160, 1 / 32),
        "teacher_logps": -grid(160, 1 / 32),
        "entropies": grid(48, 1 / 16),
        "completion_mask": masks[seed % 3],
        "advantages": ADVANTAGES[torch.randint(0, 4, (rollouts,), generator=rng)],
        "correct": coins(rollouts),
        "teacher_entropies": grid(48, 1 / 16),
        "contrast_logps": -grid(160, 1 / 32, 2),
        "ratio": (grid(64, 1 / 32) - 1).exp(),
        "has_teacher": coins(rollouts),
        "has_contrast": coins(2, rollouts),
        "teacher_entropy_history": HISTORY,
        "batch_totals": TOTALS,
        "evidence": EVIDENCE,
        "attention_entropies": grid(48, 1 / 16),
        "sum_squared_probs": grid(31, 1 / 32) + 1 / 32,
        "token_frequencies": grid(7, 1 / 8) + 1 / 8,
    }


def credit_of(method, batch, step=0):
    return assign_credit(TokenSignals(**batch), method, step)


def rows(batch, chosen):
    """The batch's rollouts `chosen`, an index or a list of them."""
    cut = {name: batch[name][..., chosen, :] for name in TOKENS if name in batch}
    if "has_contrast" in batch:
        cut["has_contrast"] = batch["has_contrast"][:, chosen]
    return batch | cut | {name: batch[name][chosen] for name in ROLLOUTS if name in batch}


def tokenwise(batch, function):
    """The batch with `function(name, tensor)` in place of each tensor of tokens."""
    return batch | {name: function(name, batch[name]) for name in TOKENS if name in batch}


def outputs(credit):
    """Everything a method gives each token, by name: (B, T) each."""
    found = {"advantages": credit.advantages}
    if credit.omega is not None:
        found["omega"] = credit.omega
    if credit.loss_weights is not None:
        found["loss weights"] = credit.loss_weights
    for index, term in enumerate(credit.terms):
        found[f"weights {index}"] = term.weights
        if term.student_share is not None:
            found[f"share {index}"] = term.student_share
    return found
