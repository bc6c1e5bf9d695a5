"""The notebooks run from top to bottom on a tiny setting, and agree where they must."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What replaces the knobs of a notebook, so that it runs in seconds.
TINY = {
    "01_generate": 'context = "喬峯帶阿朱"\nlength, temperature, top_p, seed, checkpoint = 20, 0.9, 0.95, 7, ""',
    "02_train": (
        "import tempfile\n"
        'novels, folder, start, size = "", tempfile.mkdtemp(), "scratch", "testing"\n'
        "steps, context_length = 4, 32"
    ),
    "04_evaluate": 'novels, checkpoint, size, steps, examples, min_chars = "", "", "testing", 10, 1, 15',
    "03_attention": 'text = "喬峰對她說：「走！」"\ncharacter, names, checkpoint = "她", "喬峰", ""',
}


def tagged(notebook, tag):
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    assert len(cells) == 1, f"one cell must carry the tag {tag!r}"
    return cells[0]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_on_a_tiny_setting(path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    knobs = tagged(notebook, "knobs")
    names = set(re.findall(r"^(\w+) = ", knobs.source, flags=re.MULTILINE))
    knobs.source = TINY[path.stem]
    replaced = set(re.findall(r"\w+", re.sub(r'".*?"', "", knobs.source)))
    assert names <= replaced, f"no tiny value for {sorted(names - replaced)}"
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()


def test_the_first_code_cell_is_the_same_everywhere():
    cells = [tagged(nbformat.read(path, as_version=4), "bootstrap") for path in NOTEBOOKS]
    assert len({cell.source for cell in cells}) == 1
    for path, cell in zip(NOTEBOOKS, cells, strict=True):
        code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert code[0].source == cell.source


def test_its_outputs_hold_no_error_and_no_widget_state(notebook):
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"


def test_its_cells_are_short_and_hold_no_logic(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", []):
            assert len([line for line in cell.source.splitlines() if line.strip()]) <= 8, cell.source
            assert not re.search(r"^\s*(class|def) ", cell.source, flags=re.MULTILINE), cell.source
