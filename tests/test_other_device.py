"""Writing on a device that is not the CPU: no tensor is left behind. Seen without a GPU, by `other_device`."""

from __future__ import annotations

import copy

import pytest
import torch
from other_device import other_device
from test_writer import PROMPT, assert_same, decided_model

from jinyong_gpt2.decoding import Decoder, GraphStreams, Streams
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.writer import Writer


@pytest.fixture(scope="module")
def writer():
    tokenizer = build_tokenizer([PROMPT], titles=["天龍八部"], min_count=1)
    return Writer(decided_model(tokenizer), tokenizer, dtype="float32")


@pytest.mark.parametrize(
    "meet",
    [
        lambda there, here: there + here,
        lambda there, here: here.mul_(there),
        lambda there, here: torch.cat([here, there]),
        lambda there, here: there.index_fill(0, here.long(), 0.0),
        lambda there, here: torch.searchsorted(there, here),
        lambda there, here: there.__setitem__(slice(0, 2), here),
    ],
)
def test_two_devices_that_meet_are_told(meet):
    with other_device() as device:
        there, here = torch.ones(2, device=device), torch.ones(2)
        assert there.device.type == device and here.device.type == there.cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match="two devices"):
            meet(there, here)
        assert (there + here.to(device))[torch.tensor([1])].tolist() == [2.0]


@pytest.mark.parametrize("kind", [Streams, GraphStreams])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.5},
        {"top_p": 1e-4},
        {"min_p": 0.05},
        {"typical_p": 0.8},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "banned_characters": "山，夜"},
    ],
    ids=str,
)
def test_the_same_is_written_on_another_device(writer, kind, settings, monkeypatch):
    def write(device):
        moved = copy.copy(writer)
        vars(moved).pop("_never_first", None)
        moved.decoder = Decoder(writer.model.state_dict(), writer.model.config.to_dict(), device, "float32")
        monkeypatch.setattr(moved.decoder, "streams", lambda batch: kind(moved.decoder, batch))
        drafts = moved.generate([PROMPT, "😀雪"], num_return_sequences=2, seed=3, max_new_tokens=70, **settings)
        return [*drafts, *moved.resample(drafts[0], 5, insert="獨自", seed=1)]

    here = write("cpu")  # by the same products: others round differently, and a tie may fall to the other side
    with other_device() as device:
        there = write(device)
    for one, other in zip(here, there, strict=True):
        assert_same(one, other)
