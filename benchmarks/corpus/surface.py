"""Vary what a text looks like and not what it says, by the same chances whatever its label.

Case, the last sign, emoji, line ends and what a text is wrapped in are no reason to call it an
attack or harmless. A step that does not know the label cannot make them one.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

EMOJI = "😀😂🙂😉😍🤔🙄😅😎🥳😢😡👍👎👏🙏💪👋🤝🔥✨⭐🎉🚀✅❌❗❓💡📌📎📅📧🔒🔑🤖👀💯☕🍕🐱🎵😈🥺"
#: What a text may end with instead of its own last sign.
ENDINGS = (
    ".", ".", "!", "!", "!!", "...", "…", "?", "?", "??", "?!", " :)", ", thanks", " please",
    " pls", " ok",
)  # fmt: skip
#: Signs that end a sentence, those of Chinese and Japanese too.
STOPS = ".!?…\u3002\uff01\uff1f"
#: Shares of the texts that each step changes.
CASE, ENDING, EMOJIS, LINES, WRAPPED = 0.17, 0.28, 0.09, 0.1, 0.1
#: Characters up to which a text is shouted or has each word on its line: nobody does with pages.
SHORT = 300
WRAPS: tuple[Callable[[str], str], ...] = (
    lambda t: f'"{t}"',
    lambda t: f"'{t}'",
    lambda t: f"“{t}”",
    lambda t: f"«{t}»",
    lambda t: f"({t})",
    lambda t: f"[{t}]",
    lambda t: f"**{t}**",
    lambda t: f"*{t}*",
    lambda t: f"`{t}`",
    lambda t: f"```\n{t}\n```",
    lambda t: f"# {t}",
    lambda t: f"- {t}",
    lambda t: "> " + t.replace("\n", "\n> "),
    lambda t: f"<p>{t}</p>",
    lambda t: f"<div>{t}</div>",
    lambda t: f'<div class="message">\n  <p>{t}</p>\n</div>',
    lambda t: f"<text>{t}</text>",
    lambda t: f"<b>{t}</b>",
    lambda t: f"<!-- {t} -->",
    lambda t: f"User: {t}",
    lambda t: f"Input: {t}",
    lambda t: f"Message: {t}",
    lambda t: f"{t}\n--\nSent from my phone",
    lambda t: json.dumps({"message": t}, ensure_ascii=False),
    lambda t: json.dumps({"role": "user", "content": t}),
    lambda t: json.dumps({"text": t, "id": len(t)}, ensure_ascii=False, indent=2),
    lambda t: json.dumps([t], ensure_ascii=False),
    lambda t: f"message: {json.dumps(t, ensure_ascii=False)}",
)


def dress(text: str, rng: random.Random) -> str:
    """Return the text in one of the looks that people and programs give to texts."""
    # Each step draws before it looks at the text, so that its share is that of all texts.
    for share, step in (
        (CASE, _case),
        (ENDING, _ending),
        (EMOJIS, _emoji),
        (LINES, lines),
        (WRAPPED, _wrapped),
    ):
        if rng.random() < share:
            text = step(text, rng)
    return text


def lines(text: str, rng: random.Random) -> str:
    """Return the text with other line ends, more of them, or white space about it."""
    how = rng.choice(["crlf", "crlf", "sentences", "words", "about", "about"])
    if how == "sentences":
        text = re.sub(f"(?<=[{STOPS}]) ", rng.choice(["\n", "\n\n", "\r\n"]), text)
    elif how == "words" and len(text) < SHORT:
        text = re.sub(r" +", rng.choice(["\n", "  ", "\r\n"]), text)
    elif how == "about":
        text = rng.choice(["", " ", "\n", "\t"]) + text + rng.choice([" ", "\n", "\r\n", "\n\n"])
    elif how == "crlf":
        text = text.replace("\n", "\r\n") if "\n" in text else text + "\r\n"
    return text


def _case(text: str, rng: random.Random) -> str:
    how = rng.choice(["lower"] * 6 + ["upper"] * 3 + ["title", "first"])
    if how == "lower" or len(text) >= SHORT:
        return text.lower()
    if how == "first":
        return text[:1].swapcase() + text[1:]
    return text.upper() if how == "upper" else text.title()


def _ending(text: str, rng: random.Random) -> str:
    bare = text.rstrip(STOPS + " ")
    if not bare or rng.random() < 0.5:
        return bare or text
    return bare + rng.choice(ENDINGS)


def _emoji(text: str, rng: random.Random) -> str:
    signs = "".join(rng.choices(EMOJI, k=rng.choice([1, 1, 1, 2, 3])))
    place = rng.random()
    if place < 0.65:
        return f"{text} {signs}"
    if place < 0.85:
        return f"{signs} {text}"
    words = text.split(" ")
    words.insert(rng.randrange(len(words) + 1), signs)
    return " ".join(words)


def _wrapped(text: str, rng: random.Random) -> str:
    return rng.choice(WRAPS)(text)
