"""What verl loads at its own import, in every process, where dasd is installed too (entry point `verl.plugins`)."""

from __future__ import annotations

import trl
from verl.models.transformers import monkey_patch

from dasd.verl import trainer

__all__ = ["trainer"]

# verl's workers patch TRL's value-head model where TRL is installed, and TRL 1.16, which dasd is written for, has none.
if not hasattr(trl, "AutoModelForCausalLMWithValueHead"):
    monkey_patch.is_trl_available = lambda: False
