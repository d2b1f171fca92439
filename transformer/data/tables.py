"""Sentence pairs from one file of both sides: tab-separated columns, or JSON lines."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from transformer.data.lines import KEY, Digests, read_lines
from transformer.errors import UserError

Sides = tuple[bytes, bytes]


def read_tsv(path: str, fields: tuple[str, str], digests: Digests | None = None) -> Iterator[Sides]:
    """Yields two columns of a file, separated by tabs; nothing is quoted.

    Args:
        path: of the file, plain or gzip.
        fields: of source and target: numbers from 1; or names, which the first line then has.
        digests: what the file must hold.

    Raises:
        UserError: the file cannot be read, or a line lacks a column.
    """
    lines = enumerate(read_lines(path, KEY, digests), start=1)
    header = b"" if all(map(str.isdecimal, fields)) else next(lines, (1, b""))[1]
    columns = []
    for field, column in zip(fields, column_numbers(fields, header), strict=True):
        if column is None:
            raise _refusal(path, 1, f"has no column {field!r}", _names(header))
        if not field.isdecimal() and _names(header).count(field) > 1:
            raise _refusal(path, 1, f"has several columns {field!r}; give a number", _names(header))
        columns.append(column)
    for number, line in lines:
        cells = line.split(b"\t")
        if not line:
            yield b"", b""  # an empty pair, so that what follows keeps its place
        elif max(columns) >= len(cells):
            has = "one column" if len(cells) == 1 else f"{len(cells)} columns"
            raise _refusal(path, number, f"has {has}, and no column {max(columns) + 1}")
        else:
            yield cells[columns[0]], cells[columns[1]]


def column_numbers(fields: tuple[str, str], header: bytes) -> list[int | None]:
    """The columns of source and target, from 0; None where a file's first line has no such name."""
    names = _names(header)
    return [
        int(field) - 1 if field.isdecimal() else names.index(field) if field in names else None
        for field in fields
    ]


def _names(header: bytes) -> list[str]:
    return [cell.decode("utf-8", "replace").strip() for cell in header.split(b"\t")]


def read_jsonl(
    path: str, fields: tuple[str, str], digests: Digests | None = None
) -> Iterator[Sides]:
    """Yields two fields of a file with a JSON object on each line; an empty one is an empty pair.

    Args:
        path: of the file, plain or gzip.
        fields: of source and target; "translation.en" is the field "en" of "translation", unless
            a line has a field of this very name.
        digests: what the file must hold.

    Raises:
        UserError: the file cannot be read, a line is no JSON object, or a field is not there or no
            text.
    """
    keys = [field.split(".") for field in fields]
    for number, line in enumerate(read_lines(path, KEY, digests), start=1):
        if not line.strip():
            yield b"", b""
            continue
        try:
            # Bytes that are no UTF-8 stay what they are, to be counted with the text's problems.
            content = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", str(error)[:60] or "too deeply nested")
            raise _refusal(path, number, f"is no JSON ({reason})") from error
        source, target = (_text(content, key, path, number) for key in keys)
        yield source, target


def _text(content: Any, keys: list[str], path: str, number: int) -> bytes:
    if isinstance(content, dict) and (whole := ".".join(keys)) in content:
        keys = [whole]
    for depth, key in enumerate(keys):
        if not isinstance(content, dict) or key not in content:
            what = ".".join(keys[: depth + 1])
            has = list(content) if isinstance(content, dict) else []
            raise _refusal(path, number, f"has no field {what!r}", has)
        content = content[key]
    if not isinstance(content, str):
        is_now = type(content).__name__
        raise _refusal(path, number, f"has no text in the field {'.'.join(keys)!r} ({is_now})")
    try:
        return content.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        return content.encode("utf-8", "surrogatepass")


def _refusal(path: str, number: int, what: str, has: list[str] | None = None) -> UserError:
    names = ", ".join(repr(name[:40]) for name in (has or [])[:8])
    return UserError(
        f"{path}: line {number:,} {what}"
        + (f"; it has {names}" if names else "")
        + f": mend it, or set {KEY}.format, {KEY}.source_field and {KEY}.target_field"
    )


READERS: dict[str, Callable[[str, tuple[str, str], Digests | None], Iterator[Sides]]] = {
    "tsv": read_tsv,
    "jsonl": read_jsonl,
}
