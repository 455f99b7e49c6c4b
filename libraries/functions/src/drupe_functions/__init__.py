"""drupe-functions: functions of a user's own files, as evaluators."""

from drupe_functions.naming import divided, know

__all__ = ["divided", "know"]
