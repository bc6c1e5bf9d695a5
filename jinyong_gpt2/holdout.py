"""Whole chapters held out of training, chosen by a hash, and an audit of what in them is in the training text, too."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jinyong_gpt2.overlap import Shingles, copied_shares
from jinyong_gpt2.reading import Chapter, Novel
from jinyong_gpt2.script import convert

HELDOUT_SHARE = 0.02
LEAKED = 0.5  # share of a held-out paragraph that also stands in the training text, above which it is dropped


def chapter_hash(novel: Novel, chapter: Chapter) -> float:
    """A number from 0 to 1 that depends on the two titles alone, the same whichever script the corpus is in."""
    digest = hashlib.sha256(f"{novel.known_as}\n{chapter.known_as}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(novels: Sequence[Novel], share: float = HELDOUT_SHARE) -> None:
    """Mark about `share` of each novel's chapters as held out, by a hash: adding a novel moves none of them.

    Novels of 20 chapters and more hold out the chapters with the smallest hashes, one at least; smaller ones those
    below `share`. Where that leaves a whole corpus with none, the one chapter with the smallest hash is taken; that one
    may be another when novels are added.
    """
    if not share:
        return
    candidates: list[tuple[float, Chapter]] = []
    for novel in novels:
        story = [c for c in novel.chapters if c.story]
        ranked = sorted(((chapter_hash(novel, c), i, c) for i, c in enumerate(story)), key=lambda r: r[:2])
        count = max(1, round(share * len(ranked))) if len(ranked) >= 20 else sum(h < share for h, _, _ in ranked)
        for _, _, chapter in ranked[:count]:
            chapter.heldout = True
        candidates += [(h, chapter) for h, _, chapter in ranked]
    if len(candidates) > 1 and not any(chapter.heldout for _, chapter in candidates):
        min(candidates, key=lambda pair: pair[0])[1].heldout = True


def audit(novels: Sequence[Novel]) -> list[str]:
    """Drop held-out paragraphs that also stand in the training text; one line for each chapter that lost some."""
    lines: list[str] = []
    held = [(novel, chapter) for novel in novels for chapter in novel.chapters if chapter.heldout]
    if not held:
        return lines
    both_scripts = len({novel.report.script for novel in novels}) > 1

    def comparable(text: str) -> str:
        return convert(text, "simplified") if both_scripts else text

    wanted = Shingles.of_all(comparable(chapter.text) for _, chapter in held)
    seen = wanted.found_in(comparable(c.text) for novel in novels for c in novel.chapters if not c.heldout)
    for novel, chapter in held:
        paragraphs = chapter.text.split("\n")
        shares = copied_shares([comparable(p) for p in paragraphs], seen)
        clean = [p for p, share in zip(paragraphs, shares, strict=True) if share <= LEAKED]
        lost = sum(map(len, paragraphs)) - sum(map(len, clean))
        if not lost:
            continue
        what = f"《{novel.title}》{chapter.title}: {lost} of {len(chapter.text)} held-out characters"
        if clean:
            chapter.text = "\n".join(clean)
            lines.append(f"{what} also stand in the training text and were dropped")
        else:
            chapter.heldout = False
            lines.append(f"{what} also stand in the training text; the chapter is not held out")
    return lines
