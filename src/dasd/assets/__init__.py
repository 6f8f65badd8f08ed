"""The bundled base model and how it was made (`build.py`)."""

from pathlib import Path

BASE_MODEL = Path(__file__).parent / "countdown-1m"
