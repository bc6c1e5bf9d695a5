"""The views in a real JupyterLab 4: several in one notebook, run, saved, reopened, and reopened by someone else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
import torch

from jinyong_gpt2.attention import show
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer

pytest_plugins = ["browser"]

TEXT = "喬峯帶阿朱回到北方"
VIEWS = ("model", "neuron", "neuron", "generation")


@pytest.fixture
def lab(tmp_path):
    """URL and folder of a JupyterLab of this test's own."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    port_file = tmp_path / "runtime"
    homes = {"JUPYTER_RUNTIME_DIR": port_file, "JUPYTER_CONFIG_DIR": tmp_path / "config", "HOME": tmp_path}
    homes |= {"JUPYTER_DATA_DIR": tmp_path / "data", "IPYTHONDIR": tmp_path / "ipython"}
    options = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", "--IdentityProvider.token="]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={folder}"],
        env=os.environ | {name: str(path) for name, path in homes.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _address(port_file, server), folder
    finally:
        server.terminate()
        server.wait(20)


def _address(runtime, server) -> str:
    for _ in range(900):
        for path in runtime.glob("jpserver-*.json"):
            try:
                url = json.loads(path.read_text())["url"]
                urllib.request.urlopen(url + "api", timeout=5).read()
                return url
            except (OSError, ValueError):
                pass
        assert server.poll() is None, "JupyterLab ended"
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start")


def _frames(watched, count: int) -> list:
    """The views on the page, once `count` of them are drawn."""
    for _ in range(900):
        handles = watched.page.query_selector_all(".jinyong-view iframe")
        frames = [handle.content_frame() for handle in handles]
        if len(frames) == count and all(f and f.query_selector("html[data-drawn]") for f in frames):
            return frames
        watched.page.wait_for_timeout(100)
    raise AssertionError(f"{len(frames)} of {count} views are drawn")


def _saved(watched, path) -> nbformat.NotebookNode:
    """The notebook on disk, once it holds the output of every cell."""
    for _ in range(300):
        watched.page.wait_for_timeout(100)
        try:
            notebook = nbformat.read(path, as_version=4)
        except ValueError:  # JupyterLab is writing it
            continue
        if all(cell.outputs for cell in notebook.cells):
            return notebook
    raise AssertionError("the notebook is not saved with its outputs")


def test_views_live_in_jupyterlab(open_page, lab, tmp_path):
    url, folder = lab
    tokenizer = build_tokenizer([TEXT], titles=["天龍八部"], min_count=1)
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)
    for i, name in enumerate(VIEWS):
        (folder / f"{i}.html").write_text(show(model, tokenizer, TEXT, name)._repr_html_(), encoding="utf-8")
    # What a cell's last line does with a View, without loading torch in the kernel.
    cell = "class V:\n    def _repr_html_(self): return open('{}.html', encoding='utf-8').read()\nV()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.format(i)) for i in range(len(VIEWS))])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "views.ipynb")

    watched = open_page(f"{url}lab/tree/views.ipynb?reset", height=2600)
    watched.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    watched.page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    watched.page.click("text=Run >> nth=0")
    watched.page.click("text=Run All Cells")
    frames = _frames(watched, len(VIEWS))
    frames[1].select_option("#layer", "0")
    assert [frame.input_value("#layer") for frame in frames[1:]] == ["0", "1", "1"]
    assert not any(image.is_visible() for image in watched.page.query_selector_all(".jinyong-view img"))
    watched.page.keyboard.press("Control+s")
    saved = _saved(watched, folder / "views.ipynb")

    watched.page.goto(f"{url}lab/tree/views.ipynb?reset")
    _frames(watched, len(VIEWS))

    # Another cell, as if it came from elsewhere: this server has not signed it, so no script of it runs.
    saved.cells.append(nbformat.v4.new_markdown_cell("別處來的"))
    nbformat.write(saved, folder / "strange.ipynb")
    watched.page.goto(f"{url}lab/tree/strange.ipynb?reset")
    counted = f"document.querySelectorAll('.jp-OutputArea-output img').length === {len(VIEWS)}"
    watched.page.wait_for_function(counted, timeout=60_000)
    assert not watched.page.query_selector_all(".jp-OutputArea-output iframe")
    pictures = watched.page.query_selector_all(".jp-OutputArea-output img")
    assert all(picture.evaluate("p => p.naturalWidth") > 250 for picture in pictures)
    assert watched.page.is_visible("text=信任這份筆記本 >> nth=0")
    assert not watched.requests, f"requests leave the page: {watched.requests}"
