"""Visual lines → paragraphs: was the text wrapped by hand, and how; where does each paragraph end.

Files differ: one paragraph a line; hard wraps with the first line indented, with every line indented or with none;
a blank line between all visual lines. The statistics of line widths tell which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_TERMINAL = tuple('。！？…”」』"：；!?—～）)')
_STOPS = (*_TERMINAL, "，", "、", ",", "﹐", "》", "·")
NARROWEST = 34  # columns; wrapped lines are wider, those of verse and lists are not
_INSIDE = re.compile(r"(?<=[。！？…」』”])(?:\u3000{2,}| {4,}|\u3000 +)(?=\S)")


@dataclass(frozen=True)
class Layout:
    """How a text's lines are set. `width` is that of full lines in columns (a Chinese character has two)."""

    wrapped: bool
    width: int = 0
    indented: bool = False  # the first line of a paragraph is indented and the others are not
    blank_between: bool = False  # a blank line follows every visual line and means nothing

    @property
    def name(self) -> str:
        if not self.wrapped:
            return "one paragraph a line"
        details = ["indented paragraphs"] * self.indented + ["blank lines between"] * self.blank_between
        return f"wrapped at {self.width // 2}" + "".join(f", {detail}" for detail in details)


def columns(line: str) -> int:
    """Width on a screen: two columns for a Chinese character or mark (three bytes in UTF-8), one for a Latin letter."""
    return len(line) + (len(line.encode("utf-8", "replace")) - len(line)) // 2


def detect_layout(lines: Sequence[str]) -> Layout:
    """The layout of a text without its headings.

    Wrapped text breaks off in mid-sentence at nearly the same width, line after line; else lines end with a stop.
    """
    filled = [line for line in lines if line.strip()]
    bodies = [line.strip() for line in filled]
    long = [body for body in bodies if len(body) >= 8]
    if len(long) < 8:
        return Layout(False)
    broken = [not body.endswith(_STOPS) for body in long]
    widths = [columns(body) for body in long]
    width = _full_width(widths)
    near = sum(width - 8 <= w <= width + 6 for w in widths) / len(widths)
    near_broken = sum(b and width - 8 <= w <= width + 6 for w, b in zip(widths, broken, strict=True))
    # Verse, too, is lines of one width, but they are short and end with commas.
    if not NARROWEST <= width <= 160 or near < 0.4 or sum(broken) < 0.35 * len(long) or near_broken < 0.8 * sum(broken):
        return Layout(False)
    indents = [len(line) - len(line.lstrip()) for line in filled]
    common = max(set(indents), key=indents.count)
    deeper = sum(indent >= common + 2 for indent in indents) / len(indents)
    indented = 0.02 < deeper < 0.75 if common == 0 else deeper > 0.02
    if common > 0 and not indented:
        # The commonest indent may be that of first lines, where paragraphs are one or two lines long.
        indented = indents.count(0) > 0.2 * len(indents)
    pairs = sum(bool(line.strip()) for line in lines[:-1])
    blanks = sum(bool(a.strip()) and not b.strip() for a, b in pairwise(lines))
    return Layout(True, width, indented, blank_between=blanks > 0.8 * pairs)


def _full_width(widths: list[int]) -> int:
    """The width that most full lines have: the best-filled band of 6 columns, the wider of equals."""
    counts: dict[int, int] = {}
    for w in widths:
        counts[w] = counts.get(w, 0) + 1
    return max(counts, key=lambda w: (sum(counts.get(v, 0) for v in range(w - 5, w + 1)), w))


def unwrap(lines: Sequence[str], layout: Layout) -> list[str]:
    """Paragraphs of some lines without a heading among them. Only white space is ever lost."""
    if not layout.wrapped:
        return [part for line in lines for part in _INSIDE.split(line.strip()) if part.strip()]
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    common = min(indents, default=0)
    paragraphs: list[str] = []
    previous: str | None = None  # the visual line before, or None where a paragraph must begin
    for line in lines:
        body = line.strip()
        if not body:
            if not layout.blank_between:
                previous = None
            continue
        begins = layout.indented and len(line) - len(line.lstrip()) >= common + 2
        if previous is None or begins or (not layout.indented and _ends_paragraph(previous, body, layout.width)):
            paragraphs.append(body)
        elif layout.indented and _is_short(previous, layout.width) and previous.endswith(_TERMINAL):
            paragraphs.append(body)  # an indent was forgotten
        else:
            gap = (
                " "
                if previous[-1].isascii() and previous[-1].isalnum() and body[0].isascii() and body[0].isalnum()
                else ""
            )
            paragraphs[-1] += gap + body
        previous = body
    return paragraphs


def _is_short(line: str, width: int) -> bool:
    return columns(line) < width - 6


def _ends_paragraph(line: str, following: str, width: int) -> bool:
    if _is_short(line, width):
        # A short line ends its paragraph; a slightly short one only where it also ends a sentence.
        return line.endswith(_TERMINAL) or columns(line) < 0.7 * width
    # A full line whose last sentence ends with a quote, before another quote: two turns of a dialogue.
    return line.endswith(("」", "”", "』")) and following.startswith(("「", "“", "『"))
