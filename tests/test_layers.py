"""Which packages may import which, and what every package has: the layering that CONTRIBUTING.md states."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
KERNEL = ROOT / "kernel" / "src" / "drupe"
KERNEL_LINES = 1750
"""Of code, at most, as `lines_of_code` counts them."""
NOT_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
KERNEL_MAY_IMPORT = {"msgspec", "packaging", "pluggy", "pydantic", "stevedore"}
# One of several wheels brings these (drupe[cpu], [cuda], [directml]), and they exclude each other: a plugin that named
# one would break the environments of the others.
RUNTIME_IMPORTS = {"onnxruntime", "onnxruntime_genai"}
DISTRIBUTION_OF = {"yaml": "pyyaml", "huggingface_hub": "huggingface-hub"}


@dataclass(frozen=True)
class Import:
    """An import statement: the module that it names, and its place."""

    module: str
    where: str

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Package:
    """A folder of plugins/ or libraries/ with its pyproject.toml. The folder above it says its role."""

    folder: Path

    @property
    def project(self) -> dict[str, Any]:
        project: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text("utf-8"))["project"]
        return project

    @property
    def package(self) -> str:
        """The import name of its one package."""
        (package,) = (path.name for path in (self.folder / "src").iterdir() if (path / "__init__.py").exists())
        return package

    @property
    def sources(self) -> list[Path]:
        return python_files(self.folder / "src")

    @property
    def declared(self) -> set[str]:
        """Every distribution that it depends on, extras included, except what only its tests need."""
        extras: dict[str, list[str]] = self.project.get("optional-dependencies", {})
        needs = [*self.project.get("dependencies", [])]
        needs += [need for name, extra in extras.items() if name != "test" for need in extra]
        return {canonicalize_name(Requirement(need).name) for need in needs}

    @property
    def entry_modules(self) -> list[Path]:
        entries = self.project.get("entry-points", {}).get("drupe.plugins", {})
        return [self.folder / "src" / Path(*module.split(".")).with_suffix(".py") for module in entries.values()]


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, in functions and for type checkers too; relative ones are the package's own."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from drupe import api` imports drupe.api.
            names = [f"drupe.{alias.name}" for alias in node.names] if node.module == "drupe" else [node.module or ""]
            yield from (Import(name, where) for name in names)


def foreign(path: Path, own: str) -> list[Import]:
    """Imports of a file from other distributions: neither from the standard library nor from its own package."""
    return [each for each in imports(path) if each.top not in sys.stdlib_module_names and each.top != own]


def listed(found: list[Import]) -> str:
    return "\n".join(f"{each.where} imports {each.module}" for each in found)


PLUGINS = [Package(path.parent) for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))]
LIBRARIES = [Package(path.parent) for path in sorted(ROOT.glob("libraries/*/pyproject.toml"))]
LIBRARY_NAMES = {library.package for library in LIBRARIES}
each_plugin = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.folder.name)
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.folder.name)
each_package = pytest.mark.parametrize("package", [*LIBRARIES, *PLUGINS], ids=lambda package: package.folder.name)


def test_the_kernel_imports_no_plugin_and_no_framework() -> None:
    outside = [each for path in python_files(KERNEL) for each in foreign(path, "drupe")]
    assert outside, "no package was checked"
    wrong = [each for each in outside if each.top not in KERNEL_MAY_IMPORT]
    assert not wrong, listed(wrong)


def test_the_kernel_declares_what_it_imports() -> None:
    project = tomllib.loads((ROOT / "kernel" / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {Requirement(need).name for need in project["dependencies"]}
    assert declared == KERNEL_MAY_IMPORT


def lines_of_code(path: Path) -> int:
    """Lines of code, without comments, docstrings and blank lines."""
    tree = ast.parse(path.read_text("utf-8"))
    documented: set[int] = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                documented.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    with tokenize.open(path) as file:
        tokens = [each for each in tokenize.generate_tokens(file.readline) if each.type not in NOT_CODE]
    lines = {number for each in tokens for number in range(each.start[0], each.end[0] + 1)}
    return len(lines - documented)


def test_the_kernel_stays_small() -> None:
    lines = {path: lines_of_code(path) for path in python_files(KERNEL)}
    assert 0 < sum(lines.values()) <= KERNEL_LINES, "\n".join(f"{n:5} {p.name}" for p, n in lines.items())


def imported_modules(path: Path, modules: dict[str, Path]) -> set[str]:
    """The kernel's modules that a file of it imports, for type checkers too."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            named.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
        elif isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
    return named & modules.keys() - {"drupe"}


