"""Watch a run: a bar anywhere, and in a notebook the curve as it grows.

for metrics in progress(train(config), config.max_steps):  # in a terminal
    pass
for metrics in watch(train(config), config.max_steps):  # in a notebook
    pass
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

REDRAW = 2.0  # seconds between two drawings


def progress(run: Iterable[dict[str, Any]], max_steps: int, name: str = "training") -> Iterator[dict[str, Any]]:
    """Pass on the metrics of `train`, with a progress bar; of several processes the first alone shows one."""
    from tqdm.auto import tqdm

    alone_or_first = os.environ.get("RANK", "0") == "0"
    with tqdm(total=max_steps, desc=name, unit="step", leave=False, disable=not alone_or_first) as bar:
        for metrics in run:
            if bar.n == 0:  # a resumed run begins where it was, which is no speed
                bar.initial = bar.n = bar.last_print_n = metrics["step"] - 1
                bar.leave = True  # a run that cannot begin leaves no bar beside its message
            bar.update(metrics["step"] - bar.n)
            if "characters_per_second" in metrics:
                bar.set_postfix_str(
                    f"loss {metrics['loss']:.2f}, {metrics['characters_per_second']:,.0f} characters/s, "
                    f"{metrics['utilisation']:.0%} of the device",
                    refresh=False,
                )
            yield metrics


def watch(run: Iterable[dict[str, Any]], max_steps: int) -> Iterator[dict[str, Any]]:
    """Pass on the metrics of `train`, with a progress bar and a live plot where there is a notebook to draw in.

    Loss is drawn in bits a token, so that it compares with the held-out bits per character beside it.
    """
    from IPython.display import display

    rows: list[dict[str, Any]] = []
    handle, drawn = display(draw(rows, max_steps), display_id=True), time.monotonic()
    for metrics in progress(run, max_steps):
        rows.append(metrics)
        if time.monotonic() - drawn > REDRAW and handle is not None:
            handle.update(draw(rows, max_steps))
            drawn = time.monotonic()
        yield metrics
    if handle is not None:
        handle.update(draw(rows, max_steps))


def draw(rows: list[dict[str, Any]], max_steps: int) -> Any:
    """The curve of a run as a matplotlib figure that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([r["step"] for r in rows], [r["loss"] / math.log(2) for r in rows], lw=0.8, alpha=0.6, label="training")
    measured = [(r["step"], r["heldout_bits_per_char"]) for r in rows if "heldout_bits_per_char" in r]
    if measured:
        axes.plot(*zip(*measured, strict=True), "o-", color="crimson", label="held-out chapters")
    axes.set(xlabel="step", ylabel="bits per character", xlim=(0, max_steps))
    if rows:
        axes.legend(frameon=False)
    return figure
