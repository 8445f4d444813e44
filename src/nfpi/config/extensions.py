"""Load Python files in which users register flows, priors, metrics and so on: `extensions: [my_prior.py]`."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

from nfpi.config.base import ConfigError
from nfpi.config.registry import REGISTRIES, registering_from

_loaded: dict[Path, str] = {}


def load_extensions(files: Iterable[Path | str]) -> None:
    """Load these extension files, and unload all others.

    A file is executed when it is first loaded, and again after it has changed; this registers what it defines.

    Args:
        files: paths of the files.

    Raises:
        ConfigError: a file is missing, or raises an error, which the message gives in one line with the file and the
            line number.
    """
    named = {Path(file).resolve(): file for file in files}
    for path in _loaded.keys() - named.keys():
        _forget(path)
    for path, file in named.items():
        if not path.is_file():
            raise ConfigError(f"extensions: expected a Python file, received {file}, which does not exist")
        digest = hash_extension(path)
        if _loaded.get(path) == digest:
            continue
        _forget(path)
        name = f"nfpi_extension_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # needed to resolve annotations of its classes
        _loaded[path] = digest
        try:
            with registering_from(path):
                # not by the import system, which writes __pycache__ and misses a second edit within one second
                exec(compile(path.read_bytes(), path, "exec"), vars(module))
        except (Exception, SystemExit) as error:  # sys.exit would end the workflow without a message
            fault = describe_extension_fault(error) or f"{path}: {error}"
            _forget(path)
            raise ConfigError(fault) from error


def _forget(path: Path) -> None:
    """Unregister everything that a file registered."""
    _loaded.pop(path, None)
    for registry in REGISTRIES:
        registry.forget(path)


def get_loaded_versions() -> dict[str, str]:
    """Map the name of each loaded file to the first 12 digits of its SHA-256."""
    return {path.name: digest[:12] for path, digest in _loaded.items()}


def list_loaded_digests() -> list[str]:
    """Return the SHA-256 digest of each loaded file, sorted."""
    return sorted(_loaded.values())


def hash_extension(file: Path) -> str:
    """Return the SHA-256 digest of a file and of the user's modules that it imports.

    Modules that only a change of `sys.path` in the file lets Python find are not included.
    """
    return hashlib.sha256(b"".join(_list_modules(Path(file), {}).values())).hexdigest()


def _list_modules(file: Path, found: dict[Path, bytes]) -> dict[Path, bytes]:
    """Collect the contents of a file and of the user's modules that it imports, directly or not."""
    found[file] = file.read_bytes()
    for module in (path for name in _list_imports(found[file]) for path in _find_own_module(name)):
        if module not in found:
            _list_modules(module, found)
    return found


@cache
def _list_imports(code: bytes) -> list[str]:
    """Return the top-level names of the modules that Python code imports."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):  # named when it is loaded
        return []
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level and node.module]
    return sorted({name.partition(".")[0] for name in names})


def _find_own_module(name: str) -> list[Path]:
    """Return the files of a module or package of the user; none for those of Python, its libraries and nfpi."""
    try:
        spec = importlib.util.find_spec(name) if name not in (*sys.stdlib_module_names, "nfpi") else None
    except (ImportError, ValueError):
        return []
    if spec is None or spec.origin is None or {"site-packages", "dist-packages"} & set(Path(spec.origin).parts):
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))] or [Path(spec.origin)]
    return [file for file in files if file.is_file()]


def describe_extension_fault(error: BaseException) -> str | None:
    """Describe an error raised in a user's file as `file:line: message`; None if it was raised elsewhere."""
    known = set(map(str, _loaded))
    reason = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
    if isinstance(error, SyntaxError) and error.filename in known:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in known:
            return f"{frame.filename}:{frame.lineno}: {reason}"
    return None
