"""The error of a model that needs a newer version of its target's runtime."""

from drupe.api import Unfit


class OldRuntime(Unfit):
    """A model that the installed runtime of its target would not run, and the newest would.

    cure: the command that updates the runtime.
    """
