"""Which heads are worth looking at: four simple scores for every head of an `Attention`, and the best of each."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

PREVIOUS, SAME, QUOTE, NAMES = "前一個字", "同一個字", "開口的引號", "人名"


class Head(NamedTuple):
    """A head that looks at something: its share of attention there, and the share of an even look at all before it."""

    looks_at: str
    layer: int
    head: int
    share: float
    even: float


class HeadTable(list[Head]):
    """The rows of `heads_of_interest`; prints and shows itself as a table."""

    TITLES = ("看什麼", "Layer", "Head", "佔它的注意力", "若平均地看")

    def _rows(self) -> list[tuple[str, ...]]:
        return [(row[0], str(row[1]), str(row[2]), f"{row[3]:.1%}", f"{row[4]:.1%}") for row in self]

    def __repr__(self) -> str:
        return "\n".join("\t".join(row) for row in (self.TITLES, *self._rows()))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in self.TITLES)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def heads_of_interest(attention: Any, names: Iterable[str] | None = None, top: int = 2) -> HeadTable:
    """The `top` heads that look most at each of four things, as rows (looks_at, layer, head, share, even).

    `attention` is an `Attention` or a `View`. A score is a mean over rows, a row being one character i and the
    attention that it gives to what stands before it; the control token is no target.

    - the previous character: the weight on i - 1, over all i that have one;
    - the same character earlier: the sum of the weights on earlier occurrences of character i, over all i that have
      occurred before;
    - the opening quote: the weight on the 「 that is open at i (the innermost), over all i inside quotation marks;
    - names: the sum of the weights on the characters of names that end before i, over all i after the first name.

    `names` are those of the main characters of the novels by default. `even` is the same mean for a head that looks
    evenly at everything up to and including i. Things that the text does not have give no rows.
    """
    attention = getattr(attention, "attention", attention)
    characters = [label if len(label) == 1 else "" for label in attention.labels]  # "": control tokens and bytes
    table = HeadTable()
    for name, targets in _targets(characters, _known_names() if names is None else list(names)).items():
        rows = targets.any(1)  # (S,)
        if not rows.any():
            continue
        chosen, positions = targets[rows].float(), torch.tensor(attention.shown)[rows] + 1.0  # (R, S), (R,)
        shares = (attention.weights[:, :, rows] * chosen).sum(-1).mean(-1)  # (L, H)
        even = (chosen.sum(-1) / positions).mean().item()
        for index in shares.flatten().topk(min(top, shares.numel())).indices.tolist():
            layer, head = divmod(index, shares.size(1))
            table.append(Head(name, layer, head, shares[layer, head].item(), even))
    return table


def _targets(characters: Sequence[str], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """For each thing to look at, (S, S) bool: whether character j is one for character i."""
    size = len(characters)
    previous, same, quote, named = (torch.zeros(size, size, dtype=torch.bool) for _ in range(4))
    open_quotes: list[int] = []
    in_name = _name_ends(characters, names)
    for i, character in enumerate(characters):
        if not character:
            continue
        if i > 0 and characters[i - 1]:
            previous[i, i - 1] = True
        for j in range(i):
            same[i, j] = characters[j] == character
            named[i, j] = in_name[j] is not None and in_name[j] <= i
        if character in "」』" and open_quotes:
            open_quotes.pop()
        if open_quotes:
            quote[i, open_quotes[-1]] = True
        if character in "「『":
            open_quotes.append(i)
    return {PREVIOUS: previous, SAME: same, QUOTE: quote, NAMES: named}


def _name_ends(characters: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """For each character the place after the name that it belongs to; None outside names."""
    text = "".join(character or "\0" for character in characters)
    ends: list[int | None] = [None] * len(text)
    for name in sorted(filter(None, names), key=len):  # longer names last: they win
        found = text.find(name)
        while found >= 0:
            ends[found : found + len(name)] = [found + len(name)] * len(name)
            found = text.find(name, found + 1)
    return ends


def _known_names() -> list[str]:
    from jinyong_gpt2.novels import NOVELS

    return sorted({name for novel in NOVELS for name in novel.people})
