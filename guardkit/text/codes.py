"""Spans of a text that stand for bytes: base64, base32, ascii85, hexadecimal, lists of numbers.

A span is undone where what comes out is text: UTF-8 or UTF-16, as it is or packed by gzip or zlib.
"""

from __future__ import annotations

import base64
import codecs
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

from guardkit.text.canonical import is_control
from guardkit.text.english import known

#: A shorter span may be readable by chance once decoded, or is too short to hide an instruction.
_LEAST_BYTES = 8
_BASE64 = re.compile(r"(?<![\w+/=-])(?:[\w+/-]{40,}\r?\n)*[\w+/-]{11,}={0,2}(?![\w+/-])", re.ASCII)
_BASE32 = re.compile(r"(?<![\w+/=-])(?:[A-Z2-7]{40,}\r?\n)*[A-Z2-7]{16,}={0,6}(?![\w+/=-])")
_HEX = re.compile(r"(?<!\w)(?:(?:\\x|0x)?[0-9A-Fa-f]{2}[\s:,-]?){8,}(?!\w)")
_HEX_NOISE = re.compile(r"\\x|0x|[\s:,-]")
_BASE85 = re.compile(r"<~([!-uz\s]{10,})~>|(?<!\S)[!-~]{20,}(?!\S)")
#: At least eight numbers, as in ``_LEAST_BYTES``, of at least two figures.
_NUMBERS = re.compile(
    r"(?<![\w.])(?:\\|0[bo])?[0-9]{2,8}(?:[\s,;:|/+\\-]{1,4}(?:0[bo])?[0-9]{2,8}){7,}(?!\w)"
)
_NUMBER = re.compile(r"(?:0[bo])?([0-9]+)")
_BITS = re.compile(r"(?<!\w)[01]{40,}(?!\w)")
#: Share of characters in English words where the code by itself proves nothing, and in so few
#: bytes that a long word may spell some text by chance.
_LEAST_KNOWN, _LEAST_KNOWN_SHORT, _CERTAIN_BYTES = 0.5, 0.3, 12
_GZIP, _ZLIB = 31, 15  # zlib's names for them
_BASES = (2, 8, 10)


class Codes:
    """Undoes codes; what is unpacked has ``room`` for so many characters in all. Where there is
    more, the text becomes longer than that, so that its reader sees that it is too long."""

    def __init__(self, room: int) -> None:
        self._room = room

    def undone(self, text: str) -> str:
        """Return ``text`` with the spans that stand for text replaced by it."""
        text = _BITS.sub(lambda match: _of_numbers(match[0], _bytes_of_bits(match[0]), 2), text)
        text = _NUMBERS.sub(lambda match: _of_numbers(match[0], _NUMBER.findall(match[0])), text)
        text = _HEX.sub(lambda match: self._readable(match[0], _from_hex), text)
        text = _BASE32.sub(lambda match: self._readable(match[0], _from_base32), text)
        text = _BASE64.sub(lambda match: self._readable(match[0], _from_base64), text)
        return _BASE85.sub(self._of_base85, text)

    def _readable(self, span: str, decode: Callable[[str], bytes]) -> str:
        """Return what ``span`` decodes to if that is text, else the span."""
        try:
            data = decode(span)
        except ValueError:  # binascii.Error is one
            return span
        found = self._text(data) if len(data) >= _LEAST_BYTES else None
        if found is None or (len(data) < _CERTAIN_BYTES and known(found) < _LEAST_KNOWN_SHORT):
            return span
        return found

    def _of_base85(self, match: re.Match[str]) -> str:
        """Both alphabets can spell any long word without blanks: English must come out."""
        inner = match[1] or match[0]
        for decode in (base64.a85decode, base64.b85decode):
            found = self._readable(inner, decode)
            if found != inner and known(found) >= _LEAST_KNOWN:
                return found
        return match[0]

    def _text(self, data: bytes) -> str | None:
        """Return what bytes say as text, unpacked where they are packed; None where it is none."""
        for how in _packings(data):
            # a character has four bytes at most: what is left out is beyond the room
            most = 4 * (self._room + 1)
            try:
                unpacked = zlib.decompressobj(how).decompress(data, most)
            except zlib.error:
                continue
            found = _as_text(unpacked, whole=len(unpacked) < most)
            if found is not None:
                found = found[: self._room + 1]
                self._room = max(0, self._room - len(found))
            return found
        return _as_text(data)


def _packings(data: bytes) -> Iterator[int]:
    if data[:2] == b"\x1f\x8b":
        yield _GZIP
    elif data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0:
        yield _ZLIB


def _as_text(data: bytes, *, whole: bool = True) -> str | None:
    encoding = "utf-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif 4 * data[1::2].count(0) > len(data):  # Latin letters
        encoding = "utf-16-le"
    elif 4 * data[::2].count(0) > len(data):
        encoding = "utf-16-be"
    try:
        found = codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except UnicodeDecodeError:
        return None
    return found if any(map(str.isalpha, found)) and not any(map(is_control, found)) else None


def _from_base64(span: str) -> bytes:
    packed = re.sub(r"\s", "", span).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)


def _from_base32(span: str) -> bytes:
    packed = re.sub(r"\s", "", span).rstrip("=")
    return base64.b32decode(packed + "=" * (-len(packed) % 8))


def _from_hex(span: str) -> bytes:
    return bytes.fromhex(_HEX_NOISE.sub("", span))


def _bytes_of_bits(span: str) -> list[str]:
    """Cut a run of zeros and ones into characters of eight of them, or seven."""
    size = 8 if len(span) % 8 == 0 else 7
    return [span[i : i + size] for i in range(0, len(span), size)]


def _of_numbers(span: str, numbers: Sequence[str], *bases: int) -> str:
    """Return what ``numbers`` say as codes of characters in the base in which they are the most
    English; ``span`` where they are English in none."""
    best, least = span, _LEAST_KNOWN
    for base in bases or _BASES:
        try:
            found = bytes(int(number, base) for number in numbers).decode()
        except ValueError:  # no figure of this base, no byte, no UTF-8
            continue
        if (share := known(found)) >= least and not any(map(is_control, found)):
            best, least = found, share
    return best
