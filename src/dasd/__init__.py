"""Direction-Adaptive Self-Distillation: token entropy decides whether the privileged teacher attracts or repels."""

from importlib.metadata import version
from typing import Any

__version__ = version("dasd")
__all__ = ["Evaluation", "Run", "SelfDistillationConfig", "SelfDistillationTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("SelfDistillationConfig", "SelfDistillationTrainer"):  # late: torch and TRL take seconds to import
        from dasd.training import trainer

        return getattr(trainer, name)
    if name in ("Evaluation", "Run"):
        from dasd import results

        return getattr(results, name)
    raise AttributeError(f"module 'dasd' has no attribute {name!r}")
