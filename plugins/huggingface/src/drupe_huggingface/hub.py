"""Downloads from the Hugging Face hub, and what to say when there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError

WANTED = (
    "*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer*", "*.tiktoken", "LICENSE*", "LICENCE*", "NOTICE*",
)  # fmt: skip
# Repositories also hold the same weights for other programs; a second copy doubles the download.
UNWANTED = ("consolidated*.safetensors", "original/*", "onnx/*", "*/*.safetensors", "*.onnx_data")
LOCAL_FOLDER = "give a folder that holds the checkpoint instead of its hub id"


def download(repository: str, options: Mapping[str, Any]) -> Path:
    """The folder of a hub repository's snapshot, downloaded unless the cache has it. Raises ModelError."""
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    revision = options.get("revision")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                token=options.get("token"),
                cache_dir=options.get("cache_dir"),
                allow_patterns=list(WANTED),
                ignore_patterns=list(UNWANTED),
            )
        )
    except hub.GatedRepoError as error:
        raise ModelError(
            f"the hub repository {repository} asks for its terms to be accepted first",
            cure=f"accept them at {_page(repository)}, then run `hf auth login` or give --token",
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no repository {repository}, or it is private",
            cure="check the spelling; for a private repository run `hf auth login` or give --token",
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(
            f"the hub repository {repository} has no revision '{revision}'",
            cure=f"choose one from {_page(repository)}/tree/main",
        ) from error
    except hub.HFValidationError as error:
        raise ModelError(f"'{repository}' is not a hub id: {error}", cure=LOCAL_FOLDER) from error
    except (hub.HfHubHTTPError, hub.LocalEntryNotFoundError, OSError) as error:
        raise _unreachable(repository, error) from error
    except Exception as error:
        # The transport's own errors are not OSErrors, and versions of the hub's client differ in which library it is.
        if type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise _unreachable(repository, error) from error
        raise


def _unreachable(repository: str, error: BaseException) -> ModelError:
    if _offline():
        return ModelError(
            f"{repository} is not in the local cache, and HF_HUB_OFFLINE forbids to ask the hub",
            cure=f"unset HF_HUB_OFFLINE, or {LOCAL_FOLDER}",
        )
    cause = error.__cause__ or error
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
    return ModelError(
        f"{repository} is no folder here, is not in the local cache, and could not be had from {_endpoint()}: {reason}",
        cure=f"check the network, or {LOCAL_FOLDER}",
    )


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _page(repository: str) -> str:
    return f"{_endpoint()}/{repository}"
