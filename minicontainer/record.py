"""Frozen dataclasses that cost nothing to define.

`dataclasses.dataclass` writes six methods for each class as text and compiles them: 0.7 ms a class, at every start of
the command, and `run` needs fifteen. A record has the same methods, inherited, and looks its fields up when it is made.
To a type checker it *is* a frozen dataclass (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_: object) -> object:
        """What typing has under this name does as little when the program runs; importing typing takes 3 ms."""
        return lambda cls: cls


_MISSING: Any = object()
"""The default of a field that has none."""


@dataclass_transform(frozen_default=True)
class Record:
    """Base of classes whose annotated names are fields, in order, with the class attributes as defaults."""

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = cls.__dict__.get("__annotations__", ())  # noqa: RUF063 (inspect takes 6 ms)
        cls.__match_args__ = (*cls.__match_args__, *own)  # type: ignore[misc]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names, blank = self.__match_args__, type(self)._blank()
        values = {**blank, **dict(zip(names, args, strict=False)), **kwargs}
        if len(values) != len(names) or len(args) > len(names) or (args and kwargs.keys() & {*names[: len(args)]}):
            raise TypeError(f"{type(self).__name__}{names} cannot be made of {args} and {kwargs}")
        if _MISSING in blank.values():
            for name, value in values.items():
                if value is _MISSING:
                    raise TypeError(f"{type(self).__name__}: {name} is missing")
        self.__dict__.update(values)

    @classmethod
    def _blank(cls) -> dict[str, Any]:
        """Field → default, in order; made once, when the first record of a class is."""
        blank: dict[str, Any] | None = cls.__dict__.get("_defaults")
        if blank is None:
            blank = {name: getattr(cls, name, _MISSING) for name in cls.__match_args__}
            type.__setattr__(cls, "_defaults", blank)
        return blank

    def replace(self, **changes: Any) -> Self:
        """The same with other values in some fields."""
        return type(self)(**{**self.__dict__, **changes})

    def asdict(self) -> dict[str, Any]:
        """Field → value; records among the values likewise."""
        return {name: value.asdict() if isinstance(value, Record) else value for name, value in self.__dict__.items()}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: make another with replace({name}=…)")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def tuples(value: Any) -> Any:
    """Lists, and lists in them, as tuples: what a record has had, and JSON has as lists."""
    return tuple([tuples(part) for part in value]) if isinstance(value, list) else value
