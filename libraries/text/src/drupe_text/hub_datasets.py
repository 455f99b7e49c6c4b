"""Data sets of the Hugging Face hub, as the library `datasets` loads them, and the errors where it cannot."""

from __future__ import annotations

import os
from typing import Any

from drupe.api import UsageError

QUIET = {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Environment variables that stop the library from reporting its use, unless the user has set them."""
FORBIDDEN = "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE forbids it"
TIMEOUT = 10.0
"""Seconds for the request that finds out whether the hub can be reached."""


def library(missing: UsageError) -> Any:
    """The library `datasets`. missing: what is raised where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import datasets
    except ImportError as error:
        raise missing from error
    return datasets


def load(datasets: Any, name: str, configuration: str | None, *, streaming: bool = False, **named: Any) -> Any:
    """What the library loads of a data set: from the hub, or where that cannot be reached, what is kept here.

    Offline, the library cannot stream: it finds only data sets that are kept whole. Raises UsageError.
    """
    why = _unreachable(datasets, name)
    if why:  # asked again, the library would try for half a minute, and print each attempt
        datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
    if streaming and not datasets.config.HF_DATASETS_OFFLINE:
        named["streaming"] = True
    try:
        return datasets.load_dataset(name, configuration, **named)
    except Exception as error:  # the library documents no class of errors; those of network and hub come through
        if why and isinstance(error, OSError):  # FileNotFoundError and ConnectionError: it is not kept here
            raise UsageError(
                f"there is no file or folder {name} here, and the data set {name} is not in the local cache and cannot "
                f"be downloaded: {why}",
                cure=f"{'unset these' if why == FORBIDDEN else 'check the network'}, or give a file",
            ) from error
        raise refused(name, error) from error


def refused(name: str, error: Exception) -> UsageError:
    """The error for a data set of the hub that the library cannot load, or not read to its end."""
    return UsageError(
        f"the data set cannot be loaded: {' '.join(str(error).split()) or type(error).__name__}",
        where=f"the hub's data set '{name}'",
        cure="check id, configuration and split (OWNER/NAME:CONFIGURATION@SPLIT) and network, or give a file",
    )


def _unreachable(datasets: Any, name: str) -> str:
    """Why the hub cannot be reached, by one request that is not repeated; empty where it answers."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if datasets.config.HF_DATASETS_OFFLINE:
        return FORBIDDEN
    try:
        HfApi().dataset_info(name, timeout=TIMEOUT)
    except HfHubHTTPError as error:  # an answer: the library says what is wrong with the data set
        return str(error).splitlines()[0] if error.response is not None and error.response.status_code >= 500 else ""
    except Exception as error:  # of the HTTP library, whichever it is
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return ""
