"""`drupe passes`, `drupe providers` and `drupe plugins`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe_info.showing import AsJson, print_facts, print_json, print_records

if TYPE_CHECKING:
    from drupe.api import Claim, ExecutionProvider, Pass, PassConfig, Shape

Name = Annotated[str | None, typer.Argument(help="Show this one in full.")]


def passes(name: Name = None, as_json: AsJson = False) -> None:
    """List passes, or show what one needs, gives and can be told."""
    from drupe.api import registry

    if name is not None:
        claim = registry().passes.claim(name)
        _show_one(name, claim.ref.summary, _about_pass(claim), "configuration", _keys(claim.resolve().Config), as_json)
        return
    records = [
        {"pass": claim.ref.name, "brought by": _brought_by(claim), "what it does": claim.ref.summary}
        for claim in registry().passes
    ]
    (print_json if as_json else print_records)(records)


def providers(name: Name = None, as_json: AsJson = False) -> None:
    """List execution providers, or show the recipes, devices and limits of one."""
    from drupe.api import registry

    if name is not None:
        provider = registry().provider(name)
        _show_one(provider.name, provider.summary, _about_provider(provider), "recipes", _recipes(provider), as_json)
        return
    records = [_listed(name) for name in sorted(registry().providers.claims)]
    (print_json if as_json else print_records)(records)


def plugins(as_json: AsJson = False) -> None:
    """List plugins; for one that is not in use, say why, and what mends it."""
    from drupe.api import registry

    if as_json:
        print_json([{**asdict(each), "in use": not each.reason} for each in registry().plugins])
        return
    records = [
        {
            "plugin": each.name,
            "distribution": f"{each.distribution} {each.version}",
            "state": f"not in use: {each.reason}" if each.reason else "in use",
        }
        for each in registry().plugins
    ]
    print_records(records)
    for each in registry().broken:
        print(f"\nto mend {each.name}: {each.cure}")


def _show_one(
    name: str, summary: str, facts: dict[str, Any], label: str, records: list[dict[str, Any]], as_json: bool
) -> None:
    """Something in full: its facts, and the records that it has under `label`."""
    if as_json:
        print_json({"name": name, "summary": summary, **facts, label: records})
        return
    print(f"{name}: {summary}\n")
    print_facts(facts)
    print()
    print_records(records)


def _about_pass(claim: Claim[Pass]) -> dict[str, Any]:
    runner = claim.resolve()
    return {
        "brought by": _brought_by(claim),
        "revision": runner.revision,
        "takes": _shape(runner.requires),
        "gives": _shape(runner.ensures),
        "cached": runner.costly,
    }


def _keys(config: type[PassConfig]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "type": _type(field.annotation),
            "default": None if field.is_required() else field.default,
            "meaning": field.description or "",
        }
        for key, field in config.model_fields.items()
    ]


def _listed(name: str) -> dict[str, Any]:
    """A provider in a line; for one that cannot be used, why."""
    from drupe.api import PluginError, registry

    providers = registry().providers
    try:
        claim = providers.claim(name)
        device, about = next((device.name for device in claim.resolve()().devices()), None), claim.ref.summary
    except PluginError as error:
        device, about = None, f"cannot be used: {error.what}; {error.cure}"
    brought_by = " and ".join(map(_brought_by, providers.claims[name]))
    return {"provider": name, "brought by": brought_by, "device": device, "what it is": about}


def _about_provider(provider: ExecutionProvider) -> dict[str, Any]:
    target = provider.target()
    limits = target.capabilities
    return {
        "runtime name": provider.runtime_name,
        "also called": list(provider.aliases),
        "device": target.device.name if target.device else None,
        "free memory": target.device.memory if target.device else None,
        "runtime": target.runtime_version or None,
        "installed by": provider.packages[0].install,
        "operators": len(limits.operators),
        "table for runtimes": limits.runtime_versions,
        "activations": list(limits.activations),
    }


def _recipes(provider: ExecutionProvider) -> list[dict[str, Any]]:
    return [
        {
            "precision": recipe.precision,
            "passes": " > ".join(step.name for step in recipe.steps if step.applies({})),
            "what it makes": recipe.summary,
        }
        for recipe in provider.recipes()
    ]


def _brought_by(claim: Claim[Any]) -> str:
    return f"{claim.plugin.distribution} {claim.plugin.version}"


def _shape(shape: Shape) -> str:
    facts = ", ".join(f"{fact} = {value}" for fact, value in shape.facts.items())
    return f"{shape.kind} ({facts})" if facts else shape.kind


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text.replace("typing.", "").replace("NoneType", "None")
