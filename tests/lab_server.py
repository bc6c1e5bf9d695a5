"""A JupyterLab of a test's own: `pytest_plugins = ["browser", "lab_server"]`, then the fixture `lab`.

def test_it(open_page, lab):
    lab.save_notebook("sum.ipynb", ["1 + 1"])
    watched = lab.open(open_page, "sum.ipynb")
    lab.run_all(watched)
    open_page(f"{lab.url}voila/render/sum.ipynb")     # the same notebook as a page of Voila
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import PATIENCE

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Lab:
    """A running server and the folder whose notebooks it opens."""

    url: str
    folder: Path
    patience: int = PATIENCE

    def save_notebook(self, name: str, cells: list[str]) -> Path:
        """Write a notebook of code cells into the folder."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)
        return self.folder / name

    def open(self, open_page: Callable[..., Any], name: str, **options: Any) -> Any:
        """The notebook in JupyterLab, watched, its first cell selected."""
        watched = open_page(f"{self.url}lab/tree/{name}?reset", **options)
        watched.page.wait_for_selector(".jp-Notebook .jp-Cell")
        watched.page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
        return watched

    def run_all(self, watched: Any) -> None:
        """Run all cells, once the kernel listens: by JupyterLab's command, for a busy page loses clicks on its menu."""
        indicator = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
        watched.page.wait_for_selector(indicator)
        watched.page.wait_for_function("jupyterapp.commands.isEnabled('notebook:run-all-cells')")
        watched.page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        begun = "/[*1-9]/.test(document.querySelector('.jp-Notebook .jp-InputPrompt').textContent)"
        watched.page.wait_for_function(begun)

    def saved(self, watched: Any, name: str) -> nbformat.NotebookNode:
        """The notebook on disk, once JupyterLab has saved it with the output of every cell."""
        for _ in range(self.patience // 100):
            watched.page.wait_for_timeout(100)
            try:
                notebook = nbformat.read(self.folder / name, as_version=4)
            except ValueError:  # JupyterLab is writing it
                continue
            if all(cell.outputs for cell in notebook.cells):
                return notebook
        raise AssertionError("the notebook is not saved with its outputs")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab with settings and a folder of its own; Voila, where it is installed, is a part of it."""
    pytest.importorskip("jupyterlab")
    with running(tmp_path_factory.mktemp("lab")) as server:
        yield server


@contextmanager
def running(home: Path) -> Iterator[Lab]:
    """JupyterLab while inside; all it keeps is below `home`."""
    folder, runtime = home / "notebooks", home / "runtime"
    folder.mkdir()
    homes = {"JUPYTER_RUNTIME_DIR": runtime, "JUPYTER_CONFIG_DIR": home / "config", "HOME": home}
    homes |= {"JUPYTER_DATA_DIR": home / "data", "IPYTHONDIR": home / "ipython", "PYTHONPATH": ROOT}
    options = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", "--IdentityProvider.token="]
    options += ["--LabApp.expose_app_in_browser=True"]  # as `jupyterapp`
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={folder}"],
        env=os.environ | {name: str(path) for name, path in homes.items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Lab(_address(runtime, server), folder)
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(runtime: Path, server: subprocess.Popen) -> str:
    for _ in range(1800):
        for path in runtime.glob("jpserver-*.json"):
            try:
                url = json.loads(path.read_text())["url"]
                urllib.request.urlopen(url + "api", timeout=5).read()
                return url
            except (OSError, ValueError):
                pass
        assert server.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server did not start")
