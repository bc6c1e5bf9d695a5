"""The generation view: the text appearing character by character, shaded by what the newest character looks at.

One forward pass holds all its steps: masked self-attention gives row i the same numbers whether or not later characters
are there already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jinyong_gpt2.views.page import asset, triangles

CAPTION = (
    "按播放，或拖動滑桿，看文字一個字一個字長出來。框住的是最新的字，顏色越深的字它看得越重；右邊是模型猜的下一個字。"
)


def content(view: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of the page of a generation view."""
    attention = view.attention
    caption = [CAPTION]
    if len(view.layers) < len(attention.weights):
        caption.append(f"這一頁帶有第 {'、'.join(map(str, view.layers))} 層。")
    header = {
        "caption": caption,
        "scripts": [asset("generation.js")],
        "labels": attention.labels,
        "control": attention.has_control_token,
        "prompt_length": attention.prompt_length,
        "layers": view.layers,
        "layer": view.layer,
        "heads": attention.weights.size(1),
        "head": view.head,
        "next": [[[label, round(p, 4)] for label, p in row] for row in attention.next_characters],
    }
    return header, {"weights": triangles(attention.weights[view.layers])}
