"""How a key is declared: once, on the field of a dataclass, with its default, meaning and check.

    @dataclass(frozen=True)
    class DecodingConfig(Section, section="decoding"):
        beam: int = positive(4)
        \"\"\"Beam width, W; 1 is greedy search.\"\"\"

A check raises a line that names the key and says what would do. What depends on several keys is
checked in the section's `__post_init__`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from transformer.errors import UserError

Check = Callable[[str, Any], None]  # the key, its value


class Section:
    """Base of every section: runs the checks of its fields.

    `section` is its place in an experiment, as errors show it: "model.positions".
    """

    section: ClassVar[str] = ""
    is_experiment: ClassVar[bool] = False  # rather than a section of one

    def __init_subclass__(cls, section: str | None = None) -> None:
        cls.section = cls.section if section is None else section

    @classmethod
    def completed(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keys as given, and what follows from them."""
        return tree

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            if check := field.metadata.get("check"):
                key = f"{self.section}.{field.name}" if self.section else field.name
                check(key, getattr(self, field.name))


def require(condition: bool, message: str) -> None:
    """Raises UserError with the message where the condition does not hold."""
    if not condition:
        raise UserError(message)


def checked(default: Any, check: Check) -> Any:
    """Declares a key with a default and a check."""
    return dataclasses.field(default=default, metadata={"check": check})


def choice(default: str, *others: str) -> Any:
    """Declares a key with one of a few names; the default comes first."""
    return one_of(default, (default, *others))


def one_of(default: str, names: tuple[str, ...]) -> Any:
    """Declares a key with one of these names."""

    def check(key: str, value: Any) -> None:
        require(value in names, f"{key} is {value!r}; choose one of {', '.join(names)}")

    return checked(default, check)


def positive(default: float, most: float = math.inf) -> Any:
    """Declares a number above 0, finite, and at most `most`."""

    def check(key: str, value: Any) -> None:
        require(0 < value < math.inf, f"{key} is {value}; it must be above 0, and finite")
        require(value <= most, f"{key} is {value}; it must be at most {most:,}")

    return checked(default, check)


def not_negative(default: float, most: float = math.inf) -> Any:
    """Declares a number of 0 or above, finite, and at most `most`."""

    def check(key: str, value: Any) -> None:
        require(0 <= value < math.inf, f"{key} is {value}; it must be 0 or above, and finite")
        require(value <= most, f"{key} is {value}; it must be at most {most:,}")

    return checked(default, check)


def fraction(default: float) -> Any:
    """Declares a number from 0 to 1, 1 excluded."""

    def check(key: str, value: Any) -> None:
        require(0.0 <= value < 1.0, f"{key} is {value}; it must be at least 0 and below 1")

    return checked(default, check)
