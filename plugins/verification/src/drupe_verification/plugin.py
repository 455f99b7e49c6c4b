"""The entry module of drupe-verification: the verifier `child-process`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_verifiers() -> list[Ref]:
    return [
        Ref(
            "child-process",
            "drupe_verification.verifier:InChildProcess",
            "tries a package in a separate process, and compares it with its source",
        )
    ]
