"""What a record of a conversation says: every text in it, whose words it is, and where it stands.

The forms are those of OpenAI chat and Responses and of Anthropic messages, as requests are written
and logged. Each is a table of fields, so that all that is read can be seen at a glance:

    FIELDS   of a record      ITEMS   of ``messages`` and ``input``      PARTS   of content

A field that no table has may hold what carries no text (a number, true, null). Where it carries
any, NotRead says where: what was not read must not pass as if it had been. Errors name places and
fields, never what a record holds there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardkit.text.chat_fields import (
    Form,
    Kind,
    NotRead,
    Place,
    Reader,
    Said,
    identifier,
    json_value,
    media_type,
    no_text,
    not_text,
    nothing_in,
    object_of,
    objects,
    passed_over,
    sealed,
    spoken_by,
    text,
)  # fmt: skip
from guardkit.text.json_text import RepeatedKey, TooManyValues, is_name, kind_of, parsed_once
from guardkit.types import Role


def _parts(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Read content: a string, or a list of parts. Several parts that are text are read as one,
    too: so they reach a model, and an attack may be cut in two."""
    if isinstance(value, str) or not isinstance(value, list):
        return text(reader, value, place, role, "a string or a list of parts")
    texts = []
    for i, part in enumerate(value):
        at = place.item(i)
        if isinstance(part, str):
            reader.add(part, at, role)
            texts.append(part)
        elif isinstance(part, dict):
            form = _form_of(part, PARTS, "text", at)
            reader.form(form, part, at, role)
            if form is _TEXT_PART:
                texts.append(part["text"])
        else:
            nothing_in(part, at, "a part such as {'type': 'text', 'text': '...'}")
    if len(texts) > 1:
        reader.add("\n".join(texts), place, role)
    return None


def _items(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    """Read a string, or a list of messages, calls, results and strings; those without a role of
    their own are the words of ``role``."""
    if isinstance(value, str) or not isinstance(value, list):
        return text(reader, value, place, role, "a string or a list of messages")
    for i, item in enumerate(value):
        at = Place(f"{place.message}[{i}]")
        if isinstance(item, dict):
            kind = item.get("type")
            if isinstance(kind, str) and kind in PARTS:
                reader.form(PARTS[kind], item, at, role)
            else:
                form = _form_of(item, ITEMS, "message", at)
                reader.form(form, item, at, _role(reader, item.get("role"), at, role))
        else:
            text(reader, item, at, role, "a message")
    return None


def _messages(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    if not isinstance(value, list):
        raise NotRead(f"{_NO_MESSAGES} and is {kind_of(value)}")
    for i, message in enumerate(value):
        if not isinstance(message, dict):
            raise NotRead(f"{_NO_MESSAGES}; {place.item(i)} is {kind_of(message)}")
    _items(reader, value, place, role)


def _tools(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    for i, tool in enumerate(value if isinstance(value, list) else [value]):
        json_value(reader, tool, Place(f"{place.message}[{i}]"), role)


#: Roles as they are written. Any other is nobody's: every category judges what it says.
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}

_COMMON: Mapping[str, Kind] = {
    "type": passed_over,
    "role": identifier,
    "id": identifier,
    "status": identifier,
    "cache_control": object_of(Form({"type": identifier, "ttl": identifier})),
}
_FUNCTION = Form({"name": text, "arguments": json_value})
_TOOL_CALL = Form(
    {
        **_COMMON,
        "type": identifier,
        "function": object_of(_FUNCTION),
        "custom": object_of(Form({"name": text, "input": json_value})),
        "name": text,
        "arguments": json_value,
        "args": json_value,
    }
)
_TEXT_PART = Form(
    {**_COMMON, "text": text, "annotations": json_value, "citations": json_value}, "text"
)
_CALLER = Form({"type": identifier, "tool_id": identifier})
_TOOL_USE = Form(
    {
        **_COMMON,
        "name": text,
        "server_name": text,
        "input": json_value,
        "caller": object_of(_CALLER),
    }
)
_TOOL_RESULT = Form({**_COMMON, "tool_use_id": identifier, "content": _parts}, role="tool")
_CALL_OUTPUT = Form({**_COMMON, "call_id": identifier, "output": _parts}, role="tool")
_SOURCE = Form(
    # "text" and "content" are read; what else there is (base64, url, file) names itself
    {"type": identifier, "media_type": media_type, "data": not_text, "url": not_text,
     "file_id": not_text, "content": _parts}
)  # fmt: skip
_TEXT_SOURCE = Form({**_SOURCE.fields, "data": text})


def _source(reader: Reader, value: Any, place: Place, role: Role | None) -> None:
    if not isinstance(value, dict):
        return text(reader, value, place, role)  # of a search result: where it was found
    form = _TEXT_SOURCE if value.get("type") == "text" else _SOURCE
    return reader.form(form, value, place, role)


#: Parts of content by their ``type``. Any other, an image or a file, cannot be judged as text.
PARTS: Mapping[str, Form] = {
    **dict.fromkeys(("text", "input_text", "output_text"), _TEXT_PART),
    **dict.fromkeys(("summary_text", "reasoning_text"), Form({**_COMMON, "text": text}, "text")),
    "refusal": Form({**_COMMON, "refusal": text}, "refusal"),
    "thinking": Form({**_COMMON, "thinking": text, "signature": sealed}, "thinking"),
    "redacted_thinking": Form({**_COMMON, "data": sealed}, "data"),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), _TOOL_USE),
    **dict.fromkeys(("tool_result", "mcp_tool_result"), _TOOL_RESULT),
    "web_search_tool_result": Form({**_TOOL_RESULT.fields, "content": json_value}, role="tool"),
    "document": Form(
        {**_COMMON, "source": _source, "title": text, "context": text, "citations": json_value}
    ),
    "search_result": Form(
        {**_COMMON, "source": _source, "title": text, "content": _parts, "citations": json_value}
    ),
}

