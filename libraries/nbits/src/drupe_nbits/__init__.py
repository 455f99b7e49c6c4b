"""Matrices of weights in a graph: finding them, what a target supports, and turning them into blocks of n bits.

Each public name is loaded when it is first used: recipes of execution providers import `ladder`, and that is light.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
