#!/usr/bin/env python
"""Run notebooks and keep the outputs that a reader on GitHub can see: text, tables, passages and pictures.

    python scripts/notebook_outputs.py notebooks/01_generate.ipynb notebooks/03_attention.ipynb

Widgets, interactive frames, progress bars, execution counts and times, and paths of this machine are left out. A
notebook with an error stays as it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST_HTML = 250_000  # characters of one output: some five passages of 200 characters


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path, help="notebooks to run, in place")
    parser.add_argument("--timeout", type=int, default=1200, help="seconds for one cell (default 1200)")
    options = parser.parse_args()
    from nbclient.exceptions import CellExecutionError
    from tqdm import tqdm

    for path in tqdm(options.notebooks, unit="notebook"):
        try:
            execute(path, options.timeout)
        except (CellExecutionError, FileNotFoundError) as error:
            reason = str(error).strip().splitlines()[-1]
            print(f"notebook_outputs.py: {path} stays as it was: {reason}", file=sys.stderr)
            return 1
    return 0


def execute(path: Path, timeout: int) -> None:
    """Run the notebook in its own folder, and write it with the outputs that `tidy` leaves."""
    import nbformat
    from nbclient import NotebookClient

    from jinyong_gpt2.files import write_whole

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent.resolve())}}
    NotebookClient(notebook, timeout=timeout, store_widget_state=False, resources=resources).execute()
    write_whole(path, nbformat.writes(tidy(notebook)).rstrip("\n") + "\n")


def tidy(notebook: Any) -> Any:
    """The notebook with nothing but what reads well, and alike on every machine; changed in place."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        cell.execution_count = None
        cell.outputs = [output for output in _joined(cell.outputs) if _keep(output)]
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """A text that came character by character as one output, as a front end shows it."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if output.output_type == "stream" and last is not None and last.get("name") == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _keep(output: Any) -> bool:
    """Whether an output is worth keeping; what a reader does not see is taken out of it."""
    if output.output_type == "stream":
        output.text = _without_root(output.text)
        return output.name == "stdout" and bool(output.text.strip())
    if output.output_type == "error":
        return True  # for a cell that is meant to raise; any other stops the run
    data = output.data
    if WIDGET in data:
        return False
    if "image/png" in data:
        output.data = {"image/png": data["image/png"]}
    elif "text/html" in data:
        html = data["text/html"]
        if "<iframe" in html or "<script" in html or len(html) > LONGEST_HTML:
            return False
    for kind, content in output.data.items():
        if kind.startswith("text/"):
            output.data[kind] = _without_root(content)
    output.metadata = {}
    if output.output_type == "execute_result":
        output.execution_count = None
    return bool(output.data)


def _without_root(text: str) -> str:
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")


if __name__ == "__main__":
    sys.exit(main())