#: What stands in ``messages`` and ``input``, by its ``type``; without one it is a message.
ITEMS: Mapping[str, Form] = {
    "message": Form(
        {
            **_COMMON,
            "role": passed_over,
            "content": _parts,
            "name": text,
            "refusal": text,
            "reasoning": text,
            "reasoning_content": text,
            "thinking": text,
            "tool_calls": objects(_TOOL_CALL),
            "function_call": object_of(_FUNCTION),
            "tool_call_id": identifier,
            "tool_name": text,
            "annotations": json_value,
            "audio": object_of(
                Form({"id": identifier, "transcript": text, "data": not_text}, "transcript")
            ),
        }
    ),
    "function_call": Form(
        {**_COMMON, "call_id": identifier, "name": text, "arguments": json_value}, role="assistant"
    ),
    "custom_tool_call": Form(
        {**_COMMON, "call_id": identifier, "name": text, "input": json_value}, role="assistant"
    ),
    "function_call_output": _CALL_OUTPUT,
    "custom_tool_call_output": _CALL_OUTPUT,
    "mcp_call": Form(
        {
            **_COMMON,
            "server_label": text,
            "name": text,
            "arguments": json_value,
            "output": spoken_by("tool", json_value),
            "error": spoken_by("tool", json_value),
        },
        role="assistant",
    ),
    "web_search_call": Form({**_COMMON, "action": json_value}, role="assistant"),
    "reasoning": Form(
        {**_COMMON, "summary": _parts, "content": _parts, "encrypted_content": sealed},
        role="assistant",
    ),
}

#: Parts that are known, and known to be no text: errors may name them.
_OTHER = {
    "image_url", "image", "input_image", "input_audio", "audio", "file", "input_file", "video",
    "video_url", "container_upload", "item_reference", "computer_call", "image_generation_call",
}  # fmt: skip

_system: Kind = spoken_by("system", _items)

#: The fields that are one text, and no conversation.
PLAIN = {"text", "prompt"}
#: The fields of a record that carry text, in the order they are read. All are judged.
FIELDS: Mapping[str, Kind] = {
    "text": text,
    "prompt": text,
    "system": _system,
    "instructions": _system,
    "messages": _messages,
    "input": spoken_by("user", _items),
}

_NO_MESSAGES = "'messages' must be a list of messages with content"


#: What stands beside a conversation and says what the tools are for. Without one it is no text of
#: the record's.
TOOL_FIELDS: Mapping[str, Kind] = dict.fromkeys(("tools", "functions"), spoken_by("system", _tools))


def read_chat(fields: Mapping[str, Any]) -> list[Said]:
    """Return every text that ``fields`` carry: those of FIELDS and, where there is a conversation,
    of TOOL_FIELDS; the rest is not looked at.

    Empty texts are left out where there are others. Raises NotRead where a part may carry text
    and no table has it, or where it is no text at all, such as an image.
    """
    reader = Reader()
    try:
        for name, kind in FIELDS.items():
            if fields.get(name) is not None:
                kind(reader, fields[name], Place(name), None)
        for name, kind in TOOL_FIELDS.items():
            if fields.get(name) is not None and not PLAIN.issuperset(_given(fields)):
                kind(reader, fields[name], Place(name), None)
        for said in reader.said:
            said.text.encode()
    except RecursionError as error:
        raise NotRead("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise NotRead(
            f"{Place(said.origin.message, said.origin.part or '')} holds half a surrogate pair "
            "(\\ud800)"
        ) from error
    return [said for said in reader.said if said.text] or reader.said[:1]


def _given(fields: Mapping[str, Any]) -> list[str]:
    return [name for name in FIELDS if fields.get(name) is not None]


def parse_chat(name: str, data: bytes) -> Any:
    """Return the value of the JSON ``data``, the field ``name``. Raises NotRead where it has too
    many values, or an object a key twice: parsers disagree which one counts, and what is judged
    must be what others will read."""
    try:
        return parsed_once(data)
    except TooManyValues as error:
        raise NotRead(f"{name!r} {error}; split the line") from error
    except RepeatedKey as error:
        key = repr(error.key) if is_name(error.key) else "a key"
        raise NotRead(f"{key} is given more than once") from None
    except RecursionError as error:
        raise NotRead("nested too deeply") from error


def _role(reader: Reader, value: Any, place: Place, default: Role | None) -> Role | None:
    if isinstance(value, str):
        if value not in _ROLES:
            identifier(reader, value, place.field("role"), None)
        return _ROLES.get(value)
    nothing_in(value, place.field("role"), "a string")
    return default


def _form_of(
    value: Mapping[str, Any], forms: Mapping[str, Form], default: str, place: Place
) -> Form:
    kind = default if value.get("type") is None else value["type"]
    if isinstance(kind, str) and kind in forms:
        return forms[kind]
    known = isinstance(kind, str) and kind in _OTHER
    no_text(f"{place}, {f'of type {kind!r}' if known else 'of a type that is not known'}")
