"""Make the list of English words that disguises are read with (``guardkit/text/english.py``).

    python -m benchmarks.corpus.english_words PATH/TO/frequency_dictionary_en_82_765.txt

The file is SymSpell's, as ``pip download --no-deps symspellpy`` has it: a word and its count a
line, the most frequent first. -> guardkit/text/english_words.txt, as many as are needed for
ordinary sentences, with SymSpell's licence above them.
"""

from __future__ import annotations

from pathlib import Path

import typer

from benchmarks.lib.paths import ROOT

OUT = ROOT / "guardkit" / "text" / "english_words.txt"
WORDS = 30_000
LICENCE = """\
# English words, the most frequent first, made by benchmarks/corpus/english_words.py from SymSpell's
# frequency_dictionary_en_82_765.txt (https://github.com/wolfgarbe/SymSpell):
# MIT License
# Copyright (c) 2025 mmb L (symspellpy), 2021 Wolf Garbe (SymSpell)
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
# associated documentation files (the "Software"), to deal in the Software without restriction,
# including without limitation the rights to use, copy, modify, merge, publish, distribute,
# sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
# furnished to do so, subject to the following conditions: the above copyright notice and this
# permission notice shall be included in all copies or substantial portions of the Software.
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
# NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
# NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
# DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
# OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def main(dictionary: Path, out: Path = OUT) -> None:
    words = [line.split()[0] for line in dictionary.read_text("utf-8-sig").splitlines()]
    usual = [word for word in words if word.isascii() and word.isalpha()]
    out.write_text(LICENCE + "\n".join(usual[:WORDS]) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
