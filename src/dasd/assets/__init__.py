"""What ships with the package: the base model, how it was made (`build.py`), and the quickstart's config."""

from pathlib import Path

BASE_MODEL = Path(__file__).parent / "countdown-1m"
QUICKSTART = Path(__file__).parent / "quickstart.yaml"
