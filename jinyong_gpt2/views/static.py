"""The views standing still: drawn by matplotlib, for PNG files and for notebooks that run no scripts."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jinyong_gpt2.views.bertviz_pages import head_colours, line_threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, BLUE, ORANGE, GROUND = "#202020", "#666666", "#0c36d8", "#ff6318", "#ffffff"
LONGEST = 64  # tokens in a picture; the last of a longer text
SEEN = 0.25  # the head picture brightens its lines where a token's strongest is weaker than this, on the average
FONTS = (
    *("Noto Sans CJK TC", "Noto Sans TC", "Noto Sans CJK JP", "Source Han Sans TC", "PingFang TC", "PingFang HK"),
    *(
        "Heiti TC",
        "Microsoft JhengHei",
        "Noto Serif CJK TC",
        "Noto Serif CJK JP",
        "WenQuanYi Zen Hei",
        "Arial Unicode MS",
    ),
    *("Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei", "AR PL UMing TW"),
)


@cache
def chinese_font() -> str | None:
    """The name of an installed font with Chinese characters; None, after one warning, where there is none."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    found = next((name for name in FONTS if name in installed), None)
    if found is None:
        warnings.warn(
            "no Chinese font for pictures: tokens are numbered instead (on Debian, Ubuntu and Colab: "
            "apt-get install fonts-noto-cjk, then restart Python)",
            stacklevel=2,
        )
    return found


def draw_png(view: Any, dpi: int = 100) -> bytes:
    """The PNG of a `View`: at most its last `LONGEST` tokens, on white, some 900 pixels wide at 100 dots an inch."""
    from matplotlib import rc_context

    family = [*filter(None, [chinese_font()]), "DejaVu Sans"]
    with rc_context({"font.family": family, "axes.unicode_minus": False}):
        figure = DRAWINGS[view.view](view, _Excerpt(view))
        return _compact(figure, dpi)


