"""Writes the operator tables of the execution provider plugins: what a runtime registers, plus what it does not tell.

A table comes from one of two lists of kernels:

- the installed onnxruntime's own (`registered`), for the providers that it was built with;
- onnxruntime's page docs/OperatorKernels.md (`documented`), for a provider that cannot be installed where this runs.

Neither tells all: a kernel may take a type and still refuse an attribute when it runs. A plugin's `amendments/` hold
what was found by running graphs or reading documents, each entry with its reason. There is one file for each range of
runtime versions, and a table of the same name is made of it::

    python tools/operator_tables.py cpu
    python tools/operator_tables.py dml --documented OperatorKernels.md --version 1.24.4
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "dml": "DmlExecutionProvider"}
DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
"""The domains that a model may use; the others are for the runtime's own layout transformations."""

OPEN = 2**31 - 1
"""How the runtime writes a range of versions without an end."""

Types = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Schema:
    """One version of an operator: the type parameter, or the one type, at each position."""

    since: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """One kernel, for the operator versions `since` to `until`; after `spans`, for such versions of the opset."""

    since: int
    until: int
    types: Types


Kernels = Mapping[str, Sequence[Kernel]]
Schemas = Mapping[str, Sequence[Schema]]


def key(domain: str, name: str) -> str:
    """The name of an operator in a table."""
    domain = "" if domain == "ai.onnx" else domain
    return f"{domain}::{name}" if domain else name


def element(text: str) -> str:
    """ "tensor(float)" as "float32", "seq(tensor(double))" as "seq(float64)"."""
    text = re.sub(r"tensor\(([^()]*)\)", r"\1", text)
    return re.sub(r"\b(float|double)\b", lambda found: {"float": "float32", "double": "float64"}[found[0]], text)


def registered(provider: str) -> Kernels:
    """The kernels that the installed onnxruntime has for a provider."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    kernels: dict[str, list[Kernel]] = defaultdict(list)
    for each in get_all_opkernel_def():
        if each.provider == provider and each.domain in DOMAINS:
            types = {name: frozenset(map(element, types)) for name, types in each.type_constraints.items()}
            since, until = each.version_range
            kernels[key(each.domain, each.op_name)].append(Kernel(since, until, types))
    return kernels


def documented(page: Path, provider: str) -> Kernels:
    """The kernels that docs/OperatorKernels.md lists for a provider."""
    section = page.read_text(encoding="utf-8").split(f"## Operators implemented by {provider}")[1]
    kernels: dict[str, list[Kernel]] = defaultdict(list)
    domain = name = ""
    for line in itertools.takewhile(lambda line: not line.startswith("## "), section.splitlines()):
        if found := re.search(r"Operator Domain:\*\* \*(.*?)\*", line):
            domain = found[1]
        elif found := re.match(r"\|(\w*)\|.*?\|(\d+\+|\d+|\[\d+, \d+\])\|(.*)\|$", line):
            name = found[1] or name
            numbers = [int(number) for number in re.findall(r"\d+", found[2])]
            types = {
                parameter: frozenset(map(element, types.split(", ")))
                for parameter, types in re.findall(r"\*\*(\w+)\*\* = ([^<|]*\S)\s*(?:<br/>|$)", found[3])
            }
            until = OPEN if found[2].endswith("+") else numbers[-1]
            kernels[key(domain, name)].append(Kernel(numbers[0], until, types))
    return kernels


def schemas() -> Schemas:
    """Every version of every operator that the installed onnxruntime knows, the oldest first."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    found: dict[str, list[Schema]] = defaultdict(list)
    for each in get_all_operator_schema():
        inputs, outputs = ([element(value.typeStr) for value in side] for side in (each.inputs, each.outputs))
        found[key(each.domain, each.name)].append(Schema(each.since_version, tuple(inputs), tuple(outputs)))
    return {name: sorted(versions, key=lambda schema: schema.since) for name, versions in found.items()}


def spans(kernel: Kernel, versions: Sequence[Schema]) -> Iterator[Kernel]:
    """The kernel for each operator version that the runtime takes it for, as a range of opset versions.

    A kernel without an end serves only the version of the operator that it begins with: the runtime cannot know that it
    fits a later one.
    """
    newest = versions[-1]
    for schema, following in itertools.zip_longest(versions, [each.since for each in versions[1:]]):
        if schema.since == kernel.since or kernel.since < schema.since <= kernel.until < OPEN:
            until = following - 1 if following else OPEN
            yield Kernel(schema.since, until, _renamed(kernel.types, schema, newest))


def _renamed(types: Types, schema: Schema, newest: Schema) -> Types:
    """Types under the parameter names of the operator's newest version, position by position."""
    renamed: dict[str, frozenset[str]] = {}
    for old, new in ((schema.inputs, newest.inputs), (schema.outputs, newest.outputs)):
        for before, after in zip(old, new, strict=False):
            if before in types:
                renamed[after] = renamed.get(after, frozenset()) | types[before]
    return renamed


def merged(kernels: Iterable[Kernel]) -> list[Kernel]:
    """Fewer kernels that serve the same: two that differ in one parameter, or follow on one another, become one."""
    rest = _in_order(kernels)
    while found := next(((pair, both) for pair in itertools.combinations(rest, 2) if (both := _union(*pair))), None):
        pair, both = found
        rest = _in_order([both, *(kernel for kernel in rest if kernel not in pair)])
    return rest


