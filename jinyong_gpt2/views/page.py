"""One HTML page per view: everything it needs is inside it, gzipped, so that it opens from disk and without a network.

The payload is `[length of the header][header as JSON][array][array]…`, gzipped and in base64; `page.js` unpacks it with
the browser's own DecompressionStream. In a notebook the page stands in an `<iframe srcdoc>`, so that several views do
not meet, with a picture before it for readers whose notebook runs no scripts.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

TITLES = {"model": "模型全景", "head": "注意力頭", "neuron": "神經元", "generation": "逐字生成"}


def asset(name: str) -> str:
    """The text of a file of this package."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def build_page(view: Any) -> str:
    """The whole page of a `View`."""
    from jinyong_gpt2.views import bertviz_pages, generation

    room = generation if view.view == "generation" else bertviz_pages
    header, arrays = room.content(view)
    title = f"{TITLES[view.view]}：{''.join(view.attention.labels)[:30]}"
    caption = "".join(f"<p>{html.escape(line)}</p>" for line in (*header.pop("caption"), view.attention.note) if line)
    values = {
        "TITLE": html.escape(title),
        "MODE": view.mode,
        "STYLE": asset("page.css"),
        "CAPTION": caption,
        "PAYLOAD": _pack(header, arrays),
        "SCRIPT": asset("page.js"),
    }
    page = asset("page.html")
    for name, value in values.items():
        page = page.replace(f"<!--{name}-->", value, 1)
    return page


def embed(view: Any) -> str:
    """The page in a frame for a notebook's cell, after a picture that stands in where the frame may not run."""
    from jinyong_gpt2.views.static import draw_png

    picture = base64.b64encode(draw_png(view, dpi=70)).decode("ascii")
    return (
        '<div class="jinyong-view">'
        "<div><p>這裡是一張靜止的圖；信任這份筆記本（Trust Notebook）或重新執行這一格，就會換成可以互動的畫面。</p>"
        f'<img alt="{TITLES[view.view]}" style="max-width:100%" src="data:image/png;base64,{picture}"></div>'
        f'<iframe title="{TITLES[view.view]}" style="width:100%;height:420px;border:0" '
        f'srcdoc="{html.escape(view.page, quote=True)}"></iframe></div>'
    )


def triangles(weights: torch.Tensor) -> np.ndarray:
    """(L, H, S, S) causal weights as (L, H, S(S+1)/2) uint16: the lower triangles row by row, in ten-thousandths."""
    rows, columns = np.tril_indices(weights.size(-1))
    return np.rint(weights.double().numpy()[:, :, rows, columns] * 10_000).astype(np.uint16)


def _pack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    blocks, layout = [], []
    for name, array in arrays.items():
        array = np.ascontiguousarray(array).reshape(-1)
        layout.append([name, array.dtype.name, array.size])
        # All first bytes, then all second ones and so on: like stands beside like, which gzip packs far better.
        blocks.append(array.view(np.uint8).reshape(array.size, array.itemsize).T.tobytes())
    text = json.dumps({**header, "layout": layout}, ensure_ascii=False).encode("utf-8")
    raw = b"".join([len(text).to_bytes(4, "little"), text, *blocks])
    return base64.b64encode(gzip.compress(raw, compresslevel=6, mtime=0)).decode("ascii")
