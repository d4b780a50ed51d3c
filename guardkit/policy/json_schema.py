"""JSON Schema of a policy file, for editors: they complete keys and mark mistakes while one types.

It says less than ``guardkit policy check``: what one part of a file means for another (a member
that is not there, bounds out of order) no schema can say.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from guardkit.policy.schema import KINDS, Policy

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NODE = "#/$defs/Node"


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a policy file."""
    schema = Policy.model_json_schema(schema_generator=_Generator)
    kinds = [{"$ref": f"#/$defs/{model.__name__}"} for model in KINDS.values()]
    schema = _rewritten(schema, {"oneOf": kinds})
    schema["$defs"]["Node"] = {
        "description": f"Has exactly one of the keys {', '.join(KINDS)}.",
        "oneOf": kinds,
    }
    about = {
        "$schema": _DRAFT,
        "$id": "urn:guardkit:policy:1",
        "title": "guardkit policy",
        "description": "Which classifiers to ask, and what follows.",
    }
    return about | {key: value for key, value in schema.items() if key not in about}


class _Generator(GenerateJsonSchema):
    """Without a title for every field, which only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _rewritten(value: Any, node: dict[str, Any]) -> Any:
    """Return ``value`` with every ``node`` a reference, names that fit no pattern refused, and
    docstrings' quotes as editors show them."""
    if isinstance(value, list):
        return [_rewritten(item, node) for item in value]
    if not isinstance(value, dict):
        return value.replace("``", "`") if isinstance(value, str) else value
    result = {key: _rewritten(item, node) for key, item in value.items()}
    if named := result.pop("patternProperties", None):  # which alone lets other names be anything
        ((pattern, inner),) = named.items()
        result |= {"propertyNames": {"pattern": pattern}, "additionalProperties": inner}
    if all(result.get(key) == wanted for key, wanted in node.items()):
        return {"$ref": _NODE} | {k: v for k, v in result.items() if k not in node}
    return result
