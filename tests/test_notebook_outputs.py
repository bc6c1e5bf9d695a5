"""The outputs that are committed with the notebooks read well anywhere, and `notebook_outputs.py` makes them so."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
SHOWN, BARE = ("01_generate", "03_attention"), ("02_train", "04_evaluate")
ABSOLUTE = re.compile(r"(?<![\w/<:.])(?:/\w[\w.-]*){2,}|\b[A-Z]:\\")  # a path from the root of some machine


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("notebook_outputs", ROOT / "scripts" / "notebook_outputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def texts(output):
    """All that an output says in words."""
    data = output.get("data", {})
    return [output.get("text", ""), *(content for kind, content in data.items() if kind.startswith("text/"))]


@pytest.mark.parametrize("name", SHOWN)
def test_committed_outputs_hold_no_error_path_or_widget(name):
    notebook = read(name)
    assert "widgets" not in notebook.metadata
    assert outputs(notebook), "run scripts/notebook_outputs.py"
    for output in outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr"
        assert not any("widget" in kind for kind in output.get("data", {}))
        for text in texts(output):
            assert not ABSOLUTE.search(text), ABSOLUTE.search(text)
            assert "<iframe" not in text and "<script" not in text


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_with_outputs_is_small_enough_to_be_shown(name):
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", SHOWN)
def test_committed_outputs_are_what_the_script_leaves(name, script):
    notebook = read(name)
    assert script.tidy(read(name)) == notebook


@pytest.mark.parametrize("name", BARE)
def test_the_others_have_no_outputs(name):
    assert not outputs(read(name))


def test_every_picture_a_notebook_names_is_there():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        missing = [link for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text) if not (path.parent / link).is_file()]
        assert not missing, path.name


def test_what_a_reader_cannot_see_is_left_out(script):
    picture = {"image/png": "aGVsbG8=", "text/plain": "<Figure size 640x480>"}
    passage = {"text/html": f"<p>話說 {script.ROOT}/out/page.html</p>", "text/plain": "話說"}
    cell = new_code_cell(
        "1",
        execution_count=3,
        metadata={"execution": {"iopub.execute_input": "2026"}, "tags": ["kept"]},
        outputs=[
            *(new_output("stream", name="stdout", text=character) for character in f"{script.ROOT}/data\n"),
            new_output("stream", name="stderr", text="100%"),
            new_output("display_data", {script.WIDGET: {"model_id": "1"}, "text/plain": "Studio()"}),
            new_output("execute_result", {"text/html": "<iframe></iframe>", "text/plain": "View()"}, execution_count=3),
            new_output("display_data", {"text/html": "x" * (script.LONGEST_HTML + 1)}),
            new_output("display_data", picture, metadata={"image/png": {"width": 3}}),
            new_output("execute_result", passage, execution_count=3),
        ],
    )
    notebook = script.tidy(new_notebook(cells=[cell], metadata={"widgets": {"state": {}}}))
    assert "widgets" not in notebook.metadata
    assert cell.metadata == {"tags": ["kept"]} and cell.execution_count is None
    said, drawn, written = cell.outputs
    assert said.text == "data\n"
    assert drawn.data == {"image/png": "aGVsbG8="} and drawn.metadata == {}
    assert written.data == {"text/html": "<p>話說 out/page.html</p>", "text/plain": "話說"}
    assert written.execution_count is None
    nbformat.validate(notebook)


def test_a_notebook_that_fails_stays_as_it_was(script, tmp_path, monkeypatch, capsys):
    path = tmp_path / "broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print('begun')"), new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    monkeypatch.setattr("sys.argv", ["notebook_outputs.py", str(path)])
    assert script.main() == 1
    assert path.read_bytes() == before and "ZeroDivisionError" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["broken.ipynb"]
