"""JSON that this package writes and reads back: UTF-8, checked, as a disk may have lost some."""

import json
from typing import Any

NESTED = 64  # lists and objects within each other: none of ours comes near


class Damaged(ValueError):
    """A file does not hold what was written there; the text says what is wrong with it."""


def parse_json(content: bytes, kind: type = dict) -> Any:
    """An object or a list in UTF-8 JSON. Raises Damaged where it is something else."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise Damaged("it is nested too deeply") from None
    except ValueError as error:
        raise Damaged(f"it is no JSON: {error}") from error
    if not isinstance(value, kind):
        names = {dict: "an object", list: "a list"}
        raise Damaged(f"it holds {type(value).__name__}, not {names[kind]}")
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > NESTED:
            raise Damaged("it is nested too deeply")
        inner = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for items in inner for x in items if isinstance(x, dict | list)]
    return value


def as_json(content: Any, **options: Any) -> str:
    """JSON that UTF-8 can hold: a name of a file that is no text is written with escapes."""
    text = json.dumps(content, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, **options)
    return text
