"""Bytes of a text file → str, whatever encoding the file happens to be in.

"The first codec that does not fail" is wrong for Chinese: every Big5 file is also valid GB18030, as garbage full of
private-use characters. So each candidate is decoded and scored:

    score = share of very common characters − 5 × share of U+FFFD and private-use characters
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

import numpy as np

# In order of preference where scores are equal.
CANDIDATES = ("gb18030", "cp950", "big5hkscs", "utf-8", "utf-16-le", "utf-16-be")
SCORED_CHARACTERS = 400_000  # the head of a file is enough to tell its encoding

# The commonest characters of narrative Chinese in both scripts: function words, people, speech, movement.
COMMON = "的一是不了人我他在有這这來来們们個个說说道大之上下中到也出得去你那就子自天心手後后時时見见還还只地然無无"

# First bytes of files that people have novels in, and that are renamed to .txt now and then.
FORMATS = {
    b"PK\x03\x04": "a zip, EPUB or Word file",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip file",
    b"\xd0\xcf\x11\xe0": "an old Word file",
    b"{\\rtf": "an RTF file",
    b"Rar!": "a RAR file",
    b"7z\xbc\xaf": "a 7-Zip file",
}

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Decoded:
    """Text of a file, the codec that read it, and how many places in it no codec could read."""

    text: str
    encoding: str
    invalid: int


def decode(data: bytes) -> Decoded:
    """Decode a text file; never fails: places that cannot be read become U+FFFD and are counted.

    A byte order mark decides; else strict UTF-8; else the best score among GB18030, cp950, Big5-HKSCS, damaged UTF-8,
    and UTF-16 without a mark.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _replacing(data, encoding)
    try:
        return Decoded(data.decode("utf-8"), "utf-8", 0)
    except UnicodeDecodeError:
        pass
    return max((_replacing(data, encoding) for encoding in CANDIDATES), key=lambda found: score(found.text))


def other_format(data: bytes) -> str:
    """What a file is by its first bytes, where that is no text, whatever it is called; "" for anything else."""
    return next((kind for mark, kind in FORMATS.items() if data.startswith(mark)), "")


def is_text(text: str) -> bool:
    """False for what no codec makes text of, a picture or a program: more than a fifth of it cannot be read."""
    return score(text) > -1


def score(text: str) -> float:
    """How much `text` looks like Chinese prose that was decoded rightly; higher is better."""
    head = text[:SCORED_CHARACTERS]
    if not head:
        return 0.0
    points = np.frombuffer(head.encode("utf-32-le", "surrogatepass"), dtype="<u4")  # (characters,)
    common = np.isin(points, [ord(c) for c in COMMON]).mean()
    private = ((points >= 0xE000) & (points <= 0xF8FF)) | (points >= 0xF0000)
    unreadable = ((points == 0xFFFD) | (points == 0) | private).mean()
    return float(common - 5 * unreadable)


def _replacing(data: bytes, encoding: str) -> Decoded:
    # A Ctrl-Z at the end of a DOS file is not text; a lone odd byte at the end of UTF-16 is replaced as any other.
    text = data.decode(encoding, errors="replace")
    invalid = text.count("\ufffd")
    if invalid and encoding.startswith("utf"):
        invalid -= data.count("\ufffd".encode("utf-16-le" if encoding.startswith("utf-16") else "utf-8"))
    return Decoded(text, encoding, max(invalid, 0))
