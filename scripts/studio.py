#!/usr/bin/env python
"""The studio as a web page of its own, by Voila: the panel, and no notebook around it.

    python scripts/studio.py                                                     # the bundled checkpoint and tales
    python scripts/studio.py --checkpoint checkpoints/mine/best --novels data/novels
    python scripts/studio.py --port 8866 --no_browser                            # on a machine without a screen

The work is kept in --work, and is there again the next time. Each window has a Python of its own; of two that are open
on one work, the second to save goes on under another name. Stop with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CELL = """
from jinyong_gpt2 import Writer, load_corpus
from jinyong_gpt2.studio import Studio

Studio(Writer.from_pretrained({checkpoint!r}), load_corpus({novels!r}, {script!r}), {work!r})
"""


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; Voila's exit status."""
    description, *epilog = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="a folder; the bundled checkpoint where none is given")
    parser.add_argument("--novels", default=ROOT / "data" / "sample", help="a folder of .txt files (the sample tales)")
    parser.add_argument("--work", default="out/studio.json", help="where the work is kept (out/studio.json)")
    parser.add_argument("--port", type=int, default=8866, help="default 8866")
    parser.add_argument("--no_browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments)
    from jinyong_gpt2.checkpoints import read_record
    from jinyong_gpt2.corpus import find_files
    from jinyong_gpt2.model import PRETRAINED

    checkpoint = Path(options.checkpoint or PRETRAINED)
    if not (checkpoint / "config.json").is_file():
        inside = next((name for name in ("best", "last") if (checkpoint / name / "config.json").is_file()), None)
        hint = f": {checkpoint / inside} is one" if inside else ""
        parser.error(f"--checkpoint: there is no checkpoint in {checkpoint}{hint}")
    try:
        find_files(options.novels)
        script = read_record(checkpoint).get("corpus", {}).get("script", "traditional")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not 0 <= options.port < 2**16:
        parser.error(f"--port must be in [0, {2**16}), got {options.port}")
    try:
        import nbformat
        import voila  # noqa: F401
    except ImportError:
        parser.error('Voila is not installed: pip install -e ".[notebooks]"')

    paths = {name: getattr(options, name) for name in ("checkpoint", "novels", "work")}
    paths = {name: None if path is None else str(Path(path).resolve()) for name, path in paths.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "studio.ipynb"
        cell = nbformat.v4.new_code_cell(CELL.format(**paths, script=script))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
        command = [sys.executable, "-m", "voila", str(path), f"--port={options.port}"]
        command += ["--no-browser"] * options.no_browser
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        try:
            return subprocess.run(command, env=environment, check=False).returncode
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
