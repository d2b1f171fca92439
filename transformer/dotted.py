"""Objects of other packages by name, as a configuration gives them: "my_package.module:muon"."""

import importlib
import importlib.util
from typing import Any

from transformer.errors import UserError


def is_dotted(name: str) -> bool:
    """Whether a name is one of "module:object"; "ring:chunked" is a backend's, not a module's."""
    module, colon, attribute = name.partition(":")
    return bool(colon and module and attribute) and (
        "." in module or importlib.util.find_spec(module) is not None
    )


def resolve(name: str, key: str) -> Any:
    """Imports the object that "module:object" names.

    Args:
        name: "package.module:object".
        key: whose value it is, for the error.

    Raises:
        UserError: there is no such module, or no such object in it.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise UserError(f"{key} is {name!r}: {error}; it must be on PYTHONPATH") from error
    except AttributeError as error:
        raise UserError(f"{key} is {name!r}: {module} has no {attribute!r}") from error