def _in_order(kernels: Iterable[Kernel]) -> list[Kernel]:
    return sorted(kernels, key=lambda kernel: (kernel.since, kernel.until, sorted(map(sorted, kernel.types.values()))))


def _union(one: Kernel, two: Kernel) -> Kernel | None:
    if one.types == two.types and two.since <= one.until + 1:
        return Kernel(one.since, max(one.until, two.until), one.types)
    if (one.since, one.until) != (two.since, two.until) or one.types.keys() != two.types.keys():
        return None
    differing = [name for name in one.types if one.types[name] != two.types[name]]
    if len(differing) > 1:
        return None
    return replace(one, types={name: one.types[name] | two.types[name] for name in one.types})


def rows(kernels: Kernels, known: Schemas, amendments: Mapping[str, Any]) -> dict[str, Any]:
    """The operators of a table, by name."""
    table = {}
    for name in sorted(kernels.keys() & known.keys()):
        versions = known[name]
        served = merged(each for kernel in kernels[name] for each in spans(kernel, versions))
        limits = amendments.get(name, {}).get("kernels", [{}])
        narrowed = [row for kernel in served for limit in limits if (row := _row(kernel, limit))]
        if not narrowed:
            raise SystemExit(f"nothing is left of {name}")
        table[name] = {"inputs": versions[-1].inputs, "outputs": versions[-1].outputs, "kernels": narrowed}
    return table


def _row(kernel: Kernel, limit: Mapping[str, Any]) -> dict[str, Any] | None:
    """A kernel as a table has it, narrowed to what one amendment leaves of it; None where that is nothing.

    A type parameter that the kernel was registered without takes the types that the amendment gives.
    """
    wanted = {name: set(types) for name, types in limit.get("types", {}).items()}
    served = {name: sorted(types & wanted.pop(name, types)) for name, types in kernel.types.items()}
    types = {**served, **{name: sorted(types) for name, types in wanted.items()}}
    if not all(types.values()):
        return None
    row: dict[str, Any] = {}
    if kernel.since > 1:
        row["since"] = kernel.since
    if kernel.until < OPEN:
        row["until"] = kernel.until
    return {**row, "types": types, **{name: value for name, value in limit.items() if name != "types"}}


def table(amendments: Mapping[str, Any], kernels: Kernels, known: Schemas) -> dict[str, Any]:
    """The whole table, as JSON has it.

    Amendments: `operators` narrows kernels, each into those that its `kernels` name; `without_kernel` lists operators
    that run without a kernel of their own, since the runtime replaces them.
    """
    changes = amendments["operators"]
    if strange := changes.keys() - kernels.keys():
        raise SystemExit(f"amended, but not in the list of kernels: {', '.join(sorted(strange))}")
    operators = rows(kernels, known, changes)
    for name in amendments["without_kernel"]:
        newest = known[name][-1]
        operators[name] = {"inputs": newest.inputs, "outputs": newest.outputs, "kernels": [{}]}
    head = {name: amendments[name] for name in ("runtime_versions", "activations", "traits")}
    return {**head, "operators": dict(sorted(operators.items()))}


def dumps(table: Mapping[str, Any]) -> str:
    """A table as text: one operator a line, so that a change to one shows as one."""

    def compact(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    head = [f'"{name}":{compact(value)},' for name, value in table.items() if name != "operators"]
    lines = [f'"{name}":{compact(entry)}' for name, entry in table["operators"].items()]
    return "{\n" + "\n".join(head) + '\n"operators":{\n' + ",\n".join(lines) + "\n}}\n"


def amendments_for(provider: str, version: str) -> Path:
    """The plugin's file of amendments whose range holds a version of the runtime."""
    folder = ROOT / "plugins" / f"ep_{provider}" / "amendments"
    for path in sorted(folder.glob("*.json")):
        versions = json.loads(path.read_text(encoding="utf-8"))["runtime_versions"]
        if SpecifierSet(versions, prereleases=True).contains(version):
            return path
    raise LookupError(f"no file in {folder} is for version {version}")


def table_path(provider: str, amendments: Path) -> Path:
    """Where the plugin keeps the table that is made with a file of amendments."""
    return ROOT / "plugins" / f"ep_{provider}" / "src" / f"drupe_ep_{provider}" / "tables" / amendments.name


def make(provider: str, amendments: Path, page: Path | None = None) -> str:
    """The text of a table, from the installed runtime's list of kernels or from a page of onnxruntime's documents."""
    name = PROVIDERS[provider]
    kernels = documented(page, name) if page else registered(name)
    return dumps(table(json.loads(amendments.read_text(encoding="utf-8")), kernels, schemas()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write an operator table of an execution provider plugin.")
    parser.add_argument("provider", choices=PROVIDERS)
    parser.add_argument("--documented", type=Path, metavar="PAGE", help="a copy of docs/OperatorKernels.md")
    parser.add_argument("--version", help="the version of the runtime that PAGE is for")
    options = parser.parse_args()
    amendments = amendments_for(options.provider, options.version or installed())
    path = table_path(options.provider, amendments)
    path.write_text(make(options.provider, amendments, options.documented), encoding="utf-8", newline="\n")
    print(path)


def installed() -> str:
    """The version of the onnxruntime that is imported here."""
    import onnxruntime

    return str(onnxruntime.__version__)


if __name__ == "__main__":
    main()
