"""Values that msgspec fills by itself: it sets the fields of other classes one by one, at thrice the cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar, cast

import attrs
import msgspec

T = TypeVar("T")

LONG_MAX: Final = 2**63 - 1
"""The largest number of the service's, a long of Java's."""
Long = Annotated[int, msgspec.Meta(ge=-LONG_MAX, le=LONG_MAX)]
JobId = Annotated[int, msgspec.Meta(ge=0, le=LONG_MAX)]
Nothing = Annotated[int, msgspec.Meta(ge=1, le=0)]
"""The type of no value, for a field that is never decoded."""

_OF_THE_LAYOUT: Final = re.compile(r"__(annot.*|getstate|init|setstate|slots)__")


def laid_out(**types: Any) -> Callable[[type[T]], type[T]]:
    """Has msgspec lay out a slotted class of attrs, which is the same class to everybody but its decoder.

    The decoder refuses fields that the class does not have. The class cannot be subclassed. No value may
    refer to itself in a circle: they are not known to the garbage collector.

    Args:
        types: What the decoder takes for a field, where that is not what the class says.
    """

    def lay_out(cls: type[T]) -> type[T]:
        fields = attrs.fields(attrs.resolve_types(cast("type[attrs.AttrsInstance]", cls)))
        left = vars(cls).keys() - {field.name for field in fields}
        struct: Any = msgspec.defstruct(
            cls.__name__,
            [(field.name, types.get(field.name, field.type), _default(field)) for field in fields],
            namespace={name: vars(cls)[name] for name in left if not _OF_THE_LAYOUT.fullmatch(name)}
            | {"__init_subclass__": _refuse},
            module=cls.__module__,
            forbid_unknown_fields=True,
            gc=False,
        )
        msgspec.json.Decoder(struct)  # learns the types once for all; others are told what the class says
        struct.__annotations__ = cls.__annotations__
        struct.__attrs_types_resolved__ = struct
        return cast("type[T]", struct)

    return lay_out


@classmethod  # type: ignore[misc]  # of a class that is made above
def _refuse(cls: type, **_: object) -> None:
    raise TypeError(f"{cls.__mro__[1].__name__} cannot be subclassed: a value of one's own may hold one")


def _default(field: attrs.Attribute[Any]) -> Any:
    return msgspec.NODEFAULT if field.default is attrs.NOTHING else field.default
