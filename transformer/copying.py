"""A run directory moved whole: from a disk into a bucket, back, or from one to another."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transformer import files, run_directory
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.storage import BucketPath, owning

AT_ONCE = 4  # files
LIBRARIES = ("checkpoints", "damaged")  # below which a library has written folders by itself

Contents = dict[str, Callable[[], bytes]]  # what reads each file, by its name in the run


def copy(source: AnyPath, target: AnyPath) -> int:
    """Copies a run directory; returns how many bytes that were.

    What is not copied to its end is not there: the target appears at once, and whole.

    Raises:
        UserError: there is no run, it is being trained (on a disk), or the target is there already.
    """
    run_directory.read_config(source)
    if isinstance(source, Path) and isinstance(target, Path):
        _require_apart(source.resolve(), target.resolve())
    if target.exists() or (isinstance(target, BucketPath) and target.root.is_foreign()):
        raise UserError(f"{target} is there already: take another --to, or move it away")
    with _from_bucket(source) if isinstance(source, BucketPath) else _from_disk(source) as contents:
        if isinstance(target, BucketPath):
            return _into_bucket(contents, target)
        return _onto_disk(contents, target)


def _require_apart(source: Path, target: Path) -> None:
    if source in target.parents:
        raise UserError(f"{target} lies inside {source}: take another --to")


@contextlib.contextmanager
def _from_disk(source: Path) -> Iterator[Contents]:
    with run_directory.lock(source):
        paths = {path.relative_to(source).as_posix(): path for path in source.rglob("*")}
        yield {
            name: path.read_bytes
            for name, path in paths.items()
            if path.is_file() and name != run_directory.LOCK
        }


@contextlib.contextmanager
def _from_bucket(source: BucketPath) -> Iterator[Contents]:
    yield {name: (source / name).read_bytes for name in source.root.names()}


def _onto_disk(contents: Contents, target: Path) -> int:
    def one(name: str) -> int:
        content = contents[name]()
        files.write(unfinished / name, content)
        return len(content)

    with files.building(target) as unfinished, ThreadPoolExecutor(AT_ONCE) as pool:
        size = sum(pool.map(one, contents))
        unfinished.rename(target)
        files.sync(target.parent)
    return size


def _into_bucket(contents: Contents, target: BucketPath) -> int:
    root = target.root
    inside = {name: "/".join(name.split("/")[:2]) for name in contents if _is_of_library(name)}

    def one(name: str) -> int:
        content = contents[name]()
        root.write_object(f"{folders[inside[name]]}{name.removeprefix(inside[name])}", content)
        return len(content)

    with owning(root), ThreadPoolExecutor(AT_ONCE) as pool:
        folders = {folder: root.key_of_save(folder) for folder in inside.values()}
        size = sum(pool.map(one, inside))
        others = {name: contents[name]() for name in contents if name not in inside}
        root.publish(others, folders=folders)
    return size + sum(map(len, others.values()))


def _is_of_library(name: str) -> bool:
    first, *rest = name.split("/")
    return first in LIBRARIES and len(rest) > 1
