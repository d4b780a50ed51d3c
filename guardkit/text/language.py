"""A guess at the script and the language of a text, from its letters and commonest words.

It is there to see whether languages are spread evenly over labels, not to sort single texts: of a
few words, or of a language that is not listed, it says "unsure".
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

NO_LETTERS = "no letters"
UNSURE = "unsure"
#: Characters that are looked at, and stop words that a language must show.
_READ_CHARACTERS = 2000
_LEAST_STOP_WORDS = 2
_WORD = re.compile(r"[^\W\d_]+")
#: Scripts, as the names of their letters begin.
_SCRIPTS = {
    "LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic",
    "HEBREW": "Hebrew", "DEVANAGARI": "Devanagari", "BENGALI": "Bengali", "TAMIL": "Tamil",
    "TELUGU": "Telugu", "THAI": "Thai", "HANGUL": "Hangul", "HIRAGANA": "Japanese kana",
    "KATAKANA": "Japanese kana", "CJK": "Chinese characters", "ARMENIAN": "Armenian",
    "GEORGIAN": "Georgian", "GUJARATI": "Gujarati", "GURMUKHI": "Gurmukhi", "KANNADA": "Kannada",
    "MALAYALAM": "Malayalam", "SINHALA": "Sinhala", "KHMER": "Khmer", "LAO": "Lao",
    "MYANMAR": "Myanmar", "ETHIOPIC": "Ethiopic",
}  # fmt: skip
#: The language that a script is taken for; several languages share some of them.
_LANGUAGE_OF = {
    "Chinese characters": "zh", "Japanese kana": "ja", "Hangul": "ko", "Cyrillic": "ru and others",
    "Arabic": "ar and others", "Devanagari": "hi and others", "Greek": "el", "Hebrew": "he",
    "Thai": "th", "Bengali": "bn", "Tamil": "ta", "Telugu": "te",
}  # fmt: skip
_STOP_WORDS = {
    "en": "the of and to in is that it you for was with are this be have not your what how i a my",
    "de": "der die und den das nicht von sie ist des sich mit dem dass er es ein ich auf eine für",
    "fr": "le la les et des est une du que dans qui pas pour vous sur au avec je ce il sont votre",
    "es": "el la los y que en un una del las por con para es se su al lo como no más está tu",
    "it": "il di che la e un una per non sono con del della è gli le si da mi come nel ho",
    "pt": "o que e do da em um uma para com não os as no na se por mais você seu é ao",
    "nl": "de het een van en is dat op te zijn niet voor met aan er om ik je maar ook naar",
    "pl": "w i na nie się to jest że z do jak co tak ale czy dla od po przez są jestem",
    "sv": "och att det som en är på inte för av med till den jag har du ett om kan var",
    "tr": "bir ve bu için da de ne ile çok ben var gibi daha mi olarak olan değil kadar sen",
    "id": "yang dan di untuk dengan ini itu dari pada tidak adalah saya anda akan dalam ke ada",
    "ro": "și în de la cu pe nu este un o care să din mai pentru sunt ce ai am fi",
    "cs": "a se na je že v to s z do jsem jako ale za by si pro není jsou tak",
    "vi": "và của là có không cho được trong một người những với các tôi bạn này để đã",
}
_STOP_SETS = {language: frozenset(words.split()) for language, words in _STOP_WORDS.items()}


def script(text: str) -> str:
    """Return the script of most letters; Japanese where more than a tenth of them are kana.

    >>> script("Пример on two alphabets, mostly Latin")
    'Latin'
    """
    letters = [*filter(str.isalpha, text[:_READ_CHARACTERS])]
    if not letters:
        return NO_LETTERS
    if text.isascii():
        return "Latin"
    counts = Counter(map(_script_of, letters))
    if counts["Japanese kana"] > len(letters) / 10:
        return "Japanese kana"
    return counts.most_common(1)[0][0]


def language(text: str) -> str:
    """Return a guess, ISO 639-1: by stop words for Latin letters, else by the script alone.

    >>> language("der Hund und die Katze"), language("你好"), language("ok")
    ('de', 'zh', 'unsure')
    """
    written_in = script(text)
    if written_in != "Latin":
        return _LANGUAGE_OF.get(written_in, UNSURE)
    words = Counter(_WORD.findall(text[:_READ_CHARACTERS].lower()))
    found = {x: sum(words[w] for w in stops if w in words) for x, stops in _STOP_SETS.items()}
    best, second = sorted(found, key=lambda x: -found[x])[:2]
    enough = found[best] >= _LEAST_STOP_WORDS and found[best] > found[second]
    return best if enough else UNSURE


@cache
def _script_of(letter: str) -> str:
    return _SCRIPTS.get(unicodedata.name(letter, "").split(" ")[0].split("-")[0], "other")
