"""A complete plugin of a third party: it implements every hook and brings everything that a plugin can bring."""

from drupe.api import NATIVE, Claim, Fact, Option, Ref, Step, hookimpl


@hookimpl
def drupe_model_kinds():
    return [
        Ref("text", "acme:TextKind", "a text file"),
        Ref("draft", "acme:DraftKind", "a text that is not ready to be read"),
        Ref("duet", "acme:DuetKind", "a text for two voices"),
    ]


@hookimpl
def drupe_facts():
    return [
        Fact("signed", ("no", "yes"), "whether somebody has signed it", "no"),
        Fact("ink", ("black", "blue", "red"), "what it is written with"),
    ]


@hookimpl
def drupe_options():
    return [
        Option("author", "Who signs it.", group="Acme"),
        Option("volume", "How loud it gets.", choices=("soft", "loud"), group="Acme", needs="--precision paper-int4"),
        Option("longest", "How long a text may be.", type=int, group="Acme"),
        Option("postscript", "What stands below it.", group="Acme"),
        Option("page", "Where to look for it.", source=True, group="Acme"),
        Option("password", "What it is locked with.", source=True, secret=True, environment="ACME_PASSWORD"),
    ]


@hookimpl
def drupe_tasks():
    return [Ref("echoing", "acme:Echoing", "gives back what it is told")]


@hookimpl
def drupe_passes():
    return [
        Ref("sign", "acme:Sign", "adds a signature"),
        Ref("shout", "acme:Shout", "makes it loud, at great cost"),
        Ref("capitals", "acme:Capitals", "makes it loud, and tells nobody"),
        Ref("write", "acme:Write", "makes a text of a draft"),
        Ref("dip", "acme:Dip", "takes another ink"),
        Ref("blot", "acme:Blot", "dries the ink"),
        Ref("sing", "acme:Sing", "sings each voice"),
        Ref("bind", "acme:Bind", "makes one text of two voices"),
    ]


@hookimpl
def drupe_execution_providers():
    return [Ref("paper", "acme:Paper", "a sheet of paper", ("PaperExecutionProvider", "sheet"), device="npu")]


@hookimpl
def drupe_runtimes():
    return [Ref("echo", "acme:Echo", "reads a text out")]


@hookimpl
def drupe_evaluators():
    return [Ref("length", "acme:Length", "how long a text is")]


@hookimpl
def drupe_verifiers():
    return [Ref("reader", "acme:Reader", "reads a package, and compares it with its source")]


@hookimpl
def drupe_commands():
    return [Ref("greet", "acme:greet", "Say hello.")]


@hookimpl
def drupe_resolve_model(reference, options):
    from pathlib import Path

    from drupe.api import Model

    folder = Path(reference) / options.get("page", "")
    if (folder / "model.txt").is_file():
        return Model.single("text", folder, {"signed": "no"}, task="echoing")
    if (folder / "draft.txt").is_file():
        return Model.single("draft", folder, {}, task="echoing")
    if (folder / "low.txt").is_file():
        return Model("duet", folder, {"low": {"ink": "black"}, "high": {"ink": "blue"}}, task="singing")
    return None


@hookimpl
def drupe_claim(stage, model, target, request):
    if stage.name == "import":
        return Claim("writer", (Step("write"),), NATIVE) if model.kind == "draft" else Claim("reader", ())
    if stage.name == "quantize" and model.kind == "text":
        loud = request.options.get("volume") == "loud"
        return Claim("voice", (Step("shout"),) if loud else (), reads=("volume",))
    return None


@hookimpl
def drupe_amend_plan(plan, request):
    if "postscript" not in request.options:
        return None
    last = {"name": "sign", "config": {"by": request.options["postscript"]}}
    return plan.but(passes=[*plan.passes, last])


@hookimpl
def drupe_observe(event):
    import json
    import os
    from pathlib import Path

    fields = {"name": event.name, "subject": event.subject, "run": event.run, "parent": event.parent}
    with Path(os.environ["ACME_EVENTS"]).open("a") as log:
        log.write(json.dumps(fields) + "\n")
