"""What is wanted in place of a value of a file, in the words of who writes the file and not of pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import one_line

WANTED = {
    "model_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "a text",
    "path_type": "a path",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""By the type of pydantic's error."""
AS_IN_FILES = {"None": "null", "True": "true", "False": "false"}


def wanted_in_place(error: Mapping[str, Any], either: str = "") -> str:
    """What is wrong with a value, in a sentence. error: of pydantic's list. either: what else the place takes."""
    shown = one_line(error["input"])
    wanted = WANTED.get(error["type"])
    if wanted is None:
        limit = error["msg"].replace("Input should be", "it must be")
        return f"{AS_IN_FILES.get(shown, shown)} does not fit: {limit}"
    return f"{AS_IN_FILES.get(shown, shown)} does not fit: {either}{wanted} is wanted"
