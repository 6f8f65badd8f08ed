"""Does a name that the hub does not have, or a hub that is not there, get one answer at once?"""

import logging

import datasets
import httpx2
import pytest
from huggingface_hub import HfApi, constants, errors

from dasd.config import BadInput, DataConfig, ModelConfig
from dasd.data.problems import load_problems
from dasd.hub import check_hub
from dasd.models import load_tokenizer


@pytest.fixture
def hub(monkeypatch):
    """A function that sets what the hub's API does; the names that it was asked for."""
    asked = []
    check_hub.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)

    def answers(error=None):
        def repo_info(self, name, **settings):
            asked.append(name)
            if error is not None:
                raise error
            return {}

        monkeypatch.setattr(HfApi, "repo_info", repo_info)
        return asked

    yield answers
    check_hub.cache_clear()


def error(kind):
    return kind("no", response=httpx2.Response(404, request=httpx2.Request("GET", "http://hub")))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (errors.RepositoryNotFoundError, "the hub has no dataset 'no/such', or it is private and you are not logged in"),
        (errors.RevisionNotFoundError, "the dataset no/such has no revision 'v7' on the hub"),
        (errors.HFValidationError, "'no/such' is neither a file or folder here nor the name of a dataset"),
    ],
)
def test_a_name_that_is_not_there(hub, kind, said):
    hub(kind("no") if kind is errors.HFValidationError else error(kind))
    with pytest.raises(BadInput) as caught:
        load_problems(DataConfig(source="no/such", revision="v7", task="math"))
    assert str(caught.value).startswith(f"data.source no/such: {said}")


def test_without_a_network_nothing_is_tried_again(hub, caplog):
    asked = hub(httpx2.ConnectError("Name or service not known"))
    with caplog.at_level(logging.WARNING), pytest.raises(BadInput) as caught:
        load_problems(DataConfig(source="no/such", task="math"))
    assert str(caught.value).startswith("data.source no/such cannot be loaded: ConnectionError")
    with pytest.raises(BadInput, match=r"model.path no/such, which is no folder here, cannot be loaded"):
        load_tokenizer(ModelConfig(path="no/such"))
    assert asked == ["no/such"]
    own = [record.message for record in caplog.records if record.name == "dasd"]
    assert own == [
        "The hub cannot be reached (ConnectError: Name or service not known): only what was downloaded before can be used."
    ]
    assert not [record for record in caplog.records if "Retry" in record.message]


def test_what_is_there_is_asked_once(hub):
    asked = hub()
    check_hub("model", "a/b")
    check_hub("model", "a/b")
    check_hub("dataset", "a/b")
    assert asked == ["a/b", "a/b"]


def test_a_model_that_is_not_there(hub):
    hub(error(errors.RepositoryNotFoundError))
    with pytest.raises(BadInput, match=r"^model.path no/such: the hub has no model 'no/such'"):
        load_tokenizer(ModelConfig(path="no/such"))
