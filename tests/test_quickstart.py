"""The README's commands, as a newcomer runs them, on the bundled checkpoint."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["browser"]

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("passage", "attention_model", "attention_head", "attention_neuron")


def quickstart(folder, *arguments):
    """Run quickstart.py in `folder`, where its out/ goes; the completed process."""
    command = [sys.executable, str(ROOT / "scripts" / "quickstart.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    done = quickstart(folder, "--length", "30", "--seed", "3")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_it_tells_a_passage_and_where_to_look(written):
    folder, told = written
    first = told.splitlines()[0]
    assert first.startswith("喬峯帶阿朱回到北方") and len(told.split("Open in a browser")[0].strip()) >= 29 + 30
    for page in PAGES:
        assert f"out/{page}.html" in told and (folder / "out" / f"{page}.html").is_file()
    assert "--notebook" in told.splitlines()[-1]


@pytest.mark.parametrize("page", PAGES)
def test_its_pages_open_without_a_network(written, open_page, page):
    folder, _ = written
    watched = open_page(folder / "out" / f"{page}.html")
    if page != "passage":
        watched.page.wait_for_selector("html[data-drawn]", state="attached")
    shown = "Layers" if page == "attention_model" else "喬"  # the model view labels characters only when enlarged
    assert shown in watched.page.inner_text("body")
    watched.assert_quiet()


@pytest.mark.parametrize(
    "arguments",
    [("--prompt", "", "--length", "5"), ("--prompt", "😀🐉", "--length", "5"), ("--length", "0"),
     ("--prompt", "喬峯" * 600, "--length", "5")],
    ids=["empty prompt", "emoji", "nothing to write", "longer than the context"],
)  # fmt: skip
def test_an_unusual_request_is_no_failure(tmp_path, arguments):
    done = quickstart(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "passage.html").is_file()


def test_a_bad_request_is_one_line(tmp_path):
    done = quickstart(tmp_path, "--length", "-1")
    assert done.returncode == 1 and done.stderr.startswith("quickstart.sh: ")
    assert len(done.stderr.strip().splitlines()) == 1


def shell(tmp_path, script, **environment):
    """Run a copy of one of our shell scripts in a folder of its own, with a PATH of its own."""
    (tmp_path / "scripts").mkdir()
    for name in ("environment.sh", script):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return subprocess.run(
        ["bash", f"scripts/{script}"], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True
    )


def fake(folder, name, body):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return folder


def test_an_old_python_is_told_in_one_line(tmp_path):
    old = tmp_path / "old"
    for name in ("python3", "python", "python3.10", "python3.11", "python3.12", "python3.13"):
        fake(old, name, "exit 1")
    done = shell(tmp_path, "quickstart.sh", PATH=f"{old}:/usr/bin:/bin", PYTHON3=str(old / "python3"))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "Python 3.10 or newer" in done.stderr


def test_no_network_is_told_in_one_line(tmp_path):
    # A closed port of this machine stands for every index there is.
    nowhere = "http://127.0.0.1:9/simple"
    done = shell(
        tmp_path, "quickstart.sh", PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=nowhere, PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", no_proxy="",
        PYTHON3=sys.executable,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "Is there a network?" in done.stderr
    assert not (tmp_path / ".venv" / "complete").exists()


@pytest.mark.parametrize(("system", "python"), [("", "bin/python"), ("Windows_NT", "Scripts/python.exe")])
def test_a_complete_environment_is_not_installed_again(tmp_path, system, python):
    fake((tmp_path / ".venv" / python).parent, Path(python).name, 'echo "ran $* in UTF-8: $PYTHONUTF8"')
    stamp = subprocess.run(
        "cat requirements.txt pyproject.toml | cksum", shell=True, cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    (tmp_path / ".venv" / "complete").write_text(stamp + "\n")
    done = shell(tmp_path, "quickstart.sh", OS=system)
    assert done.stdout.strip() == "ran scripts/quickstart.py in UTF-8: 1"


def test_no_path_of_any_machine_is_in_the_project():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    if tracked == [""]:
        pytest.skip("not a git checkout")
    private = re.compile(rb"(?<![\w.])/(?:home|Users|root|work)/[\w.]")
    found = [
        name for name in tracked if name and (ROOT / name).is_file() and private.search((ROOT / name).read_bytes())
    ]
    assert not [name for name in found if not name.startswith("tests/")]
