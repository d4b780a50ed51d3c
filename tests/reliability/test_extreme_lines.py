"""One monstrous line between two good ones: an error or a verdict, bounded memory, and the good
ones judged as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from .runs import PLANTED, POLICY, Running

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(300)]
MB = 10**6
#: Above what a run of three short lines has. A line of 64 MiB, the longest that is read, comes as
#: bytes, is decoded, and its echo is written; the rest is the parser's.
CAP_BYTES = 800 * MB
GOOD = f'{{"id": "good", "text": "{PLANTED} 1"}}\n'.encode()

Write = Callable[[BinaryIO], object]


def of(*pieces: bytes | str) -> Write:
    data = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    return lambda file: [file.write(piece) for piece in data]


def text(content: str) -> Write:
    return of('{"text": "', content, '"}')


def meta(content: str) -> Write:
    return of('{"text": "2", "meta": ', content, "}")


def sparse(size: int) -> Write:
    """Zero bytes that take no room on the disk."""
    return lambda file: (file.seek(size, 1), file.write(b"x"))


#: A line, and whether it is read: a text that ends in an even number is allowed.
CASES: dict[str, tuple[Write, bool]] = {
    "a text of 60 MB": (text("a" * 60 * MB + " 2"), True),
    "a text of 100 MB": (text("a" * 100 * MB + " 2"), False),
    "a line of 1 GB": (sparse(1000 * MB), False),
    "60 MB that is not JSON": (of("a" * 60 * MB), False),
    "100,000 arrays deep": (meta("[" * 100_000 + "]" * 100_000), False),
    "100,000 objects deep": (meta('{"a":' * 100_000 + "1" + "}" * 100_000), False),
    "100,000 arrays never closed": (meta("[" * 100_000), False),
    "a text 100,000 deep": (of('{"text": ', "[" * 100_000, "]" * 100_000, "}"), False),
    "an id 100,000 deep": (of('{"text": "2", "id": ', "[" * 100_000, "]" * 100_000, "}"), False),
    "messages 100,000 deep": (of('{"messages": ', "[" * 100_000, "]" * 100_000, "}"), False),
    "10^6 keys": (of("{", *(f'"k{i}": 1, ' for i in range(MB)), '"text": "2"}'), True),
    "10^6 keys, one escaped": (
        of("{", *(f'"k{i}": 1, ' for i in range(MB)), '"a\\u0062": 1, "text": "2"}'), True),
    "10^6 times one key": (of("{", '"k": 1, ' * MB, '"text": "2"}'), True),
    "10^6 texts in one object": (of("{", '"text": "2", ' * MB, '"text": "2"}'), False),
    "10^6 numbers": (meta("[" + "1, " * MB + "1]"), True),
    "10^6 messages": (
        of('{"messages": [', '{"content": "2"}, ' * MB, '{"content": "2"}]}'), False),
    "100,000 messages": (
        of('{"messages": [', '{"content": "2"}, ' * 99_999, '{"content": "2"}]}'), False),
    "arguments of 10^7 values": (
        of('{"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "',
           "[" + "1," * 10 * MB + "1]", '"}}]}'), False),
    "10^7 numbers, a key escaped": (
        of('{"\\u0061": [', "1," * 10 * MB, '1], "text": "2"}'), False),
    "an id of 5,000 digits": (of('{"text": "2", "id": ', "9" * 5000, "}"), True),
    "a number of 10^6 digits": (meta("9" * MB), True),
    "an exponent of 5,000 digits": (meta("1e" + "9" * 5000), True),
    "a key twice": (of('{"text": "2", "text": "3"}'), False),
    "an escaped key twice": (of('{"text": "2", "te\\u0078t": "3"}'), False),
    "an empty line": (of(""), False),
    "10^6 spaces": (of(" " * MB), False),
    "10^6 spaces around": (of(" " * MB, '{"text": "2"}', " " * MB), True),
    "a text of 10^6 spaces": (text(" " * MB + "2"), True),
    "a text of 10^6 escapes": (text("\\u0041" * MB + "2"), True),
    "a text of 10^6 line ends": (text("\\n" * MB + "2"), True),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("extreme")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    (folder / "in.jsonl").write_bytes(GOOD * 3)
    run = Running(folder, "small.jsonl")
    run.finish()
    (folder / "small").write_text(str(run.peak_bytes()))
    yield folder
    for name in ("in.jsonl", "out.jsonl"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_memory_is_bounded_and_the_run_goes_on(folder: Path, name: str) -> None:
    write, read = CASES[name]
    with (folder / "in.jsonl").open("wb") as file:
        file.write(GOOD)
        write(file)
        file.write(b"\n" + GOOD)
    run = Running(folder, "out.jsonl")
    assert run.end() == (0 if read else 3), run.said()
    more = run.peak_bytes() - int((folder / "small").read_text())
    print(f"{name}: {more / MB:.0f} MB")
    assert more < CAP_BYTES
    first, middle, last = (folder / "out.jsonl").read_bytes().splitlines()
    for line in (first, last):
        assert line.startswith(b'{"id":"good","action":"flag"')
        assert b'"error":null' in line
    fields = msgspec.json.decode(middle, type=dict[str, msgspec.Raw])
    error, action = bytes(fields["error"]), bytes(fields["action"])
    assert (error == b"null") == read, error[:200]
    assert action == (b'"allow"' if read else b'"flag"')
    assert len(error) < 500


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_a_field_of_100_mb_in_other_files(folder: Path, kind: str) -> None:
    head = b"text\n" if kind == "csv" else b""
    (folder / f"in.{kind}").write_bytes(head + b"a 1\n" + b"b" * 100 * MB + b"\nc 1\n")
    run = Running(folder, "out.jsonl", source=f"in.{kind}")
    assert run.end() == 3, run.said()
    assert run.peak_bytes() - int((folder / "small").read_text()) < CAP_BYTES
    lines = [msgspec.json.decode(x) for x in (folder / "out.jsonl").read_bytes().splitlines()]
    assert len(lines) >= 2
    assert any(line["error"] for line in lines)
    assert [line["action"] for line in lines] == ["flag"] * len(lines)
    (folder / f"in.{kind}").unlink()
