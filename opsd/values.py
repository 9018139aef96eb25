"""`dataclass` of the standard library, made in a quarter of the time: a command makes a hundred of them before it begins to work.

Promise: fields, slots, defaults, `replace`, equality, hash and text are as there. The standard library compiles six functions for each
frozen class; here only `__init__` is compiled. There is no `__post_init__`, and none inherits from another: nobody here does either.
docs/decisions/0037-starting.md
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

__all__ = ["dataclass"]

Fields = tuple["dataclasses.Field[Any]", ...]

#: Stands for an argument that was not given, where each value is a new one.
_ABSENT: Final = object()


if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        cls: type | None = None, /, *, frozen: bool = False, eq: bool = True, kw_only: bool = False, slots: bool = False
    ) -> Any:
        """As `dataclasses.dataclass`."""

        def made(given: type) -> type:
            plain = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only, slots=slots)(given)
            fields = dataclasses.fields(plain)
            methods = {"__init__": _initializer(fields, frozen=frozen), "__repr__": _text(fields)}
            methods |= _equality(fields, frozen=frozen) if eq else {}
            methods |= {"__setattr__": _refuse_setting, "__delattr__": _refuse_deleting} if frozen else {}
            for name, method in methods.items():
                setattr(plain, name, method)
            plain.__dataclass_params__.frozen = frozen  # A class of the standard library's that inherits from it asks.
            return plain

        return made if cls is None else made(cls)


def _initializer(fields: Fields, *, frozen: bool) -> Callable[..., None]:
    scope: dict[str, Any] = {"_set": object.__setattr__, "_ABSENT": _ABSENT}
    parameters: list[str] = []
    lines: list[str] = []
    for field in sorted(fields, key=lambda each: bool(each.kw_only)):
        name = value = field.name
        if field.kw_only and "*" not in parameters:
            parameters.append("*")
        if field.default_factory is not MISSING:
            scope[f"_new_{name}"] = field.default_factory
            value = f"_new_{name}() if {name} is _ABSENT else {name}"
            parameters.append(f"{name}=_ABSENT")
        elif field.default is not MISSING:
            scope[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        lines.append(f"\n _set(self, {name!r}, {value})" if frozen else f"\n self.{name} = {value}")
    exec(f"def __init__(self, {', '.join(parameters)}):{''.join(lines) or ' pass'}", scope)  # noqa: S102 - as dataclasses does
    made: Callable[..., None] = scope["__init__"]
    return made


def _text(fields: Fields) -> Callable[[object], str]:
    names = [field.name for field in fields if field.repr]

    def text(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return text


def _equality(fields: Fields, *, frozen: bool) -> Mapping[str, Any]:
    names = [field.name for field in fields if field.compare]
    values: Callable[[object], Any] = attrgetter(*names) if names else lambda _: None

    def equal(self: object, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    def hashed(self: object) -> int:
        return hash(values(self))

    return {"__eq__": equal, "__hash__": hashed if frozen else None}


def _refuse_setting(self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r} of {type(self).__qualname__}")


def _refuse_deleting(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r} of {type(self).__qualname__}")
