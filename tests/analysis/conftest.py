"""The bundled model and its tokenizer, and a few Countdown problems."""

import pytest

from dasd.config import ModelConfig
from dasd.models import load_model
from dasd.tasks.countdown import make_problems


@pytest.fixture(scope="session")
def bundled():
    return load_model(ModelConfig())


@pytest.fixture(scope="session")
def problems():
    return make_problems(8, 0, "validation")
