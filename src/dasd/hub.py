"""Is the hub there, and does it have this? One short question before a library asks it dozens of times.

Without a network `datasets` and `transformers` try for a minute before they look into their cache: here they are told at once.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Literal

from dasd.config import BadInput

logger = logging.getLogger("dasd")
SECONDS = 10.0


@lru_cache  # what is there is asked once
def check_hub(kind: Literal["model", "dataset"], name: str, revision: str | None = None) -> None:
    """Raises BadInput for a name or a revision that the hub does not have. Where it cannot be reached, the libraries use what
    their cache has for the rest of this process, and that is logged once."""
    from huggingface_hub import HfApi, constants, errors

    if constants.is_offline_mode():
        return
    try:
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS)
    except errors.HFValidationError:
        raise BadInput(f"{name!r} is neither a file or folder here nor the name of a {kind} on the hub (OWNER/NAME)") from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"the {kind} {name} has no revision {revision!r} on the hub") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(f"the hub has no {kind} {name!r}, or it is private and you are not logged in (hf auth login)") from None
    except errors.HfHubHTTPError:
        return  # the hub is there, and says something that the library may know how to handle
    except Exception as error:  # no network: which kind is raised depends on the HTTP client
        _go_offline(f"{type(error).__name__}: {error}")


def _go_offline(reason: str) -> None:
    import sys

    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    if (datasets := sys.modules.get("datasets.config")) is not None:  # it has taken a copy
        datasets.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    logger.warning("The hub cannot be reached (%s): only what was downloaded before can be used.", reason)
