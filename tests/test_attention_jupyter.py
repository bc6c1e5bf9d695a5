"""The views in a real JupyterLab 4: several in one notebook, run, saved, reopened, and reopened by someone else."""

from __future__ import annotations

import nbformat
import torch

from jinyong_gpt2.attention import show
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer

pytest_plugins = ["browser", "lab_server"]

TEXT = "喬峯帶阿朱回到北方"
VIEWS = ("model", "neuron", "neuron", "generation")


def _frames(lab, watched, count: int) -> list:
    """The views on the page, once `count` of them are drawn."""
    for _ in range(lab.patience // 100):
        handles = watched.page.query_selector_all(".jinyong-view iframe")
        frames = [handle.content_frame() for handle in handles]
        if len(frames) == count and all(f and f.query_selector("html[data-drawn]") for f in frames):
            return frames
        watched.page.wait_for_timeout(100)
    raise AssertionError(f"{len(frames)} of {count} views are drawn")


def test_views_live_in_jupyterlab(open_page, lab):
    tokenizer = build_tokenizer([TEXT], titles=["天龍八部"], min_count=1)
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)
    for i, name in enumerate(VIEWS):
        (lab.folder / f"{i}.html").write_text(show(model, tokenizer, TEXT, name)._repr_html_(), encoding="utf-8")
    # What a cell's last line does with a View, without loading torch in the kernel.
    cell = "class V:\n    def _repr_html_(self): return open('{}.html', encoding='utf-8').read()\nV()"
    lab.save_notebook("views.ipynb", [cell.format(i) for i in range(len(VIEWS))])

    watched = lab.open(open_page, "views.ipynb", height=2600)
    lab.run_all(watched)
    frames = _frames(lab, watched, len(VIEWS))
    frames[1].select_option("#layer", "0")
    assert [frame.input_value("#layer") for frame in frames[1:]] == ["0", "1", "1"]
    assert not any(image.is_visible() for image in watched.page.query_selector_all(".jinyong-view img"))
    watched.page.keyboard.press("Control+s")
    saved = lab.saved(watched, "views.ipynb")

    watched.page.goto(f"{lab.url}lab/tree/views.ipynb?reset")
    _frames(lab, watched, len(VIEWS))

    # Another cell, as if it came from elsewhere: this server has not signed it, so no script of it runs.
    saved.cells.append(nbformat.v4.new_markdown_cell("別處來的"))
    nbformat.write(saved, lab.folder / "strange.ipynb")
    watched.page.goto(f"{lab.url}lab/tree/strange.ipynb?reset")
    counted = f"document.querySelectorAll('.jp-OutputArea-output img').length === {len(VIEWS)}"
    watched.page.wait_for_function(counted)
    assert not watched.page.query_selector_all(".jp-OutputArea-output iframe")
    pictures = watched.page.query_selector_all(".jp-OutputArea-output img")
    assert all(picture.evaluate("p => p.naturalWidth") > 250 for picture in pictures)
    assert watched.page.is_visible("text=信任這份筆記本 >> nth=0")
    assert not watched.requests, f"requests leave the page: {watched.requests}"
