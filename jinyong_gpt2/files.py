"""Files written whole: under a temporary name, then renamed. A kill, a full disk or a power cut leaves the old one.

And JSON files read, which others write, too: a damaged one is told with what to do about it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TAKE_ANEW = "take it anew from where it came"  # what to do about a damaged file of a checkpoint


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path`, text as UTF-8 (what is no character becomes ?), and return the path.

    Folders that are missing are made. Raises OSError where it cannot be written, and then leaves nothing behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        wait_for_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """While inside, no other process is inside with the same `path`, a file made for this, where the system can tell.

    Raises ValueError with the line `busy` where another one is. A process does not get into its own way, and one that
    dies leaves nothing locked.
    """
    with open(path, "a", encoding="utf-8") as file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(busy) from None
        except (ImportError, OSError):  # Windows; a network's file system
            pass
        yield


def read_json(path: str | os.PathLike[str], mend: str = TAKE_ANEW) -> Any:
    """What a JSON file holds.

    Raises OSError where it cannot be read, and ValueError where it is damaged, with `mend`: what to do about it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, {mend}: {error}") from None


def wait_for_disk(path: Path) -> None:
    """Return when what was written to a file is on the disk: the system may do a rename before that."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
