"""Downloads from the Hugging Face hub, small files first, and the errors where a download is not possible."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import DrupeError, ModelError, OutputError, Record
from drupe_checkpoints.adapters.configuration import CONFIG
from drupe_checkpoints.adapters.reference import WEIGHTS as ADAPTER_WEIGHTS
from drupe_checkpoints.sentence_transformers import module_weights
from drupe_checkpoints.summary import INDEX, shards_of

SMALL = ("*.json", "*.jinja", "*.txt", "tokenizer*", "*.tiktoken", "*.model", "LICENSE*", "LICENCE*", "NOTICE*")
WEIGHTS = ("*.safetensors",)
# Repositories also hold the same weights in the formats of other programs, which would double the download.
UNWANTED = ("consolidated*.safetensors", "original/*", "onnx/*", "*/*.safetensors", "*.onnx_data")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LOCAL_FOLDER = "give a folder of this machine instead of the hub id"
TIMEOUT = 10.0  # seconds for a request that only lists
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Listing(Record):
    """What the hub says about the weights of a revision. parameters: None where the hub does not say."""

    weight_bytes: int
    parameters: int | None
    pickles: tuple[str, ...]


class Snapshot(Record):
    """One commit of a hub repository. Its small files are in `folder`; its weights are downloaded when needed."""

    repository: str
    folder: Path
    token: str | None = None
    cache_dir: str | None = None

    def __repr__(self) -> str:
        return f"Snapshot({self.repository!r}, {self.folder!r})"  # without the token, which is a secret

    @property
    def commit(self) -> str:
        return self.folder.name

    def has_weights(self) -> bool:
        """Whether all safetensors files that the index names are in the folder."""
        if not (self.folder / INDEX).is_file():
            return any(self.folder.glob("*.safetensors"))
        return all((self.folder / name).is_file() for name in shards_of(self.folder))

    def fetch_weights(self) -> None:
        """Download the missing weights. Raises ModelError, also where the repository has only pickles; OutputError."""
        if self.has_weights():
            return
        _download(self.repository, self.commit, self.token, self.cache_dir, WEIGHTS)
        if missing := [name for name in sorted(shards_of(self.folder)) if not (self.folder / name).is_file()]:
            _download(self.repository, self.commit, self.token, self.cache_dir, missing, unwanted=())  # in subfolders
        if not self.has_weights():
            raise self._without_weights()

    @functools.cache  # noqa: B019 - one command asks about one model
    def known(self) -> Listing | None:
        """The hub's listing of this revision, requested once; None where the hub does not answer."""
        try:
            return self.listing()
        except DrupeError:
            return None

    def listing(self) -> Listing:
        """The hub's listing of this revision, by one request. Raises ModelError."""
        from huggingface_hub import HfApi

        with _explained(self.repository, self.commit, self.cache_dir):
            info = HfApi(token=self.token).model_info(
                self.repository, revision=self.commit, files_metadata=True, timeout=TIMEOUT
            )
        files = {each.rfilename: each.size or 0 for each in info.siblings or () if "/" not in each.rfilename}
        counts = getattr(info, "safetensors", None)
        return Listing(
            sum(size for name, size in files.items() if _is_weights(name)),
            counts.total if counts else None,
            tuple(sorted(name for name in files if name.endswith(PICKLES))),
        )

    def _without_weights(self) -> ModelError:
        found = self.listing()
        if found.weight_bytes:
            return ModelError(
                f"the download of {self.repository} is not complete", where=self.folder, cure="run the command again"
            )
        return no_safetensors(self.repository, found)


def find(repository: str, options: Mapping[str, Any]) -> Snapshot:
    """A revision of a hub repository. Small files that are not in the cache are downloaded. Raises ModelError.

    The weights of sentence-transformers' layers after pooling are small files, too.
    """
    token, cache_dir = options.get("token"), options.get("cache_dir")
    folder = _download(repository, options.get("revision"), token, cache_dir, SMALL)
    if missing := [name for name in module_weights(folder) if not (folder / name).is_file()]:
        _download(repository, folder.name, token, cache_dir, missing, unwanted=())
    return Snapshot(repository, folder, token, cache_dir)


