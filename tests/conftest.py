"""What several tests share: a small prepared corpus, made once."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks a server for anything
# A busy machine is no failure, and the same examples are tried everywhere.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@dataclass
class PlainChapter:
    title: str
    text: str
    heldout: bool = False

    @property
    def full_text(self) -> str:
        return f"{self.title}\n{self.text}\n"


@dataclass
class PlainNovel:
    title: str
    chapters: list[PlainChapter]


@dataclass
class PlainCorpus:
    """What `prepare` needs of a corpus, and nothing else."""

    novels: list[PlainNovel]
    script: str = "traditional"
    heldout_share: float = 0.02


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small only wait for one another's threads; and sums over one thread are the same everywhere."""
    import torch

    torch.set_num_threads(1)


def plain_corpus() -> PlainCorpus:
    """Three novels in an alphabet each of its own, so that a window that mixes two is seen at once."""
    novels = []
    for title, alphabet in (("甲書", "天地玄黃"), ("乙書", "宇宙洪荒😀"), ("丙書", "日月盈昃")):
        chapters = [
            PlainChapter(f"第{n}回", (alphabet * 40)[: 97 + 31 * n], heldout=n == 2 and title != "丙書")
            for n in range(5)
        ]
        novels.append(PlainNovel(title, chapters))
    return PlainCorpus(novels)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """`plain_corpus`, prepared."""
    from jinyong_gpt2.dataset import prepare

    return prepare(plain_corpus(), tmp_path_factory.mktemp("prepared"))
