"""The direction of imports that docs/architecture.md states."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/nfpi"
OUTSIDE = ("__init__", "__version__")
"""Names of nfpi itself, which imports nothing."""


def read_levels(before: str = "") -> dict[str, int]:
    """Return the level of each package: each may import those of higher levels."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (order,) = re.findall(rf"^{before}`([^`]* → [^`]*)`\.$", text, re.MULTILINE)
    return {name: level for level, names in enumerate(order.split(" → ")) for name in names.split(", ")}


def list_imports() -> Iterator[tuple[str, str, str]]:
    """Yield the path of each module, its package and a module that it imports, here or in a function."""
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]):
        where = path.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            for module in modules:
                if module.startswith("nfpi."):
                    yield where.as_posix(), where.with_suffix("").parts[0], module


def test_imports_go_in_the_direction_that_is_stated():
    levels, found = read_levels(), list(list_imports())
    packages = {package for _, package, _ in found} | {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert packages - set(OUTSIDE) == set(levels)
    for where, package, module in found:
        imported = module.split(".")[1]
        allowed = imported in (package, *OUTSIDE) or levels[imported] > levels[package]
        assert allowed, f"{where} imports {module}"


def test_imports_within_results_go_in_the_direction_that_is_stated():
    levels, found = read_levels("Within `results`: "), 0
    for where, package, module in list_imports():
        parts = (*Path(where).with_suffix("").parts[1:], "")
        imported = module.split(".")[2:]
        if package != "results" or not module.startswith("nfpi.results.") or parts[0] == "__init__":
            continue
        found += 1
        allowed = imported[0] == parts[0] or levels[imported[0]] > levels[parts[0]]
        assert allowed, f"{where} imports {module}"
    assert found
    modules = {path.stem for path in (PACKAGE / "results").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - {"__init__", "__pycache__"} == set(levels)


def test_no_package_imports_the_workflow():
    assert not [where for where, package, module in list_imports() if package != "workflow" and ".workflow" in module]
