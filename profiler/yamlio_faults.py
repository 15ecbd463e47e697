"""pydantic's validation errors in plain words, at the place in the file that they are about."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import ErrorDetails

from profiler.errors import nearest

Location = tuple[str | int, ...]
"""Keys and list indices from the root of a document to one value."""

_LONGEST_SHOWN = 60
_BARE_KEY = re.compile(r"[\w-]+\Z")


def plain_words(error: ValidationError, model: type[BaseModel], value: Any) -> list[tuple[Location, str]]:
    """Say what is wrong and where, one entry per place.

    Args:
        error: what validating ``value`` against ``model`` raised.
        model: the model.
        value: the document as JSON values.
    """
    by_place: dict[Location, list[str]] = {}
    for detail in error.errors(include_url=False):
        location, owners = _place(detail, model, value)
        what = _words(detail, owners)
        said = by_place.setdefault(location, [])
        if what not in said:
            said.append(what)
    # Several errors at one place are the branches of a union: any one of them would do.
    return [(location, ", or ".join(said)) for location, said in by_place.items()]


def show_key(key: str) -> str:
    """``key`` as it can stand in a one-line message."""
    if not _BARE_KEY.match(key):
        key = json.dumps(key)
    return key if len(key) <= _LONGEST_SHOWN else key[:_LONGEST_SHOWN] + "…"


def show_path(location: Location) -> str:
    """``location`` as ``field.path[2].name``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{show_key(part)}" for part in location)
    return "".join(parts).removeprefix(".")


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if shown.isprintable() else json.dumps(value)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"


def _place(
    detail: ErrorDetails, model: type[BaseModel], value: Any
) -> tuple[Location, list[type[BaseModel]]]:
    """Split pydantic's location into the place in the document and the models that own its last key.

    pydantic mixes names of union branches and ``[key]`` marks into its locations; what is not in
    the document is passed over, except the last part when it names a missing key.
    """
    location: list[str | int] = []
    owners: list[Any] = [model]
    types_here: list[Any] = [model]
    for position, part in enumerate(detail["loc"]):
        inside = isinstance(value, dict) and part in value
        inside = inside or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        last_and_missing = position == len(detail["loc"]) - 1 and detail["type"] == "missing"
        if not inside and not last_and_missing:
            continue
        location.append(part)
        owners = types_here
        types_here = [inner for outer in types_here for inner in _inside(outer, part)]
        value = value[part] if inside else None
    return tuple(location), [owner for owner in _flat(owners) if _is_model(owner)]


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _flat(annotations: Iterable[Any]) -> list[Any]:
    """Take ``Annotated``, unions and root models apart."""
    flat: list[Any] = []
    for annotation in annotations:
        origin = get_origin(annotation)
        if origin is Annotated:
            flat += _flat(get_args(annotation)[:1])
        elif origin in (Union, types.UnionType):
            flat += _flat(get_args(annotation))
        elif _is_model(annotation) and issubclass(annotation, RootModel):
            flat += _flat([annotation.model_fields["root"].annotation])
        else:
            flat.append(annotation)
    return flat


def _inside(annotation: Any, part: str | int) -> list[Any]:
    """Types that ``annotation`` allows for its element or field ``part``."""
    found: list[Any] = []
    for candidate in _flat([annotation]):
        if _is_model(candidate):
            found += [
                field.annotation
                for name, field in candidate.model_fields.items()
                if part in (name, field.alias, field.validation_alias)
            ]
        elif arguments := [argument for argument in get_args(candidate) if argument is not Ellipsis]:
            # tuple[A, B] has a type per place; list, dict and tuple[A, ...] end with that of all values.
            one_each = get_origin(candidate) is tuple and len(arguments) > 1
            found += arguments[int(part) : int(part) + 1] if one_each else arguments[-1:]
    return found


def _known_keys(owners: Iterable[type[BaseModel]]) -> list[str]:
    keys = {
        field.alias or name: None  # a dict keeps the order in which the model declares its fields
        for owner in owners
        for name, field in owner.model_fields.items()
    }
    return list(keys)


def _must_be(kind: str) -> Callable[[Mapping[str, Any], Any], str]:
    return lambda context, given: f"must be {kind}, not {_show(given)}"


def _text(context: Mapping[str, Any], given: Any) -> str:
    hint = "; put it in quotes" if isinstance(given, int | float) else ""
    return f"must be text, not {_show(given)}{hint}"


def _one_of(context: Mapping[str, Any], given: Any) -> str:
    expected = str(context["expected"])
    close = nearest(given, re.findall(r"'([^']*)'", expected)) if isinstance(given, str) else ""
    return f"must be {expected}, not {_show(given)}{close}"


def _bound(words: str, key: str) -> Callable[[Mapping[str, Any], Any], str]:
    return lambda context, given: f"must be {words} {context[key]}, not {_show(given)}"


def _count(words: str, key: str, unit: str) -> Callable[[Mapping[str, Any], Any], str]:
    return lambda context, given: f"must have {words} {context[key]} {unit}"


def _tag(context: Mapping[str, Any], given: Any) -> str:
    key = str(context["discriminator"]).strip("'")
    if "tag" not in context:
        return f"{key} is missing"
    return f"{key} must be one of {context['expected_tags']}, not {_show(context['tag'])}"


def _raised(context: Mapping[str, Any], given: Any) -> str:
    return " ".join(str(context["error"]).split())


_WORDS: dict[str, Callable[[Mapping[str, Any], Any], str]] = {
    "missing": lambda context, given: "is missing",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _must_be("a whole number")),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type"), _must_be("a number")),
    **dict.fromkeys(("bool_type", "bool_parsing"), _must_be("true or false")),
    "none_required": _must_be("empty"),
    "string_type": _text,
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dict_type", "dataclass_type"), _must_be("a mapping")
    ),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), _must_be("a list")),
    **dict.fromkeys(("literal_error", "enum"), _one_of),
    **dict.fromkeys(("union_tag_invalid", "union_tag_not_found"), _tag),
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "multiple_of": _bound("a multiple of", "multiple_of"),
    "string_pattern_mismatch": _bound("text that matches", "pattern"),
    "too_short": _count("at least", "min_length", "entries"),
    "too_long": _count("at most", "max_length", "entries"),
    "string_too_short": _count("at least", "min_length", "characters"),
    "string_too_long": _count("at most", "max_length", "characters"),
    **dict.fromkeys(("value_error", "assertion_error"), _raised),
}


def _words(detail: ErrorDetails, owners: list[type[BaseModel]]) -> str:
    if detail["type"] == "extra_forbidden":
        known = _known_keys(owners)
        return f"unknown key{nearest(str(detail['loc'][-1]), known)} (known: {', '.join(known)})"
    words = _WORDS.get(detail["type"])
    if words is not None:
        return words(detail.get("ctx", {}), detail["input"])
    message = " ".join(detail["msg"].split())
    return message[:1].lower() + message[1:]
