"""Fields of a JSON object, read with their types checked; every problem names its place as OpenAI's API does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stages.device.serve.api_errors import ApiError, bad_type, bad_value, missing


class JsonFields:
    """An object and its place.

    Args:
        values: the object.
        place: such as `messages[0]`; empty for the request itself.
    """

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        self.values, self.place = values, place

    def path(self, name: str) -> str:
        """A field's whole name."""
        return f"{self.place}.{name}" if self.place else name

    def given(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self._required(name)
        if not isinstance(value, str):
            raise bad_type(self.path(name), "a string", value)
        return value

    def choice(self, name: str, allowed: Collection[str]) -> str:
        """One of some strings."""
        value = self.text(name)
        if value not in allowed:
            supported = ", ".join(f"'{item}'" for item in allowed)
            raise bad_value(self.path(name), f"'{_short(value)}'. Supported values are: {supported}.")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean; the default where it is absent."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise bad_type(self.path(name), "a boolean", value)
        return value

    def integer(self, name: str, low: int | None = None) -> int | None:
        """An integer, None where it is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():  # some languages know no integers
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad_type(self.path(name), "an integer", value)
        return int(_bounded(self.path(name), "integer", value, low, None))

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number, None where it is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad_type(self.path(name), "a decimal", value)
        return float(_bounded(self.path(name), "decimal", value, low, high))

    def object(self, name: str) -> JsonFields:
        """An object that must be there."""
        return as_fields(self._required(name), self.path(name))

    def objects(self, name: str) -> Iterator[JsonFields]:
        """The objects of an array that must be there."""
        value = self._required(name)
        if not isinstance(value, list):
            raise bad_type(self.path(name), "an array of objects", value)
        for index, item in enumerate(value):
            yield as_fields(item, f"{self.path(name)}[{index}]")

    def _required(self, name: str) -> Any:
        value = self.values.get(name)
        if value is None:
            raise missing(self.path(name))
        return value


def as_fields(value: Any, place: str) -> JsonFields:
    """An object at a place; raises ApiError for anything else."""
    if not isinstance(value, dict):
        raise bad_type(place or "body", "an object", value)
    return JsonFields(value, place)


def _bounded(path: str, kind: str, value: float, low: float | None, high: float | None) -> float:
    if low is not None and value < low:
        side, expected = "below minimum", f">= {low}"
    elif high is not None and value > high:
        side, expected = "above maximum", f"<= {high}"
    else:
        return value
    message = f"Invalid '{path}': {kind} {side} value. Expected a value {expected}, but got {value} instead."
    raise ApiError(400, message, f"{kind}_{side.replace(' ', '_')}_value", path)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
