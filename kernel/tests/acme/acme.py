"""The classes and functions that acme_plugin registers."""

import hashlib
import os
import time
from pathlib import Path
from typing import ClassVar, Literal

from drupe.api import (
    Check,
    CheckFailed,
    Device,
    Evaluator,
    EvaluatorConfig,
    ExecutionProvider,
    Form,
    InProcess,
    Job,
    Metric,
    ModelError,
    ModelKind,
    Observers,
    Pass,
    PassConfig,
    PlannedCheck,
    Recipe,
    Request,
    Runtime,
    RuntimeMissing,
    RuntimePackage,
    Session,
    Stage,
    Step,
    Task,
    Verifier,
    evaluator_of,
    new_id,
    registry,
    resolve,
    runtime_for,
    target_of,
)
from drupe_files import scratch


class TextKind(ModelKind):
    name = "text"
    runnable = True

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


class DraftKind(TextKind):
    name = "draft"
    runnable = False

    def load(self, model):
        return model.but(payload=(model.location / "draft.txt").read_text()) if model.payload is None else model

    def save(self, model, folder, context):
        (folder / "draft.txt").write_text(model.payload)
        return {}

    def fingerprint(self, model, thorough=True):
        return hashlib.sha256((model.location / "draft.txt").read_bytes()).hexdigest()


class DuetKind(ModelKind):
    """The payload has a list of words for each voice, which a pass may change in place."""

    name = "duet"

    def load(self, model):
        if model.payload is not None:
            return model
        return model.but(payload={role: (model.location / f"{role}.txt").read_text().split() for role in model.parts})

    def save(self, model, folder, context):
        for role, words in model.payload.items():
            (folder / f"{role}.txt").write_text(" ".join(words))
        return {}

    def fork(self, model):
        return model.but(payload={role: list(words) for role, words in model.payload.items()})

    def fingerprint(self, model, thorough=True):
        return hashlib.sha256(repr(self.load(model).payload).encode()).hexdigest()

    def split(self, model):
        return {
            role: model.but(parts={role: facts}, payload={role: model.payload[role]})
            for role, facts in model.parts.items()
        }

    def join(self, model, parts):
        facts = {role: part.parts[role] for role, part in parts.items()}
        return model.but(parts=facts, payload={role: part.payload[role] for role, part in parts.items()})


class SignConfig(PassConfig):
    by: str = "anonymous"


class Sign(Pass):
    name = "sign"
    summary = "adds a signature"
    Config = SignConfig
    requires = Form("text", {"signed": "no"})
    ensures = Form("text", {"signed": "yes"})

    def run(self, model, config, context):
        if "nameless" in model.payload:
            raise ModelError("nobody signs that")
        return model.but(payload=f"{model.payload} -- {config.by}")


class Shout(Pass):
    name = "shout"
    summary = "makes it loud"
    requires = ensures = Form("text")
    costly = True

    def preview(self, model, config, context):
        return model

    def run(self, model, config, context):
        with Path(os.environ["ACME_LOG"]).open("a") as log:
            log.write("shout ran\n")
        if "fail" in model.payload:
            raise ZeroDivisionError("a mistake in a plugin")
        while "wait" in model.payload:
            context.stop_if_cancelled()
            time.sleep(0.01)
        return model.but(payload=model.payload.upper())


class Capitals(Shout):
    """Has no preview: what it makes is known only after it has run."""

    name = "capitals"
    summary = "makes it loud, and tells nobody"
    preview = Pass.preview


class Write(Pass):
    name = "write"
    summary = "makes a text of a draft"
    requires = Form("draft")
    ensures = Form("text", {"signed": "no"})

    def run(self, model, config, context):
        return model.but(kind="text", payload=model.payload.strip())


class DipConfig(PassConfig):
    ink: Literal["black"] = "black"


class Dip(Pass):
    name = "dip"
    summary = "takes another ink"
    Config = DipConfig
    requires = Form("text")
    ensures = Form("text", {"ink": "black"})

    def run(self, model, config, context):
        return model


class Blot(Pass):
    name = "blot"
    summary = "dries the ink"
    requires = Form("text", {"ink": ("black", "blue")})
    ensures = Form("text")

    def run(self, model, config, context):
        return model


class Sing(Pass):
    name = "sing"
    summary = "sings each voice"
    requires = Form("duet", {"signed": "no"})
    ensures = Form("duet", {"signed": "yes"})

    def run(self, model, config, context):
        ((_, words),) = model.payload.items()
        words.append("la")  # in place: the pass owns its copy of the payload
        return model


class Bind(Pass):
    name = "bind"
    summary = "makes one text of two voices"
    requires = Form("duet")
    ensures = Form("text")
    whole = True

    def run(self, model, config, context):
        text = " / ".join(" ".join(words) for words in model.payload.values())
        return model.but(kind="text", parts={"model": {"signed": "no"}}, payload=text)


