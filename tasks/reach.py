"""What a stage's function reaches: its own module's helpers and constants, other modules it names.

A helper two lines below a stage changes its answer as surely as the stage's own lines do.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

FIRST_PARTY = ("model_code", "infra", "tasks")
# they carry and show results, they do not make them
BOOKKEEPING = {"tasks.stage", "tasks.tracking"}
CONSTANT = (bool, int, float, str, bytes, tuple, list, dict, set, frozenset)


@functools.cache
def reach(function: Callable[..., Any]) -> tuple[str, tuple[str, ...]]:
    """The source of a function with all that it names in its own module, and first-party modules.

    A table that another module only filled has no module to be told by, only what stands in it
    has: a stage names that module itself.
    """
    texts: dict[str, str] = {}
    modules: set[str] = set()
    waiting: list[Any] = [function]
    while waiting:
        found = inspect.unwrap(waiting.pop())
        if found.__qualname__ in texts:
            continue
        texts[found.__qualname__] = inspect.getsource(found)
        if not isinstance(found, FunctionType):
            continue
        for name in sorted(set(_names(found.__code__))):
            value = found.__globals__.get(name)
            if isinstance(value, (FunctionType, type)) and _module(value) == function.__module__:
                waiting.append(value)
            elif name in found.__globals__ and isinstance(value, CONSTANT):
                texts[name] = f"{name} = {_plain(value)}"
            modules |= {_module(item) for item in (value, *_items(value))}
    modules = {
        module
        for module in modules - BOOKKEEPING - {function.__module__}
        if module.split(".")[0] in FIRST_PARTY
    }
    return "\n".join(texts[name] for name in sorted(texts)), tuple(sorted(modules))


def _module(value: Any) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    return str(getattr(value, "__module__", None) or "")


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (tuple, list, set, frozenset)):
        yield from value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _plain(value: Any) -> str:
    """A constant's text; of what holds objects only the names, their addresses differ each time."""
    match value:
        case dict():
            return str({key: _plain(item) for key, item in value.items()})
        case set() | frozenset():
            return str(sorted(map(_plain, value)))
        case tuple() | list():
            return str([_plain(item) for item in value])
        case bool() | int() | float() | str() | bytes() | None:
            return repr(value)
    return type(value).__name__
