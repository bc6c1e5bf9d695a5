"""BertViz's model, head and neuron views, drawn by BertViz's own scripts from the installed package.

What is ours is around them (`bertviz.js`): they get their libraries without a network, their numbers from a compact
payload, and lines only where there is something to see.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import torch

from jinyong_gpt2.views.page import asset, triangles

FAINTEST = 0.01  # a line for a weight below this is too faint to see
MOST_LINES = {"model": 25_000, "head": 24_000, "neuron": 6_000}  # in a picture; the strongest are drawn
TALLEST_THUMBNAIL = 220  # px, in the model view

CAPTIONS = {
    "model": "每一格是一個注意力頭：橫列是層，直欄是頭。線從左邊的字連到它看的字，越深就看得越重。"
    "按一格放大，再把游標移到字上。",
    "head": "左邊的字看著右邊的字。上方的色塊由左到右是各個頭（從 0 數起）：按一下開關，按兩下只留它。"
    "游標移到字上，就只看那個字。",
    "neuron": "游標移到左邊的字，按它旁邊的「＋」，就展開 query（q）和 key（k）："
    "逐項相乘、加總，再經 softmax，便是注意力。藍正橘負。",
}

# Twelve colours for twelve heads (BertViz has ten), told apart on white and on black.
COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"),
    *("#f58ac6", "#7f7f7f", "#bcbd22", "#17becf", "#5b3cff", "#ffc400"),
)


def head_colours(count: int) -> list[str]:
    """`count` colours, all different: the twelve of the article's model, then hues a golden angle apart."""
    extra = [f"hsl({(i * 137.508) % 360:.0f}, 65%, {40 + 15 * (i % 2)}%)" for i in range(count - len(COLOURS))]
    return [*COLOURS[:count], *extra]


def content(view: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of the page of a model, head or neuron view."""
    attention = view.attention
    weights = attention.weights[view.layers]  # (L, H, S, S)
    threshold = line_threshold(weights, view.view)
    caption = [CAPTIONS[view.view]]
    if threshold > FAINTEST:
        caption.append(
            f"線太多了，只畫權重大於 {threshold:.3f} 的" + ("；放大後畫出全部。" if view.view == "model" else "。")
        )
    if len(view.layers) < len(attention.weights):
        caption.append(f"這一頁帶有第 {'、'.join(map(str, view.layers))} 層。")
    header = {
        "caption": caption,
        "scripts": [*libraries(), asset("bertviz.js")],
        "bertviz": bertviz_script(view.view),
        "view": view.view,
        "labels": attention.labels,
        "layers": view.layers,
        "layer": view.layer,
        "head": view.head,
        "heads": weights.size(1),
        "threshold": threshold,
        "faintest": max(FAINTEST, threshold) if view.view == "neuron" else FAINTEST,
        "colours": head_colours(weights.size(1)),
        "box_height": min(7 * 12 / weights.size(1), TALLEST_THUMBNAIL / len(attention.labels)),
    }
    arrays = {"weights": triangles(weights)}
    if view.view == "neuron":
        for name, vectors in (("queries", attention.queries), ("keys", attention.keys)):
            arrays[name], arrays[f"{name}_scale"] = quantize(vectors[view.layers])
        header["vector_size"] = attention.queries.size(-1)
    return header, arrays


def libraries() -> list[str]:
    """jQuery and d3 5, which BertViz is written for, from the Python packages that carry them."""
    jquery = resources.files("xstatic.pkg.jquery") / "data" / "jquery.min.js"
    d3 = resources.files("mpld3") / "js" / "d3.v5.min.js"
    return [d3.read_text(encoding="utf-8"), jquery.read_text(encoding="utf-8")]


def bertviz_script(view: str) -> str:
    """BertViz's script for a view, taking its numbers from a variable instead of from its own text."""
    script = (resources.files("bertviz") / f"{view}_view.js").read_text(encoding="utf-8")
    script = script.replace("PYTHON_PARAMS", "window.bertviz_params")
    # In the model view: tokens so low that a long text still gives a bird's-eye view, and room for the name of a novel.
    for old, new in (
        ("7 * (12 / config.totalHeads)", "params.box_height"),
        ("DETAIL_WIDTH = 300", "DETAIL_WIDTH = 360"),
        ("DETAIL_BOX_WIDTH = 80", "DETAIL_BOX_WIDTH = 110"),
    ):
        script = script.replace(old, new)
    return script


def line_threshold(weights: torch.Tensor, view: str) -> float:
    """The weight from which on lines are drawn: FAINTEST, or more where a picture would hold too many of them.

    A picture of the model view holds all (L, H, S, S) weights, one of the head view a layer's, of the neuron view a
    head's.
    """
    pictures = {"model": weights[None], "head": weights, "neuron": weights.flatten(0, 1)}[view].flatten(1)
    most = MOST_LINES[view]
    if pictures.size(1) <= most:
        return FAINTEST
    return max(FAINTEST, pictures.topk(most + 1, dim=1).values[:, -1].max().item())


def quantize(vectors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(…, D) vectors as (…, D) int8 and a (…,) float32 scale for each: `vector ≈ int8 * scale`."""
    scale = (vectors.abs().amax(-1) / 127).clamp_min(1e-12)
    return (vectors / scale[..., None]).round().to(torch.int8).numpy(), scale.numpy()
