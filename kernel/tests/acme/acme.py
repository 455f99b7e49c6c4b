"""What acme_plugin points at."""

import hashlib
import json
import os
import time
from pathlib import Path

from drupe.api import (
    CheckFailed,
    Device,
    ExecutionProvider,
    ModelError,
    ModelKind,
    Pass,
    PassConfig,
    Recipe,
    Runtime,
    RuntimePackage,
    Session,
    Shape,
    Step,
)

TABLE = Path(__file__).with_name("paper.json")
TABLE.write_text(json.dumps({"runtime_versions": ">=0", "activations": ["ink"], "operators": {}}))


class TextKind(ModelKind):
    name = "text"

    def load(self, model):
        return model.but(payload=(model.location / "model.txt").read_text()) if model.payload is None else model

    def save(self, model, folder, context):
        with context.progress.task("writing", len(model.payload)) as progress:
            (folder / "model.txt").write_text(model.payload[:5])
            time.sleep(float(os.environ.get("ACME_SLEEP", "0")))
            (folder / "model.txt").write_text(model.payload)
            progress.advance(len(model.payload))
        return {}

    def fingerprint(self, model, thorough=True):
        return hashlib.sha256((model.location / "model.txt").read_bytes()).hexdigest()

    def check(self, model, target):
        return ["no ink for 'x'"] if "x" in model.payload else []


class SignConfig(PassConfig):
    by: str = "anonymous"


class Sign(Pass):
    name = "sign"
    summary = "adds a signature"
    Config = SignConfig
    requires = Shape("text", {"signed": "no"})
    ensures = Shape("text", {"signed": "yes"})

    def run(self, model, config, context):
        if "nameless" in model.payload:
            raise ModelError("nobody signs that")
        return model.but(payload=f"{model.payload} -- {config.by}")


class Shout(Pass):
    name = "shout"
    summary = "makes it loud"
    requires = ensures = Shape("text")
    costly = True

    def preview(self, model, config, context):
        return model

    def run(self, model, config, context):
        with Path(os.environ["ACME_LOG"]).open("a") as log:
            log.write("shout ran\n")
        if "fail" in model.payload:
            raise ZeroDivisionError("a mistake in a plugin")
        return model.but(payload=model.payload.upper())


class Capitals(Shout):
    """Says nothing of what it makes before it is made."""

    name = "capitals"
    summary = "makes it loud, and tells nobody"
    preview = Pass.preview


class Paper(ExecutionProvider):
    name = "paper"
    summary = "a sheet of paper"
    runtime_name = "PaperExecutionProvider"
    aliases = ("sheet",)
    device_kind = "npu"
    versioned_by = ("acme",)
    packages = (RuntimePackage("echo", "pip install acme"),)
    tables = (TABLE,)

    def recipes(self):
        by = {"by": "all_logits"}
        return [
            Recipe("plain", "plain", (Step("sign", options=by),)),
            Recipe("loud", "loud", (Step("shout"), Step("sign"))),
            Recipe("secret", "secret", (Step("capitals"), Step("sign"))),
            Recipe("twice", "twice", (Step("sign"), Step("sign"))),
            Recipe("odd", "odd", (Step("sign", {"bye": "me"}),)),
        ]

    def devices(self):
        return [Device("A4", "npu", 10_000)]


class Echo(Runtime):
    name = "echo"
    distributions = ("acme",)

    def refusal(self, model, target):
        return None if model.kind == "text" else "echo reads texts"

    def open(self, model, target, *, max_length=None):
        return EchoSession((model.location / "model.txt").read_text())


class EchoSession(Session):
    def __init__(self, text):
        if "mute" in text:
            raise CheckFailed("nothing is heard")
        self.text = text

    def stream(self, prompt, generation=None):
        yield from (prompt, " ", self.text)

    def close(self):
        pass


def greet(name: str = "you") -> None:
    """Say hello."""
    print(f"hello {name}")
