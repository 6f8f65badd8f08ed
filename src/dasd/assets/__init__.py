"""What ships with the package: a base model for each bundled task, how they were made (`build.py`), the quickstart's config."""

from pathlib import Path

_HERE = Path(__file__).parent
BASE_MODELS = {"countdown": _HERE / "countdown-1m", "products": _HERE / "products-1m"}  # by task
BASE_MODEL = BASE_MODELS["countdown"]
QUICKSTART = _HERE / "quickstart.yaml"
