"""Drupe turns a trained model into the smallest, fastest one its target can run while a stated quality holds.

import drupe

drupe.optimize("path/to/checkpoint", output="package", precision="int4")
print(drupe.open("package").generate("def parse("))
"""

TYPE_CHECKING = False  # as in typing, whose import would come before `drupe.__main__` can answer Ctrl-C
if TYPE_CHECKING:
    from drupe.jobs import evaluate, optimize, plan, run
    from drupe.opening import open

__all__ = ["evaluate", "open", "optimize", "plan", "run"]


def __getattr__(name: str) -> object:
    """A job, imported when it is first asked for: whoever imports `drupe` for its plugins' sake waits for none."""
    if name not in __all__:
        raise AttributeError(f"module 'drupe' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module("drupe.opening" if name == "open" else "drupe.jobs"), name)
