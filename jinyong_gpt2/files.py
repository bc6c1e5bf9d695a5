"""Files written whole: under a temporary name, then renamed. A kill or a full disk leaves the old one as it was."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path`, text as UTF-8 (what is no character becomes ?), and return the path.

    Folders that are missing are made. Raises OSError where it cannot be written, and then leaves nothing behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
