"""What belongs to a named method besides its formula: the teacher, the context and the loss that its source uses.

A config whose `method.name` is one of these starts from its preset; what the config says itself wins. Plain data, no imports.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "dasd_paper": {"training": {"loss_type": "grpo"}},
    "dr_grpo": {"training": {"loss_type": "dr_grpo", "trl": {"scale_rewards": "none"}}},
    "dapo": {
        "training": {
            "loss_type": "dapo",
            "dynamic_sampling": 3,
            "overlong_buffer": 0.2,
            "trl": {"epsilon": 0.2, "epsilon_high": 0.28},
        },
    },
    "hepo": {"training": {"loss_type": "grpo"}},
    "opsa": {"training": {"loss_type": "dapo"}},
    "rlsd": {"teacher": {"weights": "snapshot", "sync_steps": 10}},
    "rlrt": {"teacher": {"context": "peer"}},
    "antisd": {"teacher": {"context": "peer_else_solution"}},
    "rlcsd": {
        "teacher": {"context": "peer", "weights": "snapshot", "sync_steps": 10},
        "training": {"loss_type": "dapo"},
    },
    "sipo": {"teacher": {"weights": "snapshot", "sync_steps": 10}, "training": {"trl": {"scale_rewards": "none"}}},
    "distilled_rl": {"teacher": {"weights": "frozen"}},
    "opsd": {"teacher": {"weights": "frozen"}},
    "opsd_sampled": {"teacher": {"weights": "frozen"}},
    "pw_opsd": {"teacher": {"weights": "frozen"}},
    "ad_opsd": {"teacher": {"weights": "frozen"}},
    "sdpo": {"teacher": {"context": "peer", "weights": "ema", "ema_rate": 0.05}},
    "srpo": {"teacher": {"context": "peer", "weights": "ema", "ema_rate": 0.05}},
}
