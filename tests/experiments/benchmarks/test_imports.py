"""A benchmark starts where only setup.cfg's install_requires is installed: launch/quickstart's."""

import ast
import configparser
import functools
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "experiments" / "benchmarks"
OURS = ("transformer", "experiments")
# Programs that run in an environment of their own, and whose benchmark says what is in it.
PEERS = {
    "decode_peers.py": "decode.py",
    "recurrent_torch.py": "recurrent.py",
    "train_torch.py": "train.py",
}
# What no install_requires brings, and where the code itself says what to do without it.
OPTIONAL = {
    "experiments/benchmarks/attention.py": {"torch"},
    "experiments/benchmarks/bucket.py": {"tests"},
    "transformer/data/digits.py": {"sklearn"},
    "transformer/interop/folders.py": {"safetensors"},
    "transformer/storage/gcs_requests.py": {"aiohttp", "fsspec", "gcsfs", "google", "requests"},
    "transformer/storage/s3.py": {"aiohttp", "botocore", "fsspec", "s3fs"},
}


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """The modules that a file names in imports, at any depth of its code."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*around, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.exists()), None)


def files_of(module: str) -> Iterator[Path]:
    """The file of a module of ours, and those of the packages around it."""
    parts = module.split(".")
    yield from filter(None, (file_of(".".join(parts[: n + 1])) for n in range(len(parts))))


def others(start: Path) -> dict[str, set[str]]:
    """What a file and all of ours that it imports take from elsewhere: files by that name."""
    seen, left, found = {start}, [start], {}
    while left:
        path = left.pop()
        for module in imports(path):
            name = module.split(".")[0]
            if name in OURS:
                new = {*files_of(module)} - seen
                seen |= new
                left += new
            elif name not in sys.stdlib_module_names:
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def installed() -> set[str]:
    """The modules that install_requires brings, with what each of its packages requires."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    left = setup["options"]["install_requires"].split("\n")
    packages: set[str] = set()
    while left:
        requirement = left.pop()
        match = re.match(r"\s*([\w.-]+)", requirement)
        if not match or "extra ==" in requirement or normal(match[1]) in packages:
            continue
        packages.add(normal(match[1]))
        try:
            left += importlib.metadata.requires(match[1]) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
    modules = importlib.metadata.packages_distributions()
    return {name for name, of in modules.items() if {*map(normal, of)} & packages}


@pytest.mark.parametrize(
    "name", [path.name for path in sorted(FOLDER.glob("*.py")) if path.name not in PEERS]
)
def test_it_needs_no_more_than_the_package_installs(name: str) -> None:
    have = installed()
    missing = {
        module: where
        for module, files in others(FOLDER / name).items()
        if module not in have
        if (where := {file for file in files if module not in OPTIONAL.get(file, ())})
    }
    assert not missing


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_needs_no_more_than_its_environment_has(name: str) -> None:
    """Nor anything of ours."""
    needed = {module.split(".")[0] for module in imports(FOLDER / name)}
    benchmark = ast.parse((FOLDER / PEERS[name]).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(benchmark) if isinstance(node, ast.Constant)]
    words = {word for text in texts if isinstance(text, str) for word in text.split()}
    had = {re.split("[=<>]", word)[0] for word in words}
    assert needed - had <= sys.stdlib_module_names
    assert "transformer" not in needed and "experiments" not in needed
