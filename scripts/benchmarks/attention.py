"""The attention views beside plain BertViz: bytes of each page, and seconds until Chromium has drawn it.

    python scripts/benchmark.py attention
    python scripts/benchmark.py attention --size jinyong --lengths 29 128   # random weights of the article's size

Plain BertViz gets what it loads from the network from this machine's packages; otherwise its pages are as it makes
them, with `attention` and, for the neuron view, queries and keys from the same forward pass as ours. Seconds run from
the start of the navigation to the second frame after drawing, the best of `--repeat`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from jinyong_gpt2.attention import LIMITS, Attention, show
from jinyong_gpt2.model import PRETRAINED, SIZES, new_model
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.views.bertviz_pages import libraries

TEXT = "喬峰帶阿朱回到北方，喬峰對她說：「我們兩人永遠留在這裡！」"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PATIENCE_MS = 180_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default=str(PRETRAINED), help="the model to look into")
    parser.add_argument("--size", choices=list(SIZES), help="random weights of this size instead of a checkpoint")
    parser.add_argument("--lengths", type=int, nargs="+", default=[29, 128, 256], help="characters of text")
    parser.add_argument("--views", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--plain-longest", type=int, default=128, help="no plain BertViz beyond so many characters")
    parser.add_argument("--repeat", type=int, default=3, help="how often each of our pages is drawn")
    parser.add_argument("--text", help="a file of text to look at; repetitions of one sentence if not given")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise FileNotFoundError("no Chromium to draw with: install it first (Debian: apt-get install chromium)")
    source = Path(args.text).read_text(encoding="utf-8") if args.text else TEXT
    model, tokenizer = _model(args, source)
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        for length in args.lengths:
            text = (source * (length // len(source) + 1))[:length]
            for name in args.views:
                clock = time.perf_counter()
                view = show(model, tokenizer, text, name, hide_control=True)
                ours = view.save(Path(folder) / "ours.html")
                row = {
                    "view": name,
                    "characters": length,
                    "tokens": len(view.attention.labels),
                    "layers": len(view.layers),
                    "made_s": round(time.perf_counter() - clock, 2),
                    "ours_MB": round(ours.stat().st_size / 1e6, 2),
                    "ours_drawn_s": min(_seconds(browser, ours) for _ in range(args.repeat)),
                }
                if name != "generation" and length <= args.plain_longest:
                    plain = Path(folder) / "plain.html"
                    plain.write_text(_plain_page(view.attention, name), encoding="utf-8")
                    row["plain_MB"] = round(plain.stat().st_size / 1e6, 2)
                    row["plain_drawn_s"] = _seconds(browser, plain)
                rows.append(row)
        browser.close()
    return rows


def _model(args: argparse.Namespace, source: str) -> tuple[Any, Any]:
    if not args.size:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        return AutoModelForCausalLM.from_pretrained(args.checkpoint), AutoTokenizer.from_pretrained(args.checkpoint)
    torch.manual_seed(0)
    tokenizer = build_tokenizer([source], min_count=1)
    model = new_model(args.size, tokenizer)
    with torch.no_grad():  # untrained heads look evenly at everything; trained ones choose
        for block in model.transformer.h:
            block.attn.c_attn.weight.mul_(4)
    return model, tokenizer


def _seconds(browser: Any, path: Path) -> float:
    """Until the second frame after drawing; what BertViz asks the network for is answered from packages."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    d3, jquery = libraries()
    require = "window.require = {config() {}}; window.requirejs = (_, start) => start(jQuery, d3);"
    page.route(
        "https://cdnjs.cloudflare.com/**",
        lambda route: route.fulfill(content_type="text/javascript", body=f"{d3}\n{jquery}\n{require}"),
    )
    if path.name == "plain.html":
        page.add_init_script(
            "addEventListener('load', () => requestAnimationFrame(() => requestAnimationFrame("
            "() => { document.documentElement.dataset.drawn = performance.now(); })));"
        )
    try:
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        return round(float(page.evaluate("document.documentElement.dataset.drawn")) / 1000, 2)
    finally:
        page.close()


def _plain_page(attention: Attention, view: str) -> str:
    """The page as BertViz makes it."""
    weights = [layer[None] for layer in attention.weights]  # L × (1, H, S, S)
    if view == "neuron":
        from bertviz.neuron_view import show as neuron_view

        return neuron_view(_Stored(attention), "gpt2", _Tokens(attention.labels), "…", html_action="return").data
    from bertviz import head_view, model_view

    make = {"model": model_view, "head": head_view}[view]
    return make(weights, attention.labels, html_action="return").data


class _Stored:
    """What BertViz's neuron view calls a model: it has run already."""

    def __init__(self, attention: Attention):
        self.attention = attention

    def eval(self) -> None:
        pass

    def __call__(self, ids: torch.Tensor) -> tuple[None, list[dict[str, torch.Tensor]]]:
        stored = zip(self.attention.weights, self.attention.queries, self.attention.keys, strict=True)
        return None, [{"attn": w[None], "queries": q[None], "keys": k[None]} for w, q, k in stored]


class _Tokens:
    """What BertViz's neuron view calls a tokenizer."""

    def __init__(self, labels: list[str]):
        self.labels = labels

    def tokenize(self, text: str) -> list[str]:
        return self.labels

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return list(range(len(tokens)))
