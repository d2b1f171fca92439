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
    columns = [int(field) - 1 if field.isdecimal() else -1 for field in fields]
    names = [field for field, column in zip(fields, columns, strict=True) if column < 0]
    for number, line in enumerate(read_lines(path, KEY, digests), start=1):
        cells = line.split(b"\t")
        if names:
            header = [cell.decode("utf-8", "replace").strip() for cell in cells]
            if missing := [name for name in names if name not in header]:
                raise _refusal(path, number, f"has no column {missing[0]!r}", header)
            columns = [
                header.index(field) if column < 0 else column
                for field, column in zip(fields, columns, strict=True)
            ]
            names = []
        elif not line:
            yield b"", b""  # an empty pair, so that what follows keeps its place
        else:
            if max(columns) >= len(cells):
                has = "one column" if len(cells) == 1 else f"{len(cells)} columns"
                raise _refusal(path, number, f"has {has}, and no column {max(columns) + 1}")
            yield cells[columns[0]], cells[columns[1]]


def read_jsonl(
    path: str, fields: tuple[str, str], digests: Digests | None = None
) -> Iterator[Sides]:
    """Yields two fields of a file with a JSON object on each line; an empty one is an empty pair.

    Args:
        path: of the file, plain or gzip.
        fields: of source and target; "translation.en" is the field "en" of "translation".
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
