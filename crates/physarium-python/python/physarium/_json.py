"""Dataclasses of JSON: fields have the names of the keys."""

from __future__ import annotations

import copy
import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T", bound="Json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Json:
    """A JSON object. A field with a default stands for a key that is absent when its value is the default."""

    def to_dict(self) -> dict[str, Any]:
        """The object as the program writes it."""
        return {
            field.name: _encoded(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if _is_key(field) and not _is_absent(field, getattr(self, field.name))
        }

    @classmethod
    def from_dict(cls: type[T], data: dict[str, Any]) -> T:
        """An object from what the program wrote."""
        kinds = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls) if field.name in data]
        return cls(**{name: _decoded(kinds[name], data[name]) for name in names})


def not_in_json() -> Any:
    """A field that is no key."""
    return dataclasses.field(default=0, metadata={"key": False})


def _is_key(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("key", True))


def _is_absent(field: dataclasses.Field[Any], value: Any) -> bool:
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def _encoded(value: Any) -> Any:
    if isinstance(value, Json):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encoded(item) for item in value]
    if isinstance(value, dict):
        return copy.deepcopy(value)
    # NaN is null in JSON.
    return None if isinstance(value, float) and math.isnan(value) else value


def _decoded(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [each for each in typing.get_args(kind) if each is not type(None)]
        return None if value is None else _decoded(kinds[0], value)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_decoded(item, each) for each in value)
    if kind is float:
        return math.nan if value is None else float(value)
    # Before Python 3.11, dict[str, Any] is a type too.
    if origin is None and isinstance(kind, type) and issubclass(kind, Json):
        return kind.from_dict(value)
    return value