def kernel_modules() -> dict[str, Path]:
    """The kernel's modules by their full name."""
    return {
        ".".join(("drupe", *path.relative_to(KERNEL).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in python_files(KERNEL)
    }


def test_the_kernels_modules_have_no_circular_imports() -> None:
    """Every import statement counts, also those in functions and those for type checkers."""
    modules = kernel_modules()
    left = {name: imported_modules(path, modules) - {name} for name, path in modules.items()}
    while leaves := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize(
    ("folder", "allowed"), [("values", ("values", "errors")), ("contracts", ("contracts", "values", "errors"))]
)
def test_values_and_contracts_do_not_import_the_modules_that_use_them(folder: str, allowed: tuple[str, ...]) -> None:
    modules = kernel_modules()
    for path in python_files(KERNEL / folder):
        wrong = [name for name in imported_modules(path, modules) if name.split(".")[1] not in allowed]
        assert not wrong, f"{path.name} imports {wrong}"


@each_package
def test_a_package_imports_of_the_kernel_only_its_api(package: Package) -> None:
    """Packages import `drupe.api`. Commands may also import `drupe`, like a user's Python code."""
    allowed = ("drupe.api",) if package in LIBRARIES else ("drupe", "drupe.api")
    wrong = [
        each
        for path in package.sources
        for each in foreign(path, package.package)
        if each.top == "drupe" and each.module not in allowed
    ]
    assert not wrong, listed(wrong)


@each_package
def test_a_package_imports_no_plugin(package: Package) -> None:
    wrong = [
        each
        for path in package.sources
        for each in foreign(path, package.package)
        if each.top.startswith("drupe_") and each.top not in LIBRARY_NAMES
    ]
    assert not wrong, listed(wrong)


@each_library
def test_a_library_registers_nothing(library: Package) -> None:
    assert not library.entry_modules


def test_libraries_have_no_circular_dependencies() -> None:
    left = {library.project["name"]: library.declared for library in LIBRARIES}
    while leaves := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"these need each other: {sorted(left)}"


@each_plugin
def test_a_plugins_entry_module_imports_nothing_heavy(plugin: Package) -> None:
    assert plugin.entry_modules, f"{plugin.folder.name} registers nothing; libraries/ is for what others import"
    for entry in plugin.entry_modules:
        for path in (entry, entry.with_name("__init__.py")):  # importing a module imports its package first
            loaded = [each for each in imports_on_loading(path) if each.top not in sys.stdlib_module_names]
            wrong = [each for each in loaded if each.module != "drupe.api"]
            assert not wrong, listed(wrong)


def imports_on_loading(path: Path) -> list[Import]:
    """The imports that run when a file is imported, without those in functions and those for type checkers."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = (
        node
        for parent in ast.walk(tree)
        if isinstance(parent, ast.FunctionDef)
        or (isinstance(parent, ast.If) and "TYPE_CHECKING" in ast.dump(parent.test))
        for node in ast.walk(parent)
    )
    later = {
        f"{path.relative_to(ROOT)}:{node.lineno}" for node in inside if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return [each for each in imports(path) if each.where not in later]


@each_package
def test_a_package_declares_what_it_imports(package: Package) -> None:
    wrong = [
        each
        for path in package.sources
        for each in foreign(path, package.package)
        if each.top not in RUNTIME_IMPORTS and distribution(each.top) not in package.declared
    ]
    assert not wrong, listed(wrong)


def distribution(top: str) -> str:
    """The distribution that brings an import name."""
    return "drupe-kernel" if top == "drupe" else canonicalize_name(DISTRIBUTION_OF.get(top, top))


@each_package
def test_a_package_states_the_kernel_versions_that_it_works_with(package: Package) -> None:
    uses_kernel = any(each.top == "drupe" for path in package.sources for each in foreign(path, package.package))
    needs = [Requirement(need) for need in package.project.get("dependencies", [])]
    kernels = [need for need in needs if need.name == "drupe-kernel"]
    assert not uses_kernel or (kernels and "0.1.0" in kernels[0].specifier and "0.2" not in kernels[0].specifier)


@each_package
def test_every_package_has_readme_changelog_source_tests_and_metadata(package: Package) -> None:
    for name in ("README.md", "CHANGELOG.md", "src", "tests"):
        assert (package.folder / name).exists(), f"{package.folder.name} has no {name}"
    assert list((package.folder / "tests").glob("test_*.py")), f"{package.folder.name} has no tests"
    project = package.project
    assert project["name"] == package.package.replace("_", "-")
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == ">=3.11"


def test_every_folder_of_libraries_and_plugins_is_a_package() -> None:
    folders = {path for role in ("libraries", "plugins") for path in (ROOT / role).iterdir() if (path / "src").is_dir()}
    assert {path for path in folders if python_files(path / "src")} == {each.folder for each in (*LIBRARIES, *PLUGINS)}


def test_the_distribution_drupe_brings_the_kernel_and_the_plugins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needs = [*project["dependencies"], *(need for extra in project["optional-dependencies"].values() for need in extra)]
    assert len(project["dependencies"]) == len(set(project["dependencies"]))
    brought = {Requirement(need).name for need in needs}
    assert {"drupe-kernel", *(package.project["name"] for package in (*LIBRARIES, *PLUGINS))} <= brought


def test_no_two_test_files_have_the_same_name() -> None:
    names: dict[str, Path] = {}
    for path in [
        *ROOT.glob("kernel/tests/**/test_*.py"),
        *ROOT.glob("libraries/*/tests/**/test_*.py"),
        *ROOT.glob("plugins/*/tests/**/test_*.py"),
        *ROOT.glob("tests/test_*.py"),
    ]:
        assert path.name not in names, f"{path} and {names[path.name]}"
        names[path.name] = path


def test_no_file_contains_a_path_of_a_machine() -> None:
    folders = re.compile(r"(?<![\w.])/(?:home|root|Users|work|opt|mnt)/\w")
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in tracked_texts()
        for number, line in enumerate((ROOT / path).read_text("utf-8", "replace").splitlines(), 1)
        if folders.search(line)
    ]
    assert not found, "\n".join(found)


def tracked_texts() -> list[Path]:
    """The repository's text files."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [Path(name) for name in listing.stdout.split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file() and b"\0" not in (ROOT / path).read_bytes()[:4096]]
