"""A session of Ray: connected to a cluster, or started on this machine, and ended however the search ends."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from drupe.api import RuntimeMissing, UsageError, usable_threads
from drupe_files import scratch

OBJECTS = 80 * 2**20
"""Bytes for Ray's objects where it is started here. Tasks and results are texts of some kilobytes."""
LONGEST = 40
"""Characters that the path of Ray's own folder may have: the paths of its sockets are longer, and are limited."""


@contextmanager
def connected(address: str) -> Iterator[tuple[Any, int | None]]:
    """Ray's module, and the processors of this machine where Ray was started here.

    Raises RuntimeMissing where Ray cannot be imported, UsageError for an address at which there is no cluster.
    """
    own = {} if address else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with _environment({"RAY_USAGE_STATS_ENABLED": "0", **own}):
        try:
            import ray
        except ImportError as error:
            raise RuntimeMissing(f"Ray cannot be imported: {error}", cure="pip install 'drupe[ray]'") from error
        with nullcontext() if address else _own_folder() as folder:
            try:
                with _kept_signals():
                    if folder is None:
                        _connect(ray, address)
                    else:
                        _start(ray, folder)
                yield ray, None if address else usable_threads()
            finally:
                ray.shutdown()


def _own_folder() -> AbstractContextManager[Path]:
    """The folder of a Ray that is started here. Those of killed runs are removed."""
    short = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST else "/tmp"
    return scratch("ray", Path(short))


def _start(ray: Any, folder: Path) -> None:
    """Start Ray on this machine."""
    ray.init(
        num_cpus=usable_threads(), include_dashboard=False, object_store_memory=OBJECTS, _temp_dir=str(folder), **_QUIET
    )


def _connect(ray: Any, address: str) -> None:
    try:
        _refuse_silent(address)
        ray.init(address=address, **_QUIET)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        ray.shutdown()
        raise UsageError(
            f"there is no Ray cluster to connect to: {str(error).partition(chr(10))[0]}",
            where=address,
            cure="`ray start --head` starts one; `--address auto` finds one on this machine",
        ) from error


def _refuse_silent(address: str) -> None:
    """Raise OSError where nothing answers: Ray would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()


ANSWERS = 10.0
"""Seconds in which a cluster has to answer."""
_QUIET = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment that are not set, for this process and those that it starts."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    if "RAY_AUTH_MODE" not in added:
        added.pop("RAY_AUTH_TOKEN", None)  # the user has chosen how Ray's processes know each other
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Put back what handles the signals that Ray handles when it is started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
