"""Errors that teach: which key is wrong, and what is allowed there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo


def explain(error: ValidationError, root: type[BaseModel], data: Mapping[str, Any], origin: str) -> str:
    """Return a message that names each wrong key below ``root``, its value and what is allowed."""
    lines = [f"{origin}: {error.error_count()} wrong parameter(s)"]
    for item in error.errors():
        location = [str(p) for p in item["loc"]]
        key = ".".join(location)
        if item["type"] == "extra_forbidden":
            allowed = _keys(root, location[:-1])
            close = difflib.get_close_matches(location[-1], allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            lines.append(f"  {key} = {item['input']!r}: unknown key.{hint} Allowed: {', '.join(allowed)}")
        elif not location:
            lines.append(f"  {item['msg'].removeprefix('Value error, ')}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = f" = {item['input']!r}" if _may_be_shown(root, location) else " = (not shown)"
            if _section_at(root, location) is not None and isinstance(item["input"], dict):
                shown = ""  # a whole section says nothing
            lines.append(f"  {key}{shown}: {message[0].lower()}{message[1:]}{_allowed(root, location)}")
    return "\n".join(lines)


def _section_at(root: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    """Return the section at a location; a key of a mapping or an index of a list leads to what they hold."""
    annotation: Any = root
    for part in location:
        section, held = _section(annotation), _held(annotation)
        if section is not None:
            fields = section.model_fields.items()
            field = next((f for n, f in fields if part in (n, f.alias)), None)
            annotation = None if field is None else field.annotation
        else:
            annotation = held
    return _section(annotation)


def _section(annotation: Any) -> type[BaseModel] | None:
    return next((a for a in _types(annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None)


def _held(annotation: Any) -> Any:
    """Return the type of what a mapping or a list holds, where the annotation is one."""
    collections = [a for a in _types(annotation) if get_origin(a) in (dict, list, tuple)]
    return get_args(collections[0])[1 if get_origin(collections[0]) is dict else 0] if collections else None


def _types(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and those that it joins or wraps."""
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, type(int | None)):
        for argument in get_args(annotation):
            yield from _types(argument)


def _keys(root: type[BaseModel], location: Sequence[str]) -> list[str]:
    section = _section_at(root, location)
    return [] if section is None else [f.alias or n for n, f in section.model_fields.items()]


def _field_at(root: type[BaseModel], location: Sequence[str]) -> FieldInfo | None:
    section = _section_at(root, location[:-1])
    fields = section.model_fields if section else {}
    return next((f for n, f in fields.items() if location[-1] in (n, f.alias)), None)


def _may_be_shown(root: type[BaseModel], location: Sequence[str]) -> bool:
    """Whether a wrong value is no secret that somebody put in the wrong place (``repr=False``)."""
    field = _field_at(root, location)
    return field is None or field.repr


def _allowed(root: type[BaseModel], location: Sequence[str]) -> str:
    field = _field_at(root, location)
    if field is None:
        return ""
    bounds = [
        f"{symbol} {getattr(m, name)}"
        for m in field.metadata
        for name, symbol in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if getattr(m, name, None) is not None
    ]
    choices = [repr(c) for a in _types(field.annotation) if get_origin(a) is Literal for c in get_args(a)]
    text = " or ".join(filter(None, [", ".join(choices), " and ".join(bounds)]))
    return f" (allowed: {text})" if text else ""
