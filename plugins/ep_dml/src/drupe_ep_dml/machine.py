"""The DirectX adapters of this machine, as DXGI lists them."""

from __future__ import annotations

import ctypes
import itertools
import sys
import uuid
from collections.abc import Iterator
from typing import Any

_FACTORY = uuid.UUID("770aae78-f26f-4dba-a829-253c83d1b387")
"""The interface IDXGIFactory1."""
_RELEASE = 2
"""Places in an interface's table of methods. IUnknown has places 0 to 2, IDXGIObject 3 to 6."""
_ENUM_ADAPTERS1 = 12
"""In IDXGIFactory1, after IDXGIFactory's 7 to 11."""
_GET_DESC1 = 10
"""In IDXGIAdapter1, after IDXGIAdapter's 7 to 9."""
_SOFTWARE = 2
"""DXGI_ADAPTER_FLAG_SOFTWARE: Windows' software renderer, which is not a GPU."""


class AdapterDescription(ctypes.Structure):
    """DXGI_ADAPTER_DESC1; memory sizes are in bytes."""

    _fields_ = (
        ("name", ctypes.c_uint16 * 128),
        *((number, ctypes.c_uint32) for number in ("vendor", "device", "subsystem", "revision")),
        *((memory, ctypes.c_size_t) for memory in ("dedicated_video", "dedicated_system", "shared_system")),
        ("luid", ctypes.c_uint32 * 2),
        ("flags", ctypes.c_uint32),
    )

    def text(self) -> str:
        return bytes(self.name).decode("utf-16-le", errors="replace").split("\0")[0]


def adapters() -> list[tuple[str, int | None]]:
    """Name and bytes of memory of each GPU, in the order of Windows and DirectML; empty on other systems."""
    if sys.platform != "win32":
        return []
    try:
        factory = _factory()
    except OSError:
        return []
    return [
        (found.text(), found.dedicated_video or found.shared_system or None)
        for found in described(factory)
        if not found.flags & _SOFTWARE
    ]


def _factory() -> ctypes.c_void_p:
    """A new IDXGIFactory1; OSError where the system has none."""
    factory = ctypes.c_void_p()
    identifier = (ctypes.c_uint8 * 16).from_buffer_copy(_FACTORY.bytes_le)
    if ctypes.CDLL("dxgi").CreateDXGIFactory1(identifier, ctypes.byref(factory)) < 0:
        raise OSError("the system has no IDXGIFactory1")
    return factory


def described(factory: ctypes.c_void_p) -> Iterator[AdapterDescription]:
    """The description of each adapter of an IDXGIFactory1. The factory is released."""
    adapter = ctypes.c_void_p()
    for index in itertools.count():
        if _call(factory, _ENUM_ADAPTERS1, ctypes.c_uint32(index), ctypes.pointer(adapter)) < 0:
            break
        description = AdapterDescription()
        if _call(adapter, _GET_DESC1, ctypes.pointer(description)) >= 0:
            yield description
        _call(adapter, _RELEASE)
    _call(factory, _RELEASE)


def _call(interface: ctypes.c_void_p, place: int, *arguments: Any) -> int:
    """Call the method at a place of the interface's table; returns an HRESULT, which is negative for a failure.

    The runtime's wheels are for 64-bit Windows, which has only the C calling convention.
    """
    methods = ctypes.cast(interface, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *(type(argument) for argument in arguments))
    return int(prototype(methods[place] or 0)(interface, *arguments))
