"""Run the model once, keep its attention, and show it.

    view = show(model, tokenizer, "喬峰帶阿朱回到北方", view="model")   # or "head", "neuron", "generation"
    view                                             # draws itself in a notebook
    view.save("out/view.html")                       # one file, opened from disk, no network
    view.save("out/view.png")                        # the same view, standing still
    heads_of_interest(view.attention)                # where to look

Model, head and neuron are the views of BertViz (Vig 2019, "A Multiscale Visualization of Attention in the Transformer
Model", https://arxiv.org/abs/1906.05714). The model is any stock GPT-2 of transformers: weights, queries and keys are
read by hooks while it runs.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jinyong_gpt2.files import write_whole
from jinyong_gpt2.model import trained_positions
from jinyong_gpt2.script import Change, match_script
from jinyong_gpt2.tokenizer import GENERIC_TOKEN, SURROGATES, control_id, encode, is_character_start
from jinyong_gpt2.views.heads import heads_of_interest

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["Attention", "View", "heads_of_interest", "read_attention", "show", "token_labels"]

# The longest span each view carries, in tokens. Longer texts are cropped, and the page says so.
LIMITS = {"model": 160, "head": 256, "neuron": 256, "generation": 512}
VISIBLE = {"\n": "⏎", " ": "␣", "\u3000": "␣", "\t": "⇥"}
LIKELIEST = 8  # next characters kept at each position


@dataclass(frozen=True)
class Attention:
    """What one forward pass showed: L layers, H heads, S shown tokens, D numbers per head. Tensors are float32, on CPU.

    Row i of `weights` is what token i looks at: it sums to one over all tokens read, is zero after i, and
    `next_characters[i]` is what the model then expects to follow token i.
    """

    token_ids: list[int]  # all tokens the model read, the control token first
    shown: list[int]  # which of them are shown: S indices into token_ids
    labels: list[str]  # S labels
    weights: torch.Tensor  # (L, H, S, S)
    queries: torch.Tensor  # (L, H, S, D)
    keys: torch.Tensor  # (L, H, S, D)
    next_characters: list[list[tuple[str, float]]]  # S lists of (label, probability), the likeliest first
    prompt_length: int = 0  # how many of the shown tokens a writer was given; what follows it wrote
    note: str = ""  # what is not shown or not as it was given, for the page to say

    @property
    def has_control_token(self) -> bool:
        """Whether the control token is among the tokens shown."""
        return self.shown[0] == 0


def read_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    text: Any,
    *,
    novel: str | None = None,
    start: int | None = None,
    stop: int | None = None,
    limit: int | None = None,
    hide_control: bool = False,
) -> Attention:
    """Run `model` over `[control token] + text` and keep attention, queries and keys of the characters `start:stop`.

    `text` is a string or a `Passage`. `start` and `stop` count characters as a slice does; by default all of the text
    is kept, or its last `limit` tokens. What lies before the span is still read, as far as the model's context reaches
    back. A text with characters that the tokenizer does not know is matched as the writer does it (乔 becomes 喬), and
    the note says so. Afterwards the model's attention implementation and training mode are as before, also after an
    error.

    `novel` is the one of the passage by default. Raises ValueError where there is no text, the span is empty, or the
    novel is unknown.
    """
    known = [token for token in tokenizer.get_vocab() if len(token) == 1]
    content = SURROGATES.sub("\ufffd", text if isinstance(text, str) else text.text)
    content, changes = match_script(content, known)
    novel = novel or getattr(text, "novel", None)
    first, last, _ = slice(start, stop).indices(len(content))
    if not content:
        raise ValueError("there is no text to show: give at least one character")
    if first >= last:
        raise ValueError(f"the span {start}:{stop} holds no character of a text of {len(content)}")

    ids = encode(tokenizer, content)
    begin, end = len(encode(tokenizer, content[:first])), len(encode(tokenizer, content[:last]))
    context = trained_positions(model.config) - 1  # one place is the control token's
    starts = is_character_start(tokenizer)[ids]
    read_from = _character_from(starts, max(0, end - context))
    shown_from = _character_from(starts, max(begin, read_from, end - limit if limit else 0))
    window = [control_id(tokenizer, novel), *ids[read_from:end]]
    shown = [0] * (not hide_control) + [i - read_from + 1 for i in range(shown_from, end)]

    weights, queries, keys, logits = _forward(model, window, shown)
    probabilities, best = logits.softmax(-1).topk(min(LIKELIEST, logits.size(-1)))  # (S, K) both
    next_characters = [
        list(zip(token_labels(tokenizer, row), values, strict=True))
        for row, values in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]
    prompt = 0 if isinstance(text, str) else len(encode(tokenizer, content[: len(text.prompt)]))
    return Attention(
        token_ids=window,
        shown=shown,
        labels=token_labels(tokenizer, [window[i] for i in shown]),
        weights=weights,
        queries=queries,
        keys=keys,
        next_characters=next_characters,
        prompt_length=min(max(prompt - shown_from, 0) + (not hide_control), len(shown)),
        note=_note(*(int(starts[:i].sum()) for i in (shown_from, end, len(ids), read_from)), changes),
    )


def _character_from(starts: np.ndarray, place: int) -> int:
    """The first token from `place` on that begins a character, not one in the middle of its bytes."""
    return next((i for i in range(place, len(starts)) if starts[i]), place)


def token_labels(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    """A visible label for each token: 〈天龍八部〉 for a control token, ⏎ for a newline, E9 for a byte."""
    labels = []
    for i, token in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if i in tokenizer.all_special_ids or re.fullmatch(r"<\|.+\|>", token):
            labels.append("〈小說〉" if token == GENERIC_TOKEN else f"〈{token.strip('<|>')}〉")
        elif byte := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
            labels.append(byte[1])
        else:
            text = tokenizer.decode([i])
            labels.append("".join(VISIBLE.get(character, character) for character in text))
    return labels


def _note(shown_from: int, end: int, total: int, read_from: int, changes: Sequence[Change]) -> str:
    """The line that says what is not shown (counted in characters) or not as given; empty where everything is."""
    parts = []
    if shown_from > 0 or end < total:
        parts.append(f"全文 {total} 字，這裡只畫第 {shown_from + 1} 到第 {end} 字。")
    if read_from > 0:
        parts.append(f"模型一次讀不完全文，更前面的 {read_from} 字它沒有看到。")
    if changes:
        parts.append(f"換成模型認得的字：{'、'.join(dict.fromkeys(map(str, changes)))}。")
    return "".join(parts)


@contextlib.contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model returns its attention weights (only `eager` does) and drops nothing out."""
    implementation = model.config._attn_implementation
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.set_attn_implementation("eager")
        model.eval()
        yield
    finally:
        model.set_attn_implementation(implementation)
        for module, training in modes:
            module.training = training


