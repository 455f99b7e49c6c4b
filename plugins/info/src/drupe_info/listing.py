"""`drupe passes`, `drupe providers` and `drupe plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from drupe.api import Claim, PassConfig, Recipe, Shape

Name = Annotated[str | None, typer.Argument(help="Show this one in full.")]


def passes(name: Name = None) -> None:
    """List passes, or show what one needs, gives and can be told."""
    from drupe.api import registry, table

    if name is None:
        table([_row(claim) for claim in registry().passes], ("pass", "brought by", "what it does"))
        return
    claim = registry().passes.claim(name)
    runner = claim.resolve()
    print(f"{name}: {claim.ref.summary}\n")
    table(
        [
            ("brought by", f"{claim.plugin.distribution} {claim.plugin.version}"),
            ("revision", str(runner.revision)),
            ("takes", _shape(runner.requires)),
            ("gives", _shape(runner.ensures)),
            ("cached", "yes" if runner.costly else "no, it only rewrites"),
        ]
    )
    print()
    table(_fields(runner.Config), ("key", "type", "default", "meaning"))


def providers(name: Name = None) -> None:
    """List execution providers, or show the recipes, devices and limits of one."""
    from drupe.api import registry, size, table

    if name is None:
        rows = []
        for claim in registry().sound_providers():
            devices = claim.resolve()().devices()
            rows.append((*_row(claim)[:2], devices[0].name if devices else "not here", claim.ref.summary))
        table(rows, ("provider", "brought by", "device", "what it is"))
        return
    provider = registry().provider(name)
    target = provider.target()
    device, limits = target.device, target.capabilities
    print(f"{provider.name}: {provider.summary}\n")
    table(
        [
            ("runtime's name", provider.runtime_name),
            ("also called", ", ".join(provider.aliases) or "-"),
            ("device", device.name if device else "not here"),
            ("free memory", size(device.memory) if device and device.memory else "-"),
            ("runtime", target.runtime_version or "not installed: " + provider.packages[0].install),
            (
                "table",
                f"{len(limits.operators)} operators, runtime {limits.runtime_versions}",
            ),
            ("activations", ", ".join(limits.activations)),
        ]
    )
    print()
    recipes = [
        (each.precision, " > ".join(step.name for step in each.steps), each.summary) for each in provider.recipes()
    ]
    table(recipes, ("precision", "passes", "what it makes"))


def plugins() -> None:
    """List plugins; for one that is not in use, say why, and what mends it."""
    from drupe.api import registry, table

    table(
        [
            (
                each.name,
                f"{each.distribution} {each.version}",
                f"not in use: {each.reason}" if each.reason else "in use",
            )
            for each in registry().plugins
        ],
        ("plugin", "distribution", "state"),
    )
    for each in registry().broken:
        print(f"\nto mend {each.name}: {each.cure}")


def _row(claim: Claim[Any]) -> tuple[str, str, str]:
    return claim.ref.name, f"{claim.plugin.distribution} {claim.plugin.version}", claim.ref.summary


def _recipe(recipe: Recipe) -> tuple[str, str, str]:
    return recipe.precision, " > ".join(step.name for step in recipe.steps), recipe.summary


def _fields(config: type[PassConfig]) -> list[tuple[str, str, str, str]]:
    return [
        (key, _type(field.annotation), repr(field.default), field.description or "")
        for key, field in config.model_fields.items()
    ]


def _shape(shape: Shape) -> str:
    facts = ", ".join(f"{fact} = {value}" for fact, value in shape.facts.items())
    return f"{shape.kind} ({facts})" if facts else shape.kind


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return text.replace("typing.", "").replace("NoneType", "None")
