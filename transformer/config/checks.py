"""What a value must satisfy; each check raises a line that names the key and what would do."""

import math
from typing import Any

from transformer.errors import UserError


def require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    require(value in allowed, f"{key} is {value!r}; choose one of {', '.join(allowed)}")


def positive(section: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(
            0 < value < math.inf, f"{section}.{name} is {value}; it must be above 0, and finite"
        )


def at_most(section: str, config: Any, most: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value <= most, f"{section}.{name} is {value}; it must be at most {most:,}")


def not_negative(section: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(
            0 <= value < math.inf,
            f"{section}.{name} is {value}; it must be 0 or above, and finite",
        )


def fraction(key: str, value: float) -> None:
    require(0.0 <= value < 1.0, f"{key} is {value}; it must be at least 0 and below 1")
