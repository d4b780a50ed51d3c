"""Messages about a policy file: the schema's errors in plain words, and unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from guardkit.errors import Problem
from guardkit.policy.schema import FLAG_FORMS, KIND_TAG, KINDS, Policy
from guardkit.yamlfile import REFUSED, Document, Place, dotted


def schema_problems(error: ValidationError, document: Document) -> list[Problem]:
    """Return the schema's errors, each with its line, but for values that ``read_yaml`` refused:
    those are reported already."""
    problems = []
    for detail in error.errors(include_url=False):
        if detail["input"] is REFUSED:
            continue
        loc = detail["loc"]
        place: Place = tuple(p for p in loc if not (isinstance(p, str) and p.startswith(KIND_TAG)))
        if place and place[-1] == "[key]":  # pydantic's word for "the key itself"
            place = place[:-1]
        problems.append(Problem(document.line(place), dotted(place), _message(detail, Policy)))
    return problems


def option_mistakes(
    error: ValidationError, options: type[BaseModel]
) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with a member's options, each with its place below them."""
    for detail in error.errors(include_url=False):
        if detail["input"] is not REFUSED:
            yield detail["loc"], _message(detail, options)


def _message(detail: ErrorDetails, root: type[BaseModel]) -> str:
    value = _show(detail["input"])
    match detail["type"]:
        case "extra_forbidden":
            return unknown(detail["loc"][-1], _allowed_keys(detail["loc"][:-1], root), "key")
        case "missing":
            return "required, but missing"
        case "string_type":
            return f"must be text (put it in quotes), got {value}"
        case "model_type" | "dict_type":
            return f"must be a mapping (key: value), got {value}"
        case "string_pattern_mismatch" | "string_too_long" if detail["loc"][-1] == "[key]":
            return f"must be 1 to 64 letters, digits and _ . / -, got {value}"
        case "node" | "flag_at" if isinstance(detail["input"], dict):
            return f"{detail['msg']}, got {', '.join(detail['input']) or 'none'}"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {value}"


def _allowed_keys(loc: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """Return the keys of the mapping at ``loc`` of ``root``, a location as pydantic gives it."""
    model: Any = root
    for part in loc:
        if isinstance(part, str) and part.startswith(KIND_TAG):
            model = {**KINDS, **FLAG_FORMS}[part.removeprefix(KIND_TAG)]
        elif isinstance(model, type) and issubclass(model, BaseModel):
            model.model_rebuild()  # until now the types of its fields may be mere names
            model = model.model_fields[str(part)].annotation
            if NoneType in get_args(model):  # Settle | None
                model = get_args(model)[0]
        else:  # dict[Name, X] or list[X]
            model = get_args(model)[-1]
    return list(model.model_fields)


def unknown(name: Any, known: Sequence[str], what: str) -> str:
    """Return that there is no such ``what``, which name may be meant, and which names there are."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}? Known" if close else "; known"
    return f"unknown {what} {name!r}{hint}: {', '.join(sorted(known)) or 'none'}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
