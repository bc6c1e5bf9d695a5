"""The rooms of the package and the direction of imports between them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jinyong_gpt2"

# A room imports only rooms above it.
ROOMS = [
    "files",
    "novels", "script", "text_files", "overlap", "cleaning", "paragraphs", "chapters", "reading", "holdout", "corpus",
    "tokenizer", "dataset",
    "devices", "model", "embeddings", "loss", "finetuning",
    "sampling", "passage", "decoding", "writer",
    "ngrams", "baselines",
    "allocator", "blockwise", "optimizers", "sharding", "cards", "checkpoints", "training", "watching",
    "evaluation", "people", "variety", "memorization", "extraction", "comparison", "charts",
    "views", "attention",
    "history",
    "__init__",
    "desk", "studio",
]  # fmt: skip

HEAVY = {"transformers", "accelerate", "opencc", "bertviz", "ipywidgets", "anywidget", "matplotlib", "scipy", "IPython"}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, at_run_time=True):
    """Modules that `path` imports; with `at_run_time` not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= set(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            yield from (
                [f"{node.module}.{a.name}" for a in node.names] if node.module == "jinyong_gpt2" else [node.module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=room_of)
def test_a_room_imports_only_rooms_above_it(path):
    room = room_of(path)
    assert room in ROOMS, f"{room} is a new room: give it a place in the list above"
    above = set(ROOMS[: ROOMS.index(room)]) | ({"views"} if room == "views" else set())
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("jinyong_gpt2.")}
    assert ours <= above, f"{room} imports {sorted(ours - above)} from below"


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, jinyong_gpt2; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_exported_is_documented():
    import jinyong_gpt2

    undocumented = [
        name for name in jinyong_gpt2.__all__
        if callable(getattr(jinyong_gpt2, name)) and not (getattr(jinyong_gpt2, name).__doc__ or "").strip()
    ]  # fmt: skip
    assert not undocumented
