"""The reference of the API as a page: what OpenAPI says, for people, without a script."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any


def reference(schema: Mapping[str, Any]) -> str:
    """Return an HTML page of the OpenAPI ``schema``."""
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    parts = [_operation(m, p, op) for p, ops in schema["paths"].items() for m, op in ops.items()]
    schemas = schema.get("components", {}).get("schemas", {})
    parts += ["<h2 id=schemas>Bodies</h2>"]
    parts += [
        f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"{_json(body)}</details>"
        for name, body in schemas.items()
    ]
    about = escape(schema["info"].get("description", ""))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title}: reference</title><link rel=stylesheet href=page.css></head><body><main>"
        f"<h1>{title}</h1><p>{about} <a href='openapi.json'>OpenAPI schema</a>, "
        f"<a href='.'>try a text</a>.</p>{''.join(parts)}</main></body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    about = "".join(f"<p>{_prose(p)}</p>" for p in operation.get("description", "").split("\n\n"))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    taken = f"<p>Takes {_named(body['schema'])}.</p>" if body else ""
    content = operation["responses"].get("200", {}).get("content", {})
    answered = content.get("application/json", {}).get("schema", {})
    given = f"<p>Answers {_named(answered)}.</p>" if answered else ""
    heading = f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    return f"<section>{heading}{about}{taken}{given}</section>"


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _named(schema: Mapping[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f"<a href='#{escape(name)}'><code>{escape(name)}</code></a>" if name else _json(schema)


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
