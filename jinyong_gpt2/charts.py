"""The figures of an evaluation as pictures: SVG whose text stays text, so that any browser has the fonts for it."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinyong_gpt2.evaluation import Score
from jinyong_gpt2.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Chart:
    """An SVG picture. A notebook shows it; `save` writes it."""

    svg: str

    def _repr_html_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the SVG and return its path."""
        return write_whole(path, self.svg)


def chart_scores(scores: Sequence[Score]) -> Chart:
    """Bits per character of each model with its 95% interval over chapters; further left is better."""
    figure, axes = _figure(7, 0.8 + 0.4 * len(scores))
    for row, score in enumerate(scores):
        low, high = score.interval()
        axes.plot([low, high], [row, row], color="#888888", linewidth=3, solid_capstyle="butt")
        axes.plot(score.bits_per_char, row, "o", color="#a33c2c")
        axes.annotate(f"{score.bits_per_char:.2f}", (score.bits_per_char, row), (0, 7), textcoords="offset points")
    axes.set_yticks(range(len(scores)), [score.name for score in scores])
    axes.set_ylim(len(scores) - 0.4, -0.7)
    axes.set_xlabel("bits per character on held-out chapters")
    return _chart(figure)


def chart_novels(scores: Sequence[Score], most: int = 80) -> Chart:
    """Bits per character of each novel, a colour for each model; novels in the order of the last model's figures."""
    by_novel = [score.by_novel() for score in scores]
    novels = sorted(by_novel[-1], key=by_novel[-1].__getitem__)[:most]
    figure, axes = _figure(7, 1 + 0.22 * len(novels))
    for score, values in zip(scores, by_novel, strict=True):
        axes.plot([values[novel] for novel in novels], range(len(novels)), "o", markersize=4, label=score.name)
    axes.set_yticks(range(len(novels)), novels)
    axes.set_ylim(len(novels) - 0.4, -0.6)
    axes.set_xlabel("bits per character on held-out chapters")
    axes.legend(frameon=False, fontsize=8)
    return _chart(figure)


def chart_memorization(rows: Sequence[Mapping[str, Any]], length: int | None = None) -> Chart:
    """What `memorization_curve` yields, over the epochs: bits per character above, exact greedy continuations below.

    `length` chooses for how many tokens a continuation must be exact; the shortest measured by default.
    """
    if not rows:
        raise ValueError("there is nothing to draw: no checkpoint was measured")
    figure, (above, below) = _figure(7, 5, rows=2)
    length = min(rows[0]["extractable"]["train"]) if length is None else length
    epochs = [row["epochs"] for row in rows]
    for split, colour in (("train", "#a33c2c"), ("heldout", "#2c5aa3")):
        name = {"train": "training text", "heldout": "held-out text"}[split]
        above.plot(epochs, [row[split] for row in rows], "o-", color=colour, markersize=3, label=name)
        shares = [100 * row["extractable"][split][length] for row in rows]
        below.plot(epochs, shares, "o-", color=colour, markersize=3, label=name)
    best = min(rows, key=lambda row: row["heldout"])["epochs"]
    for axes in (above, below):
        axes.axvline(best, color="#888888", linewidth=1, linestyle=":")
    above.set_ylabel("bits per character")
    above.legend(frameon=False)
    below.set_ylabel(f"% exact for {length} characters")
    below.set_xlabel("epochs (dotted: fewest held-out bits)")
    return _chart(figure)


def _figure(width: float, height: float, rows: int = 1) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, 1, sharex=True)
    for one in [axes] if rows == 1 else axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="x", alpha=0.3)
    return figure, axes


def _chart(figure: Figure) -> Chart:
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jinyong"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser has it
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"font: ([^;'\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1sans-serif", svg)
    return Chart(svg[svg.index("<svg") :])
