"""What the READMEs show is run as it stands, what they name is there, and both say the same."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README, TRANSLATED = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-TW.md"))
BOTH = pytest.mark.parametrize("readme", [README, TRANSLATED], ids=["README.md", "README.zh-TW.md"])


def blocks(readme, language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", readme, flags=re.DOTALL | re.MULTILINE)
    return [block for named, block in fenced if named == language]


def tree(readme):
    (block,) = blocks(readme, "")
    return block


def links(readme):
    """What it links to: files, without the other README, and addresses."""
    found = re.findall(r"\]\(([^)#]+)\)", readme) + re.findall(r"^\[.+\]: (.+)$", readme, flags=re.MULTILINE)
    return [link for link in found if not link.startswith("README")]


def commands(readme):
    """Every command that runs a script of ours: in a block, with its lines joined, or between backticks."""
    lines = "\n".join(blocks(readme, "bash")).replace("\\\n", "").splitlines()
    text = "".join(readme.split("```")[::2])  # what stands in no block
    lines += [f"python scripts/{command}" for command in re.findall(r"`(\w+\.py [^`]+)`", text)]
    lines += re.findall(r"`((?:bash|python) scripts/[^`]+)`", text)
    return [shlex.split(line) for line in lines if "scripts/" in line]


@pytest.mark.parametrize("block", blocks(README, "python"), ids=["the package", "plain transformers"])
def test_the_code_runs_as_it_stands(block, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {})
    written = capsys.readouterr().out
    assert len(re.findall("[\u4e00-\u9fff]", written)) > 20


class Understood(BaseException):
    """A script has parsed its options, and would now begin."""


@pytest.fixture
def only_parse(monkeypatch):
    """Scripts stop where they have understood their options; with one they do not know, they stop before."""
    from transformers import HfArgumentParser

    def stop_after(parse):
        def parsed(self, *args, **kwargs):
            parse(self, *args, **kwargs)
            raise Understood

        return parsed

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.chdir(ROOT)
    for parser, name in ((argparse.ArgumentParser, "parse_args"), (HfArgumentParser, "parse_args_into_dataclasses")):
        monkeypatch.setattr(parser, name, stop_after(getattr(parser, name)))

    def run(words):
        monkeypatch.setattr("sys.argv", words)
        try:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except Understood:
            return True
        except SystemExit:
            return False

    return run


def test_every_command_names_a_script_and_options_that_exist(only_parse):
    assert len(commands(README)) > 15
    for program, script, *options in commands(README):
        assert (ROOT / script).is_file(), script
        if program == "python":
            assert only_parse([script, *options]), (script, options)
        elif script == "scripts/quickstart.sh":
            assert only_parse(["scripts/quickstart.py", *options]), options


@pytest.mark.parametrize("words", ["scripts/train.py --init_form x", "scripts/generate.py --lenght 3"])
def test_an_option_that_does_not_exist_is_noticed(only_parse, words):
    assert not only_parse(words.split())


@BOTH
def test_every_file_it_names_exists(readme):
    files = [link for link in links(readme) if "://" not in link]
    scripts = re.findall(r"scripts/[\w.]+\w", readme)
    rooms = [f"jinyong_gpt2/{name}" for name in re.findall(r"\b\w+\.py\b", tree(readme).split("jinyong_gpt2/")[1])]
    missing = [name for name in [*files, *scripts, *rooms] if not (ROOT / name).exists()]
    assert not missing


@BOTH
def test_every_room_and_script_is_in_its_tree(readme):
    paths = [*(ROOT / "jinyong_gpt2").glob("[!_]*.py"), *(ROOT / "scripts").glob("*.*")]
    inner = {"environment.sh", "quickstart.py"}  # parts of quickstart.sh
    assert not [path.name for path in paths if path.name not in tree(readme) and path.name not in inner]


def test_both_say_the_same():
    for language in ("python", "bash"):
        assert blocks(README, language) == blocks(TRANSLATED, language)
    assert sorted(links(README)) == sorted(links(TRANSLATED))
    assert commands(README) == commands(TRANSLATED)
    names = [re.findall(r"[\w.]+\.(?:py|sh)|\w+/", tree(readme)) for readme in (README, TRANSLATED)]
    assert names[0] == names[1]
    shapes = [re.findall(r"^(?:#+ |\|.*\|$|- )", readme, flags=re.MULTILINE) for readme in (README, TRANSLATED)]
    assert [shape[:2] for shape in shapes[0]] == [shape[:2] for shape in shapes[1]]  # headings, rows and points


def test_both_give_the_same_figures():
    figures = []
    for readme, heading in ((README, "## Measured"), (TRANSLATED, "## 量出來的數字")):
        cells = [row.split("|")[2:4] for row in readme.split(heading)[1].split("\n## ")[0].splitlines() if "|" in row]
        figures.append([re.findall(r"\d[\d.,]*\d|\d", " ".join(cell)) for cell in cells])
    assert figures[0] == figures[1]
    assert sum(map(len, figures[0])) > 15


def test_each_leads_to_the_other():
    assert "(README.zh-TW.md)" in README[:200] and "(README.md)" in TRANSLATED[:200]


def test_setting_the_address_changes_ours_alone_and_can_be_set_again(tmp_path):
    for path in [*ROOT.glob("README*.md"), *ROOT.glob("notebooks/*.ipynb"), ROOT / "scripts" / "set_repository.py"]:
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    addresses = re.compile(r"(?:github\.com|google\.com/github)/([\w.-]+/[\w.-]+)")

    def found():
        pages = [*tmp_path.glob("README*.md"), *tmp_path.glob("notebooks/*.ipynb")]
        return [address for path in sorted(pages) for address in addresses.findall(path.read_text(encoding="utf-8"))]

    before = found()
    ours = next(address for address in before if address.endswith("/jinyong_gpt2"))
    for name in ("me/my.repo", "you/jinyong_gpt2"):
        done = subprocess.run([sys.executable, str(tmp_path / "scripts" / "set_repository.py"), name], text=True)
        assert done.returncode == 0
        assert found() == [name if address == ours else address for address in before]
    assert len({*before} - {ours}) >= 5