class Paper(ExecutionProvider):
    name = "paper"
    summary = "a sheet of paper"
    runtime_name = "PaperExecutionProvider"
    packages = (RuntimePackage("echo", "pip install acme"),)

    def recipes(self):
        by = {"by": "author"}
        return [
            Recipe("paper-int4", "int4", (Stage("import"), Stage("fuse"), Stage("quantize"), Stage("package"))),
            Recipe("paper-fp32", "fp32", (Stage("import"),)),
            Recipe("plain", "plain", (Step("sign", options=by),)),
            Recipe("loud", "loud", (Step("shout"), Step("sign"))),
            Recipe("secret", "secret", (Step("capitals"), Step("sign"))),
            Recipe("twice", "twice", (Step("sign"), Step("sign"))),
            Recipe("odd", "odd", (Step("sign", {"bye": "me"}),)),
            Recipe("bound", "bound", (Step("sing", parts=("high",)), Step("bind"))),
        ]

    def devices(self):
        return [Device("A4", "npu", 10_000)]


class Echo(Runtime):
    name = "echo"
    distributions = ("acme",)

    def refusal(self, model, target):
        return None if model.kind == "text" else "echo reads texts"

    def open(self, model, target, *, max_length=None, threads=0):
        return EchoSession((model.location / "model.txt").read_text())


class EchoSession(Session):
    def __init__(self, text):
        if "mute" in text:
            raise CheckFailed("nothing is heard")
        self.text = text

    def echo(self, prompt):
        return f"{prompt} {self.text}"

    def close(self):
        pass


def greet(name: str = "you") -> None:
    """Say hello."""
    print(f"hello {name}")


class Echoing(Task):
    name = "echoing"
    summary = "gives back what it is told"
    evaluator = "length"
    offers: ClassVar = {"echo": "gives back a text"}

    def samples(self, model, target, seed=0):
        return {"model": {"text": "hello"}}

    def check(self, session, model):
        return session.echo("hello")


class LengthConfig(EvaluatorConfig):
    limit: int | None = None


class Length(Evaluator):
    name = "length"
    summary = "how long a text is"
    Config = LengthConfig
    options: ClassVar = {"limit": "longest"}
    verifying: ClassVar = {"limit": 100_000}

    def evaluate(self, model, reference, config, context):
        length = len((model.location / "model.txt").read_text())
        if config.limit is not None and length > config.limit:
            raise CheckFailed(f"it has {length} characters")
        source = None if reference is None else reference.payload or (reference.location / "model.txt").read_text()
        longer = [] if source is None else [Metric("longer", length - len(source), "characters", "lower")]
        return [Metric("length", length, "characters", "lower"), *longer]


class Reader(Verifier):
    """Checks packages in this process. Making a reference is a run whose events name the run that it belongs to."""

    name = "reader"

    def plan(self, source, request):
        evaluator = evaluator_of(request.evaluator, source.task, registry())
        if not request.verify or evaluator is None:
            return PlannedCheck(run=request.verify, required=request.require_check), ("longest",)
        asked = {key: request.options[name] for key, name in evaluator.options.items() if name in request.options}
        config = {**evaluator.verifying, **asked}
        return PlannedCheck(required=request.require_check, evaluator=evaluator.name, config=config), ("longest",)

    def check(self, package, job, target):
        found = registry()
        if package.task not in found.tasks:
            return Check(not_run=f"nobody knows the task '{package.task}'")
        try:
            runtime = runtime_for(package, target, found.provider(target.provider), found)
        except RuntimeMissing as missing:
            return Check(not_run=missing.what)
        with runtime.open(package, target) as session:
            text = found.tasks.make(package.task).check(session, package)
        planned = job.plan.check
        if planned.evaluator is None:
            return Check(runtime.name, text=text, not_compared="nothing compares it")
        evaluator = found.evaluators.make(planned.evaluator)
        with scratch() as folder:
            reference = self._reference(job, folder, found) if job.source.kind != package.kind else job.source
            metrics = evaluator.evaluate(package, reference, evaluator.Config(**planned.config), None)
        values = {each.name: each.value for each in metrics}
        return Check(runtime.name, text=text, metrics=values, units={each.name: each.unit for each in metrics})

    def _reference(self, job, folder, found):
        provider = found.provider("paper")
        request = Request("it", precision="fp32")
        plan = found.planner().compose(request, job.source, provider, target_of(provider, found))
        return InProcess().run(Job(plan, job.source, new_id(), folder, parent=job.id, emit=Observers(found)))

    def evaluate(self, package, against=None, *, evaluator=None, config=None, provider=None, progress=None):
        found = registry()
        measured = found.evaluators.make(evaluator or "length")
        reference = None if against is None else resolve(str(against), {}, found)
        return tuple(measured.evaluate(resolve(package, {}, found), reference, measured.Config(**config or {}), None))