def find_adapter(repository: str, options: Mapping[str, Any]) -> Path:
    """The folder with the newest adapter of a hub repository, which is downloaded. Raises ModelError."""
    return _download(repository, None, options.get("token"), options.get("cache_dir"), (CONFIG, ADAPTER_WEIGHTS))


def no_safetensors(repository: str, found: Listing) -> ModelError:
    """The error for a repository without weights that can be read."""
    if found.pickles:
        return ModelError(
            f"the weights of {repository} are pickles ({found.pickles[0]}), which drupe does not read: reading a "
            "pickle can run code",
            cure="load the model in transformers and call save_pretrained(FOLDER), or give a --revision with "
            "safetensors",
        )
    return ModelError(f"the hub repository {repository} has no safetensors files", cure=LOCAL_FOLDER)


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and not name.startswith("consolidated")


def _download(
    repository: str,
    revision: str | None,
    token: str | None,
    cache_dir: str | None,
    wanted: Sequence[str],
    unwanted: Sequence[str] = UNWANTED,
) -> Path:
    from huggingface_hub import snapshot_download

    with _explained(repository, revision, cache_dir):
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=list(wanted),
                ignore_patterns=list(unwanted),
            )
        )


@contextmanager
def _explained(repository: str, revision: str | None, cache_dir: str | None) -> Iterator[None]:
    """Turn the errors of the hub's client into errors that a user understands."""
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise ModelError(
            f"the hub repository {repository} can be read only by users who have accepted its terms",
            cure=f"accept them at {_page(repository)}, then run `hf auth login` or set HF_TOKEN",
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no repository {repository}, or it is private",
            cure="check the spelling; for a private repository run `hf auth login` or set HF_TOKEN",
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(
            f"the hub repository {repository} has no revision '{revision}'",
            cure=f"choose one from {_page(repository)}/tree/main",
        ) from error
    except hub.HFValidationError as error:
        raise ModelError(f"'{repository}' is not a hub id: {error}", cure=LOCAL_FOLDER) from error
    except Exception as error:
        explained = _disk_error(error, cache_dir) or _transport_error(error, repository)
        if explained is None:
            raise
        raise explained from error


def _disk_error(error: BaseException, cache_dir: str | None) -> DrupeError | None:
    """The error of a disk that is full or read-only, also where a library wrapped it, or Rust gave only a text."""
    from huggingface_hub import constants

    where = cache_dir or constants.HF_HUB_CACHE
    each: BaseException | None = error
    while each is not None:
        number = each.errno if isinstance(each, OSError) else None
        if number in FULL or "No space left on device" in str(each):
            return OutputError(
                "the disk is full",
                where=where,
                cure="free some room, or name a folder on another disk: --cache-dir or HF_HUB_CACHE",
            )
        if number in FORBIDDEN and isinstance(each, OSError) and each.filename:
            return OutputError(
                "no permission to write there", where=where, cure="name another folder: --cache-dir or HF_HUB_CACHE"
            )
        each = each.__cause__
    return None


def _transport_error(error: BaseException, repository: str) -> ModelError | None:
    """The error of a hub that cannot be reached. Its class depends on the HTTP library, and is not always OSError."""
    from huggingface_hub import errors as hub

    transport = type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
    if transport or isinstance(error, hub.HfHubHTTPError | hub.LocalEntryNotFoundError | OSError):
        return _unreachable(repository, error)
    return None


def _unreachable(repository: str, error: BaseException) -> ModelError:
    if _offline():
        return ModelError(
            f"there is no folder {repository} here, it is not in the local cache, and HF_HUB_OFFLINE forbids "
            "downloading it",
            cure=f"unset HF_HUB_OFFLINE, or {LOCAL_FOLDER}",
        )
    cause = error.__cause__ or error
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
    return ModelError(
        f"there is no folder {repository} here, it is not in the local cache, and downloading it from {_endpoint()} "
        f"failed: {reason}",
        cure=f"check the network, or {LOCAL_FOLDER}",
    )


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _page(repository: str) -> str:
    return f"{_endpoint()}/{repository}"
