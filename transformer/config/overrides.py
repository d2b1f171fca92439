"""Changes to a configuration by key, as the command line gives them: `--config.model.heads=4`."""

import ast
import decimal
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from transformer.errors import UserError

ARGUMENT = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
FREE = ("optimizer.options", "optimizer.schedule_options")  # sections that take keys of any name
DIGITS = 30  # of a whole number; no key comes near


def override(config: Any, arguments: Sequence[str]) -> None:
    """Changes a ConfigDict as arguments say, in their order.

    A value is read as the key's present one is written; in a section of `FREE`, which takes keys
    that it has not yet, as a Python literal. A section is replaced by a Python dict.

    Raises:
        UserError: an argument is no change of a key, the key does not exist, or cannot take the
            value.
    """
    changed_keys: list[str] = []
    for argument, key, text in _changes(config, arguments):
        *parents, name = key.split(".")
        section = _section(config, parents, argument)
        free = _is_free(parents)
        if name not in section and not free:
            raise _unknown(name, section, argument)
        if later := [other for other in changed_keys if other.startswith(f"{key}.")]:
            raise UserError(f"{argument} replaces config.{later[0]}, given before it: swap the two")
        if name not in section:
            value = _literal(text)
        else:
            value = _converted(section[name], text, argument)
            if isinstance(value, tuple) and key in changed_keys:  # its items, one after another
                value = section[name] + value
        with section.unlocked(), section.ignore_type():
            section[name] = value
        changed_keys.append(key)


def override_values(config: Any, values: Mapping[str, Any]) -> None:
    """Changes a ConfigDict by key: {"model.d_model": 256}; types are checked where it is resolved.

    Raises:
        UserError: a key does not exist.
    """
    for key, value in values.items():
        *parents, name = key.split(".")
        section = _section(config, parents, f"config.{key}")
        if name not in section and not _is_free(parents):
            raise _unknown(name, section, f"config.{key}")
        with section.unlocked(), section.ignore_type():
            section[name] = value


def _changes(config: Any, arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each argument as it is shown, its key, and the text of its value."""
    rest = iter(arguments)
    for argument in rest:
        match = ARGUMENT.fullmatch(argument)
        if not match:
            raise UserError(
                f"{_printable(argument)!r} is no option: `transformer COMMAND --help` lists them"
            )
        negated, key, text = match.groups()
        shown = _printable(argument)
        if text is None:
            *parents, name = key.split(".")
            section = _section(config, parents, shown)
            if name in section and isinstance(section[name], bool):
                text = str(not negated)
            elif not negated:  # the argument behind it
                text = next(rest, None)
                shown = f"{shown}={_printable(text or '')}"
        elif negated:
            text = None
        if text is None:
            raise UserError(f"{shown}: give the key a value, --config.{_printable(key)}=VALUE")
        yield shown, key, text


def _section(config: Any, parts: Sequence[str], shown: str) -> Any:
    """What holds a key. Raises UserError where a part of the way is no section."""
    section = config
    for number, part in enumerate(parts, start=1):
        if part not in section:
            raise _unknown(part, section, shown)
        section = section[part]
        if not _is_section(section):
            where = ".".join(parts[:number])
            raise UserError(f"{shown}: config.{where} is {section!r}, a value without keys below")
    return section


def _are_names(section: Mapping[Any, Any]) -> bool:
    """Whether a ConfigDict takes a section's keys, and those of sections below: names, no dots."""
    below = (value for value in section.values() if isinstance(value, dict))
    return all(isinstance(key, str) and "." not in key for key in section) and all(
        map(_are_names, below)
    )


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "unlocked")


def _is_free(parts: Sequence[str]) -> bool:
    return ".".join(parts[-2:]) in FREE


def _unknown(name: str, section: Any, shown: str) -> UserError:
    near = difflib.get_close_matches(name, [*section.keys()], n=1)
    if not section.keys():
        key = shown.partition("=")[0].rpartition(f".{name}")[0]
        return UserError(
            f"{shown}: the section has no {name!r} yet: give all of it as a Python dict, {key}="
            '"{...}"; transformer/config/training.py shows one'
        )
    keys = sorted(map(str, section.keys()))
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(keys[:20])}"
    return UserError(f"{shown}: unknown key {name!r}: {hint}")


def _converted(present: Any, text: str, shown: str) -> Any:
    """A value like the present one. Raises UserError where the text is none."""
    if _is_section(present):
        value = _literal(text)
        if isinstance(value, dict) and _are_names(value):
            return value
        keys = [*present.keys()]
        below = f"one of its keys, such as .{keys[0]}=VALUE" if keys else "its keys"
        raise UserError(
            f"{shown}: it is a section: give {below}, or all of it as a Python dict of names"
        )
    for kind, (convert, wanted) in CONVERSIONS.items():
        if isinstance(present, kind):
            try:
                return _with_whole_items(present, convert(text))
            except (ValueError, ArithmeticError):
                raise UserError(f"{shown}: it must be {wanted}") from None
    value = _literal(text)
    return list(value) if isinstance(present, list) and isinstance(value, tuple) else value


def _with_whole_items(present: Any, value: Any) -> Any:
    """A tuple with its items as whole numbers, where the present one's are and they may be."""
    if not (isinstance(value, tuple) and present and all(type(item) is int for item in present)):
        return value
    return tuple(
        int(item) if isinstance(item, float) and item.is_integer() else item for item in value
    )


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "t", "1"):
        return True
    if text.lower() in ("false", "f", "0"):
        return False
    raise ValueError


def _whole(text: str) -> int:
    number = decimal.Decimal(text)
    if not number.is_finite() or number.adjusted() > DIGITS or number != int(number):
        raise ValueError
    return int(number)


def _items(text: str) -> tuple[Any, ...]:
    """A Python tuple or list, one item of it, or strings with commas between them."""
    value = _literal(text)
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(value) if isinstance(value, tuple | list) else (value,)


CONVERSIONS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (_boolean, "True or False"),  # before int, which a bool is
    int: (_whole, "a whole number"),
    float: (float, "a number"),
    str: (str, "text"),
    tuple: (_items, "a list of values"),
}


def _literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _printable(text: str) -> str:
    printable = text if text.isprintable() else repr(text)[1:-1]
    return printable if len(printable) <= 200 else f"{printable[:200]}..."
