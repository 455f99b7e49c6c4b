"""Writes the operator tables of execution providers, from a runtime's list of kernels and from files of amendments.

It works for every `drupe_onnx.TableProvider` of an installed plugin. A table comes from one of two lists of kernels:

- the installed onnxruntime's own (`registered`), for the providers that it was built with;
- onnxruntime's page docs/OperatorKernels.md (`documented`), for a provider that cannot be installed where this runs.

Both lists are incomplete: a kernel may take a type and still refuse an attribute when it runs. Such limits, found by
running graphs or reading documents, are in files of amendments, each entry with its reason. The files lie in the folder
`amendments` beside the provider's package, or above it. There is one file for each range of runtime versions, and the
table of the same name is made with it. Without amendments, the table has only the list of kernels, for its version::

    python tools/operator_tables.py cpu
    python tools/operator_tables.py dml --documented OperatorKernels.md --version 1.24.4
    python tools/operator_tables.py acme --output src/acme_npu/operators.json
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from drupe.api import DrupeError, ModelError, Record, UsageError, registry, replace
from drupe_onnx import TableProvider

FOLDER = "amendments"
LEVELS = 3
"""How many folders above a provider's module are searched for its amendments."""
FLOATS = ("float16", "bfloat16", "float32")
"""Types that a graph may compute in, the best first."""
DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
"""The domains that a model may use; the others are for the runtime's own layout transformations."""

OPEN = 2**31 - 1
"""How the runtime writes a range of versions without an end."""

Types = Mapping[str, frozenset[str]]


class Schema(Record):
    """One version of an operator: the type parameter, or the one type, at each position."""

    since: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Kernel(Record):
    """One kernel, for the operator versions `since` to `until`; after `spans`, for the opset versions of this range."""

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
    _, _, section = page.read_text(encoding="utf-8").partition(f"## Operators implemented by {provider}")
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
    """The kernel for each operator version that the runtime uses it for, as a range of opset versions.

    The runtime uses a kernel without a last version only for its first version of the operator, because the kernel may
    not fit later versions.
    """
    newest = versions[-1]
    for schema, following in itertools.zip_longest(versions, [each.since for each in versions[1:]]):
        if schema.since == kernel.since or kernel.since < schema.since <= kernel.until < OPEN:
            until = following - 1 if following else OPEN
            yield Kernel(schema.since, until, _renamed(kernel.types, schema, newest))


def _renamed(types: Types, schema: Schema, newest: Schema) -> Types:
    """The types by the parameter names of the operator's newest version, matched by position."""
    renamed: dict[str, frozenset[str]] = {}
    for old, new in ((schema.inputs, newest.inputs), (schema.outputs, newest.outputs)):
        for before, after in zip(old, new, strict=False):
            if before in types:
                renamed[after] = renamed.get(after, frozenset()) | types[before]
    return renamed


def merged(kernels: Iterable[Kernel]) -> list[Kernel]:
    """Fewer equivalent kernels: two that differ in one parameter, or whose versions are adjacent, become one."""
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
            raise SystemExit(f"the amendments leave no kernel of {name}")
        table[name] = {"inputs": versions[-1].inputs, "outputs": versions[-1].outputs, "kernels": narrowed}
    return table


