"""Dataclasses as JSON values: their types are checked when they are read, so what a file lacks is named and not met later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from raysearch.errors import UserError

T = TypeVar("T")


class Record(Protocol):
    """A dataclass that is a JSON file of its own."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON values. Raises UserError that names what is missing or impossible."""
        ...


def from_values(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass ``kind`` of these JSON values; names that it does not have are passed over.

    Raises UserError that names the first value which is missing or impossible.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
