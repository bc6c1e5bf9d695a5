"""What the README shows is run as it stands, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["the package", "plain transformers"])
def test_the_code_runs_as_it_stands(block, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})
    written = capsys.readouterr().out
    assert len(re.findall("[\u4e00-\u9fff]", written)) > 20


def test_every_file_it_names_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    tree = README.split("## What is where")[1].split("```")[1]
    scripts = re.findall(r"scripts/[\w.]+|^  (?=\w+\.(?:sh|py))", tree, flags=re.MULTILINE)
    rooms = [f"jinyong_gpt2/{name}" for name in re.findall(r"\b\w+\.py\b", tree.split("jinyong_gpt2/")[1])]
    missing = [name for name in [*links, *filter(None, scripts), *rooms] if not (ROOT / name.strip()).exists()]
    assert not missing


def test_every_room_is_in_its_tree():
    tree = README.split("## What is where")[1]
    missing = [path.name for path in (ROOT / "jinyong_gpt2").glob("[!_]*.py") if path.name not in tree]
    assert not missing