def _row(kernel: Kernel, limit: Mapping[str, Any]) -> dict[str, Any] | None:
    """A kernel in the format of a table, narrowed by one amendment; None where the amendment leaves nothing.

    A type parameter without registered types gets the types of the amendment.
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
    """The whole table, as data for JSON.

    Amendments: `operators` narrows kernels, each into those that its `kernels` name; `without_kernel` lists operators
    that need no kernel, because the runtime replaces them.
    """
    changes = amendments["operators"]
    if strange := changes.keys() - kernels.keys():
        raise SystemExit(f"the amendments name operators without kernels: {', '.join(sorted(strange))}")
    operators = rows(kernels, known, changes)
    for name in amendments["without_kernel"]:
        newest = known[name][-1]
        operators[name] = {"inputs": newest.inputs, "outputs": newest.outputs, "kernels": [{}]}
    head = {name: amendments[name] for name in ("runtime_versions", "activations", "traits")}
    return {**head, "operators": dict(sorted(operators.items()))}


def dumps(table: Mapping[str, Any]) -> str:
    """A table as text, with one operator on each line, so diffs are readable."""

    def compact(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    head = [f'"{name}":{compact(value)},' for name, value in table.items() if name != "operators"]
    lines = [f'"{name}":{compact(entry)}' for name, entry in table["operators"].items()]
    return "{\n" + "\n".join(head) + '\n"operators":{\n' + ",\n".join(lines) + "\n}}\n"


def provider_named(name: str) -> TableProvider:
    """The provider that an installed plugin brings. Raises UsageError where there is none, or it has no tables."""
    provider = registry().provider(name)
    if not isinstance(provider, TableProvider):
        raise UsageError(
            f"the provider '{provider.name}' has no operator tables", cure="subclass drupe_onnx.TableProvider"
        )
    return provider


def amendments_for(provider: TableProvider, version: str) -> Path | None:
    """The file of amendments whose range holds a version of the runtime; None where the provider has no such folder.

    Raises UsageError where none of its files is for that version.
    """
    above = Path(inspect.getfile(type(provider))).resolve().parents[:LEVELS]
    folder = next((each / FOLDER for each in above if (each / FOLDER).is_dir()), None)
    if folder is None:
        return None
    for path in sorted(folder.glob("*.json")):
        versions = json.loads(path.read_text(encoding="utf-8"))["runtime_versions"]
        if SpecifierSet(versions, prereleases=True).contains(version):
            return path
    raise UsageError(
        f"no file in {folder} is for version {version} of the runtime", cure="write a file for this version"
    )


def table_path(provider: TableProvider, amendments: Path | None) -> Path:
    """Where the provider keeps the table that is made with a file of amendments, or its only one."""
    named = [path for path in provider.tables if amendments is None or path.name == amendments.name]
    if len(named) == 1:
        return named[0]
    names = ", ".join(path.name for path in provider.tables)
    wanted = f"called {amendments.name}" if amendments else "that is the only one"
    raise UsageError(f"the provider '{provider.name}' has no table {wanted}; it has {names}", cure="--output FILE")


def plain(kernels: Kernels, version: str) -> dict[str, Any]:
    """The empty amendments of a provider without such files: the list of kernels is used unchanged."""
    products = [kernel.types.values() for kernel in kernels.get("MatMul", ())]
    computed = {element for types in products for elements in types for element in elements}
    release = Version(version).release
    return {
        "runtime_versions": f">={release[0]}.{release[1]},<{release[0]}.{release[1] + 1}",
        "activations": [each for each in FLOATS if each in computed],
        "traits": {},
        "without_kernel": ["Constant"],
        "operators": {},
    }


def make(provider: TableProvider, version: str, amendments: Path | None, page: Path | None = None) -> str:
    """The text of a table, from the installed runtime's list of kernels or from a page of onnxruntime's documents.

    version: the runtime's version in that list. Raises ModelError where the list has no kernel of the provider.
    """
    kernels = documented(page, provider.runtime_name) if page else registered(provider.runtime_name)
    if not kernels:
        raise ModelError(
            f"{page or 'the installed onnxruntime'} lists no kernels of {provider.runtime_name}",
            cure=f"run this where the provider's runtime is installed ({provider.packages[0].install}), "
            "or give a page that lists them: --documented PAGE",
        )
    changes = json.loads(amendments.read_text(encoding="utf-8")) if amendments else plain(kernels, version)
    return dumps(table(changes, kernels, schemas()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write an operator table of an execution provider.")
    parser.add_argument("provider", help="the provider's name: cpu, cuda, dml, or one of an installed plugin")
    parser.add_argument("--documented", type=Path, metavar="PAGE", help="a copy of docs/OperatorKernels.md")
    parser.add_argument("--version", help="the version of the runtime that PAGE is for")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to the provider's table")
    options = parser.parse_args(arguments)
    try:
        provider = provider_named(options.provider)
        version = options.version or installed()
        amendments = amendments_for(provider, version)
        path = options.output or table_path(provider, amendments)
        path.write_text(make(provider, version, amendments, options.documented), encoding="utf-8", newline="\n")
    except DrupeError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(path)
    return 0


def installed() -> str:
    """The version of the onnxruntime that is imported here."""
    import onnxruntime

    return str(onnxruntime.__version__)


if __name__ == "__main__":
    sys.exit(main())