@torch.no_grad()
def _forward(
    model: PreTrainedModel, window: list[int], shown: list[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(L, H, S, S) weights, (L, H, S, D) queries and keys, (S, V) logits of the shown tokens, as float32 on the CPU."""
    weights, queries, keys = [], [], []
    rows = torch.tensor(shown)

    def keep_weights(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        attention = output[1][0].float().cpu()  # (H, T, T)
        weights.append(attention[:, rows][:, :, rows])

    def keep_projections(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        query, key, _ = output[0].float().cpu().chunk(3, dim=-1)  # (T, H * D) each
        for store, projection in ((queries, query), (keys, key)):
            heads = projection[rows].unflatten(-1, (model.config.num_attention_heads, -1))  # (S, H, D)
            store.append(heads.transpose(0, 1))

    hooks = []
    try:
        for block in model.transformer.h:
            hooks.append(block.attn.register_forward_hook(keep_weights))
            hooks.append(block.attn.c_attn.register_forward_hook(keep_projections))
        with _eager(model):
            logits = model(torch.tensor([window], device=model.device), use_cache=False).logits[0]  # (T, V)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(weights), torch.stack(queries), torch.stack(keys), logits[shown].float().cpu()


@dataclass(frozen=True)
class View:
    """One view of an `Attention`. It draws itself in a notebook and saves itself as a page or a picture."""

    attention: Attention = field(repr=False)
    view: str
    layer: int  # selected when the page opens
    head: int | str | None  # likewise; "mean" or "max" in the generation view, None for all heads in the head view
    layers: list[int]  # the layers that the page carries
    mode: str = "auto"

    @cached_property
    def page(self) -> str:
        """The whole HTML page. It needs nothing but itself: no network, no file beside it."""
        from jinyong_gpt2.views.page import build_page

        return build_page(self)

    @cached_property
    def picture(self) -> bytes:
        """The view as a PNG, drawn by matplotlib."""
        from jinyong_gpt2.views.static import draw_png

        return draw_png(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the view to `path`: `.html` for the page, `.png` for the picture. Raises ValueError for other names."""
        path = Path(path)
        if path.suffix.lower() not in (".html", ".png"):
            raise ValueError(f"a view is saved as .html or .png, not as {path.name!r}")
        content = self.picture if path.suffix.lower() == ".png" else self.page.encode("utf-8")
        return write_whole(path, content)

    def _repr_html_(self) -> str:
        from jinyong_gpt2.views.page import embed

        return embed(self)


def _number(name: str, value: Any, count: int, others: str = "") -> int:
    """`value` as an int below `count`; ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < count:
        raise ValueError(f"there is no {name} {value!r}: this model's are 0 to {count - 1}{others}")
    return int(value)


def show(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    text: Any,
    view: str = "model",
    *,
    novel: str | None = None,
    layer: int | None = None,
    head: int | str | None = None,
    layers: Iterable[int] | None = None,
    start: int | None = None,
    stop: int | None = None,
    hide_control: bool = False,
    mode: str = "auto",
) -> View:
    """Show what the model attends to in `text`, a string or a `Passage`.

    view: "model" (all layers and heads at once), "head" (the heads of a layer), "neuron" (query and key) or
        "generation" (the text appearing character by character).
    novel: whose control token goes first; by default the passage's, or of none in particular.
    layer, head: selected when the page opens, counted from 0. By default the last layer, and for head: all of them in
        the head view, the first in the neuron view, "mean" in the generation view (which knows "max" too).
    layers: the layers that the page carries; by default all, or where the text is long the first, middle and last.
    start, stop: show these characters of the text only. By default all, or the last ones where there are too many.
    hide_control: leave the control token's row and column out.
    mode: "light", "dark", or "auto" to follow the notebook or the system.

    Raises ValueError for an unknown view, layer, head, mode or novel, and where there is no text.
    """
    if view not in LIMITS:
        raise ValueError(f"unknown view {view!r}: choose one of {', '.join(LIMITS)}")
    if mode not in ("auto", "light", "dark"):
        raise ValueError(f"unknown mode {mode!r}: choose one of auto, light, dark")
    n_layer, n_head = model.config.num_hidden_layers, model.config.num_attention_heads
    if layer is not None:
        layer = _number("layer", layer, n_layer)
    chosen = None if layers is None else sorted({_number("layer", i, n_layer) for i in layers})
    if chosen == []:
        raise ValueError(f"layers must be some of 0 to {n_layer - 1}, not none")
    if chosen is not None and layer is not None and layer not in chosen:
        raise ValueError(f"layer {layer} is not among the chosen layers {chosen}")
    reductions = ("mean", "max") if view == "generation" else ()
    if head is not None and not (isinstance(head, str) and head in reductions):
        head = _number("head", head, n_head, " or ".join(("", *reductions)))

    attention = read_attention(
        model, tokenizer, text, novel=novel, start=start, stop=stop, limit=LIMITS[view], hide_control=hide_control
    )
    if chosen is None:
        chosen = list(range(n_layer))
        if view in ("neuron", "generation") and len(attention.shown) > LIMITS[view] // 2 + 1:
            chosen = sorted({0, n_layer // 2, n_layer - 1, chosen[-1] if layer is None else layer})
    if head is None:
        head = {"neuron": 0, "generation": "mean"}.get(view)
    return View(attention, view, chosen[-1] if layer is None else layer, head, chosen, mode)
