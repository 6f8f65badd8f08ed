"""`dasd train CONFIG` with a loss that is NaN in the third step, on the second process alone. Run by `test_guards.py`."""

import math
import os
import sys

from dasd.cli import main
from dasd.training.trainer import SelfDistillationTrainer
from dasd.training.trl_adapter import TokenCreditTrainer


def loss(self, model, inputs):
    poisoned = self.state.global_step == 2 and os.environ["RANK"] == "1"
    return TokenCreditTrainer._compute_loss(self, model, inputs) * (math.nan if poisoned else 1.0)


SelfDistillationTrainer._compute_loss = loss
main(["train", sys.argv[1]])
