"""Objects of other packages by name, as a configuration gives them: "my_package.module:muon"."""

import importlib
import importlib.util
import inspect
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

from transformer.errors import UserError

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def is_dotted(name: str) -> bool:
    """Whether a name is one of "module:object"; "ring:chunked" is a backend's, not a module's."""
    module, _, attribute = name.partition(":")
    words = [*module.split("."), *attribute.split(".")]
    return all(map(str.isidentifier, words)) and (
        "." in module or module in sys.modules or importlib.util.find_spec(module) is not None
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
        imported = importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{key} is {name!r}: {error}; it must be on PYTHONPATH") from error
    except Exception as error:  # it runs another's code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{key} is {name!r}: importing {module} fails ({reason})") from error
    try:
        return operator.attrgetter(attribute)(imported)
    except AttributeError as error:
        raise UserError(f"{key} is {name!r}: {module} has no {attribute!r}") from error


def parameters_of(factory: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function, method or class, by name; none of anything else."""
    if not (inspect.isroutine(factory) or inspect.isclass(factory)):
        return {}
    try:
        return inspect.signature(factory).parameters
    except ValueError:  # of what is written in C
        return {}


def construct(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    section: str,
    name: str,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """Calls what a configuration names with the options that it gives.

    Args:
        factory: a function or class.
        options: its arguments, by name.
        section: the key of the options, for the error.
        name: what the configuration calls it.
        given: further arguments, which are not the configuration's to give.

    Raises:
        UserError: it does not take these options, or needs more.
    """
    given = given or {}
    takes = parameters_of(factory)
    named = [key for key, value in takes.items() if value.kind not in VARIADIC]
    takes_any = any(value.kind == inspect.Parameter.VAR_KEYWORD for value in takes.values())
    unknown = [key for key in options if key in given or not (takes_any or key in named)]
    present = {**options, **given}
    missing = [key for key in named if takes[key].default is inspect.Parameter.empty]
    missing = [key for key in missing if key not in present]
    if unknown or missing:
        wrong = [f"has {', '.join(unknown)}, which {name} does not take"] if unknown else []
        wrong += [f"lacks {', '.join(missing)}, which {name} needs"] if missing else []
        usable = [f"'{key}': {options[key]!r}" for key in options if key in named]
        whole = ", ".join([*usable, *(f"'{key}': ..." for key in missing)])
        all_options = ", ".join(key for key in named if key not in given) or "no options"
        raise UserError(
            f"{section} {' and '.join(wrong)}: {name} takes {all_options}. Keys that you did not "
            "give are the experiment file's, made for what it names; replace the section as a "
            f'whole, in the file or by --config.{section}="{{{whole}}}"'
        )
    try:
        return factory(**present)
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{section}: {name} refuses {dict(options)}: {reason}") from error
