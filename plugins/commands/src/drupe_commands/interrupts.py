"""Ctrl-C and polite kills, also where a library swallows the KeyboardInterrupt that they raise.

Python raises it wherever the program happens to be. A destructor, or a library that catches everything while it is
imported, loses it, and the command would go on to its end. Therefore it is raised again until a command ends, as long
as no code is clearing up because of it.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

POLITE = ("SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that end a run as Ctrl-C does, so that it cleans up behind itself. Not every system has them all."""
AGAIN = 0.5  # seconds until it is raised again

_pending = False


def listen() -> None:
    """Answer Ctrl-C, unless the process was started to ignore it, and polite kills."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for number in (getattr(signal, name) for name in POLITE if hasattr(signal, name)):
        signal.signal(number, _interrupt)


def pending() -> bool:
    """Whether the user wants to stop, and no code has answered that yet."""
    return _pending


def answered() -> None:
    """Say that Ctrl-C has been answered: the command has ended, or goes on as the user wants."""
    global _pending
    _pending = False
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)  # while Python ends, nothing handles the alarm, which would kill it


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = True
    _remember()
    raise KeyboardInterrupt


def _remember() -> None:
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, _remind)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _remind(number: int, frame: FrameType | None) -> None:
    """Raise it again, where it was lost."""
    if not _pending:
        return
    _remember()
    if not _clears_up(sys.exc_info()[1]):
        raise KeyboardInterrupt


def _clears_up(handled: BaseException | None) -> bool:
    """Whether the exception that is being handled is the KeyboardInterrupt, or came of it."""
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    return handled is not None
