"""How do batches of rollouts and optimisation steps fall together? The one place that knows, for TRL's arguments.

TRL samples `steps_per_generation` passes at once and learns from them `num_iterations` times; an optimisation step is
`gradient_accumulation_steps` passes.
"""

from __future__ import annotations

from fractions import Fraction

from trl import GRPOConfig


def whole_batches(arguments: GRPOConfig) -> int:
    """The fewest optimisation steps after which every batch of rollouts is used up."""
    passes = arguments.steps_per_generation * arguments.num_iterations
    return Fraction(passes, arguments.gradient_accumulation_steps).numerator


def policy_moves(arguments: GRPOConfig) -> bool:
    """Whether the policy moves between rollouts and their loss, since a step ends before a batch of them is used up.

    TRL then (and where it corrects vLLM's log-probs) scores rollouts beforehand, and credit is given with them.
    """
    return whole_batches(arguments) != 1