class _Excerpt:
    """The tokens of a view that a picture has room for."""

    def __init__(self, view: Any):
        attention = view.attention
        self.first = max(0, len(attention.labels) - LONGEST)
        names = attention.labels if chinese_font() else [str(i) for i in range(len(attention.labels))]
        self.labels = names[self.first :]
        self.size = len(self.labels)
        self.weights = attention.weights[:, :, self.first :, self.first :]  # (L, H, S, S)
        self.note = f"   (the last {LONGEST} of {len(attention.labels)} tokens)" if self.first else ""


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure whose one axes counts pixels (at 100 a inch) from the top left."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=GROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def _lines(
    axes: Axes,
    weights: np.ndarray,
    left: float,
    right: float,
    tops: np.ndarray,
    colour: str,
    least: float,
    width: float = 1.4,
) -> None:
    """A line from token i on the left to each token j on the right, as opaque as its weight. weights: (S, S)."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    rows, columns = np.nonzero(weights > least)
    ends = np.stack([np.full(len(rows), left), tops[rows], np.full(len(rows), right), tops[columns]], axis=1)
    colours = np.tile((*to_rgb(colour), 0.0), (len(rows), 1))
    colours[:, 3] = np.clip(weights[rows, columns], 0, 1)
    axes.add_collection(LineCollection(list(ends.reshape(-1, 2, 2)), colors=colours, linewidths=width, capstyle="butt"))


def _column(axes: Axes, labels: list[str], x: float, tops: np.ndarray, align: str, size: float = 11) -> None:
    for label, y in zip(labels, tops, strict=True):
        axes.text(x, y, label, ha=align, va="center", fontsize=size, color=INK)


def _model(view: Any, excerpt: _Excerpt) -> Figure:
    """All chosen layers (rows) and heads (columns)."""
    weights = excerpt.weights[view.layers].numpy()
    colours = head_colours(10)
    n_layer, n_head, size, _ = weights.shape
    wide, high, edge = 880 / n_head, min(max(size * 4.0, 60), 150), 40
    figure, axes = _figure(edge + 880, edge + high * n_layer)
    least = line_threshold(excerpt.weights[view.layers], "model")
    axes.text(edge + 440, 10, f"Heads{excerpt.note}", ha="center", va="center", fontsize=10, weight="bold")
    axes.text(
        10, edge + high * n_layer / 2, "Layers", ha="center", va="center", rotation=90, fontsize=10, weight="bold"
    )
    for h in range(n_head):
        axes.text(edge + (h + 0.5) * wide, 28, str(h), ha="center", va="center", fontsize=9)
    for row, layer in enumerate(view.layers):
        top = edge + row * high
        axes.text(30, top + high / 2, str(layer), ha="center", va="center", fontsize=9)
        tops = top + 4 + (np.arange(size) + 0.5) * (high - 8) / size
        for h in range(n_head):
            left = edge + h * wide
            _lines(axes, weights[row, h], left + 5, left + wide - 9, tops, colours[layer % 10], least, 0.9)
    return figure


def _head(view: Any, excerpt: _Excerpt) -> Figure:
    """One layer, all heads or the chosen one, each in its colour."""
    weights = excerpt.weights[view.layer].numpy()  # (H, S, S)
    heads = list(range(len(weights))) if view.head is None else [view.head]
    colours = head_colours(len(weights))
    # In the midst of a long text a token looks at many, most of them not in the picture: its lines would be too faint.
    opacity = max(1.0, SEEN / max(weights[heads].max(-1).mean(), 1e-6)) / len(heads)
    tops = 62 + (np.arange(excerpt.size) + 0.5) * 22
    figure, axes = _figure(420, tops[-1] + 24)
    axes.text(10, 14, f"Layer {view.layer}{excerpt.note}", va="center", fontsize=10, color=SOFT)
    for i, h in enumerate(heads):
        x = 10 + 400 * i / len(weights)
        axes.add_patch(_rectangle(x, 28, 400 / len(weights) - 2, 18, colours[h]))
        axes.text(x + 200 / len(weights) - 1, 37, str(h), ha="center", va="center", fontsize=8, color="white")
        _lines(axes, weights[h] * opacity, 150, 270, tops, colours[h], 0.01 / len(heads))
    _column(axes, excerpt.labels, 142, tops, "right")
    _column(axes, excerpt.labels, 278, tops, "left")
    return figure


def _neuron(view: Any, excerpt: _Excerpt) -> Figure:
    """Query of the last token, the keys of all, their product, its sum and the softmax; as the view does expanded."""
    layer, head, last = view.layer, view.head, excerpt.size - 1
    query = view.attention.queries[layer, head, -1].numpy()  # (D,)
    keys = view.attention.keys[layer, head, excerpt.first :].numpy()  # (S, D)
    weights = excerpt.weights[layer, head, last].numpy()  # (S,)
    dots = keys @ query / np.sqrt(len(query))
    tops = 62 + (np.arange(excerpt.size) + 0.5) * 22
    figure, axes = _figure(960, tops[-1] + 24)
    axes.text(10, 14, f"Layer {layer}, Head {head}{excerpt.note}", va="center", fontsize=10, color=SOFT)
    for x, title in ((220, "Query q"), (440, "Key k"), (650, "q × k"), (776, "q · k"), (880, "Softmax")):
        axes.text(x, 40, title, ha="center", va="center", fontsize=11)
    _column(axes, excerpt.labels, 110, tops, "right")
    _strip(axes, query, 130, tops[last])
    for key, dot, weight, y in zip(keys, dots, weights, tops, strict=True):
        strength = np.tanh(1.8 * weight)
        axes.plot([312, 330, 330, 346], [tops[last], tops[last], y, y], color=BLUE, alpha=strength, linewidth=1.4)
        _strip(axes, key, 348, y)
        _strip(axes, query * key, 560, y)
        axes.add_patch(_rectangle(766, y - 9, 19, 18, BLUE if dot >= 0 else ORANGE, np.tanh(abs(dot) / 4)))
        axes.plot([786, 826], [y, y], color=BLUE, alpha=strength, linewidth=1.4)
        axes.add_patch(_rectangle(830, y - 11, 110, 22, "#478be8", weight))
    _column(axes, excerpt.labels, 836, tops, "left")
    return figure


def _strip(axes: Axes, vector: np.ndarray, left: float, middle: float) -> None:
    """A vector as a row of cells, blue above zero and orange below. vector: (D,)."""
    from matplotlib.colors import to_rgb

    cells = np.empty((1, len(vector), 4))
    cells[0, :, :3] = np.where((vector >= 0)[:, None], to_rgb(BLUE), to_rgb(ORANGE))
    cells[0, :, 3] = np.tanh(np.abs(vector) / 4)
    axes.imshow(cells, extent=(left, left + 182, middle + 9, middle - 9), aspect="auto", interpolation="nearest")
    axes.add_patch(_rectangle(left, middle - 9, 182, 18, "none", edge="#dddddd"))


def _generation(view: Any, excerpt: _Excerpt) -> Figure:
    """The last step: the text shaded by what its last character looks at, and the likeliest characters after it."""
    weights = excerpt.weights[view.layer].numpy()  # (H, S, S)
    rows = weights[:, -1]  # (H, S)
    row = rows.mean(0) if view.head == "mean" else rows.max(0) if view.head == "max" else rows[view.head]
    control = view.attention.has_control_token and excerpt.first == 0
    strongest = max(row[control:].max(initial=0), 1e-6)
    places, bottom = _flow(excerpt.labels)
    figure, axes = _figure(900, max(bottom + 30, 300))
    name = {"mean": "平均", "max": "最大"}.get(view.head, str(view.head)) if chinese_font() else str(view.head)
    axes.text(14, 16, f"Layer {view.layer}, Head {name}{excerpt.note}", va="center", fontsize=10, color=SOFT)
    for i, (label, (x, y, width)) in enumerate(zip(excerpt.labels, places, strict=True)):
        axes.add_patch(_rectangle(x, y, width - 2, 32, "#1f6fb4", 0.75 * min(1, row[i] / strongest)))
        axes.text(x + width / 2 - 1, y + 16, label, ha="center", va="center", fontsize=16 if len(label) < 2 else 10)
    x, y, width = places[-1]
    axes.add_patch(_rectangle(x, y, width - 2, 32, "none", edge="#ff7f0e", line=2))
    for i, (label, probability) in enumerate(view.attention.next_characters[-1]):
        y = 50 + i * 30
        label = label if chinese_font() or label.isascii() else "?"
        axes.text(652, y, label, ha="center", va="center", fontsize=13 if len(label) < 2 else 9)
        axes.add_patch(_rectangle(690, y - 7, max(150 * probability, 1), 14, "#1f6fb4"))
        axes.text(892, y, f"{probability:.1%}", ha="right", va="center", fontsize=10)
    return figure


def _flow(labels: list[str], right: float = 600) -> tuple[list[tuple[float, float, float]], float]:
    """(x, y, width) of each label in running text, and the bottom of the last line."""
    places, x, y = [], 14.0, 36.0
    for label in labels:
        width = 30.0 if len(label) < 2 else 12.0 + 14.0 * len(label)
        if x + width > right:
            x, y = 14.0, y + 40
        places.append((x, y, width))
        x += width
        if label == "⏎":
            x, y = 14.0, y + 40
    return places, y + 40


def _rectangle(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    alpha: float = 1.0,
    edge: str = "none",
    line: float = 0.8,
) -> Any:
    from matplotlib.patches import Rectangle

    fill_alpha = fill if fill == "none" else (fill, float(np.clip(alpha, 0, 1)))
    return Rectangle((x, y), width, height, facecolor=fill_alpha, edgecolor=edge, linewidth=line)


def _compact(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG of at most 256 colours, a third of the bytes of a full one."""
    from PIL import Image

    raw = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a rare character is a box; the others are what counts
        figure.savefig(raw, format="png", dpi=dpi)
    image = Image.open(raw).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette, ground = image.getpalette(), image.getpixel((0, 0))
    palette[3 * ground : 3 * ground + 3] = [255, 255, 255]  # the commonest colour is near white; make it so
    image.putpalette(palette)
    small = io.BytesIO()
    image.save(small, format="png", optimize=True)
    return small.getvalue()


DRAWINGS = {"model": _model, "head": _head, "neuron": _neuron, "generation": _generation}
