"""Bytes that are no text, in the middle of a file: that line is an error with its number, and
its neighbours are what they are without it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from guardkit.cli.main import main

from .runs import PLANTED, POLICY

pytestmark = pytest.mark.reliability
BEFORE, AFTER = '{"id": "a", "text": "1"}', '{"id": "z", "text": "2"}'
TEXT = "naïve “quotes” 3"


def line(text: bytes) -> bytes:
    return b'{"id": "m", "text": "' + text + b'"}'


ENCODED = f'{{"id": "m", "text": "{TEXT}"}}'
#: A line, and what its error says; None: it is read.
LINES: dict[str, tuple[bytes, str | None]] = {
    "utf-8": (ENCODED.encode(), None),
    "byte order mark": (b"\xef\xbb\xbf" + ENCODED.encode(), "not JSON"),  # only a file has one
    "utf-16 le": (ENCODED.encode("utf-16-le"), "not"),
    "utf-16 be": (ENCODED.encode("utf-16-be"), "not"),
    "utf-16 with mark": (ENCODED.encode("utf-16"), "not UTF-8"),
    "utf-32 le": (ENCODED.encode("utf-32-le"), "not"),
    "utf-32 be": (ENCODED.encode("utf-32-be"), "not"),
    "utf-32 with mark": (ENCODED.encode("utf-32"), "not UTF-8"),
    "utf-7": (line(b"na+AO8-ve 3"), None),  # ASCII is UTF-8, and means itself
    "latin-1": (line("naïve 3".encode("latin-1")), "not UTF-8: byte 0xef"),
    "cp1252": (line("“q” 3".encode("cp1252")), "not UTF-8: byte 0x93"),
    "shift-jis": (line("日本 3".encode("shift-jis")), "not UTF-8"),
    "gb18030": (line("中文 3".encode("gb18030")), "not UTF-8"),
    "ebcdic": (ENCODED.replace("ï", "i").replace("“", "'").replace("”", "'").encode("cp037"),
               "not UTF-8"),
    "cesu-8": (line(b"\xed\xa0\xbd\xed\xb8\x80"), "not UTF-8"),
    "high surrogate": (line(b"\xed\xa0\x80"), "not UTF-8"),
    "low surrogate": (line(b"\xed\xb0\x80"), "not UTF-8"),
    "escaped high surrogate": (line(b"\\ud800"), "half a surrogate pair"),
    "escaped low surrogate": (line(b"\\udc00"), "half a surrogate pair"),
    "escaped pair swapped": (line(b"\\udc00\\ud800"), "half a surrogate pair"),
    "escaped pair": (line(b"\\ud83d\\ude00 3"), None),
    "overlong /": (line(b"\xc0\xaf"), "not UTF-8: byte 0xc0"),
    "overlong quote": (line(b"\xc0\xa2"), "not UTF-8: byte 0xc0"),
    "overlong nul": (line(b"\xc0\x80"), "not UTF-8: byte 0xc0"),
    "overlong of three": (line(b"\xe0\x80\xaf"), "not UTF-8: byte 0xe0"),
    "overlong of four": (line(b"\xf0\x80\x80\xaf"), "not UTF-8: byte 0xf0"),
    "beyond the last": (line(b"\xf4\x90\x80\x80"), "not UTF-8: byte 0xf4"),
    "five bytes": (line(b"\xf8\x88\x80\x80\x80"), "not UTF-8: byte 0xf8"),
    "0xff": (line(b"\xff"), "not UTF-8: byte 0xff"),
    "lone continuation": (line(b"\x80"), "not UTF-8: byte 0x80"),
    "cut short": (line(b"\xe2\x82"), "not UTF-8: byte 0xe2"),
    "noncharacter": (line("\uffff 3".encode()), None),
    "nul": (line(b"\x00 3"), "not JSON"),
    "escaped nul": (line(b"\\u0000 3"), None),
    "only nul": (b"\x00" * 40, "not JSON"),
    "bell": (line(b"\x07"), "not JSON"),
    "delete": (line(b"\x7f 3"), None),
    "c1 controls": (line("\x85\x9f 3".encode()), None),
    "line separators": (line("\u2028\u2029 3".encode()), None),
    "vertical tab and form feed": (line(b"\x0b\x0c"), "not JSON"),
    "carriage return in a text": (line(b"\r 3"), "not JSON"),
    "carriage return at the end": (ENCODED.encode() + b"\r", None),
    "two carriage returns": (ENCODED.encode() + b"\r\r", None),
    "carriage return between": (b'{"id": "m",\r"text": "3"}', None),
    "two objects by carriage return": (line(b"3") + b"\r" + line(b"4"), "not JSON"),
    "empty": (b"", "empty"),
    "carriage return alone": (b"\r", "empty"),
    "gzip": (gzip.compress(ENCODED.encode(), mtime=0).replace(b"\n", b""), "not UTF-8"),
    "half an object": (ENCODED.encode()[:20], "not JSON"),
    "without its first byte": (ENCODED.encode()[1:], "expected an object"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY, "utf-8")


def classify(name: str, code: int | None = None) -> list[dict]:
    got = main(["classify", name, "--policy", "policy.yaml", "--out", "out.jsonl"])
    assert got in ((0, 3) if code is None else (code,))
    return [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("final", [b"\n", b""], ids=["", "without a final newline"])
def test_a_line_of_bytes(name: str, final: bytes) -> None:
    content, error = LINES[name]
    Path("in.jsonl").write_bytes(b"\n".join([BEFORE.encode(), content, AFTER.encode()]) + final)
    first, middle, last = classify("in.jsonl", 0 if error is None else 3)
    assert (first["id"], first["action"], first["error"]) == ("a", "flag", None)
    assert (last["id"], last["action"], last["error"]) == ("z", "allow", None)
    if error is None:
        assert middle["error"] is None
    else:
        assert middle["error"].startswith("line 2: ")
        assert error in middle["error"]
        assert middle["action"] == "flag"  # closed


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp037"])
def test_a_whole_file_in_another_encoding_is_errors_and_nothing_is_judged(encoding: str) -> None:
    Path("in.jsonl").write_bytes(f"{BEFORE}\n{AFTER}\n".encode(encoding))
    assert all(line["error"] for line in classify("in.jsonl", 3))


def packed(compression: str, content: bytes) -> bytes:
    if compression == "gz":
        return gzip.compress(content, mtime=0)
    return pa.Codec("zstd").compress(content, asbytes=True)


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_compressed_file_cut_short_ends_in_an_error(
    compression: str, kind: str, kept: float, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{PLANTED} {hash_} {i}" for i, hash_ in enumerate(map(_noise, range(9_000)))]
    lines = [json.dumps({"text": row}) if kind == "jsonl" else row for row in rows]
    content = "\n".join(["text", *lines] if kind == "csv" else lines).encode() + b"\n"
    name = f"in.{kind}.{compression}"
    whole = packed(compression, content)
    Path(name).write_bytes(whole)
    expected = classify(name, 0)
    Path(name).write_bytes(whole[: int(len(whole) * kept)])
    if compression == "zst" and kept == 0.1:  # not one block is whole: nothing to begin with
        assert main(["classify", name, "--policy", "policy.yaml", "--out", "out.jsonl"]) == 2
        assert f"{name}: cannot be read" in capsys.readouterr().err
        return
    out = classify(name, 3)
    assert "the file cannot be read from here on" in out[-1]["error"]
    assert out[-1]["action"] == "flag"
    assert out[:-1] == expected[: len(out) - 1]
    assert PLANTED not in capsys.readouterr().err


def _noise(i: int) -> str:
    import hashlib

    return hashlib.sha256(str(i).encode()).hexdigest()
