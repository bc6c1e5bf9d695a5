"""What only a GPU can show: graphs, half precision, loss scaling. Skipped where there is none."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_attention import TEXT, eager_attentions
from test_decoding import decode, expected
from test_training import config, losses
from test_writer import PROMPT, decided_model, model_greedy

from jinyong_gpt2.attention import read_attention
from jinyong_gpt2.decoding import Decoder, GraphStreams
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.training import train
from jinyong_gpt2.writer import Writer

DEVICE = "cuda"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([PROMPT, TEXT], titles=["天龍八部"], min_count=1)


@pytest.fixture(scope="module")
def model(tokenizer):
    """On the CPU, in float32: the oracle."""
    return decided_model(tokenizer)


@pytest.fixture(scope="module")
def writer(model, tokenizer):
    return Writer(copy.deepcopy(model).to(DEVICE), tokenizer, dtype="float32")


def test_every_replayed_step_gives_the_models_logits(model):
    decoder = Decoder(model.state_dict(), model.config.to_dict(), DEVICE, "float32")
    streams = decoder.streams(3)
    assert isinstance(streams, GraphStreams)
    for ids, logits in decode(streams):
        torch.testing.assert_close(logits.cpu(), expected(model, ids), rtol=1e-3, atol=1e-3)
    decoder.release(streams)
    assert decoder.streams(3) is streams  # with its graphs


def test_greedy_is_what_generate_writes(writer):
    passage = writer.generate(PROMPT, temperature=0, max_new_tokens=40)[0]
    assert passage.token_ids == model_greedy(writer, PROMPT, 40)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_writes_with_nearly_the_same_probabilities(model, tokenizer, writer, dtype):
    half = Writer(copy.deepcopy(model).to(DEVICE), tokenizer, dtype=dtype)
    passage = half.generate(PROMPT, seed=3, max_new_tokens=30)[0]
    assert passage.text == half.generate(PROMPT, seed=3, max_new_tokens=30)[0].text
    exact = writer.resample(half.generate(PROMPT, max_new_tokens=0)[0], 0, insert=passage.continuation)[0]
    assert passage.logprobs == pytest.approx(exact.logprobs[: len(passage.logprobs)], abs=0.5)


def test_more_than_the_context_is_written(writer):
    assert len(writer.generate(PROMPT, seed=1, max_new_tokens=200)[0].token_ids) == 200


def test_attention_of_a_model_in_bf16(model, tokenizer):
    half = copy.deepcopy(model).to(DEVICE, torch.bfloat16).train()
    attention = read_attention(half, tokenizer, TEXT)
    weights = eager_attentions(model, attention.token_ids)
    assert attention.weights.dtype == attention.queries.dtype == torch.float32
    assert attention.weights.device.type == attention.keys.device.type == "cpu"
    assert (attention.weights - weights).abs().mean() < 0.01
    assert attention.weights.triu(1).abs().max() == 0
    assert half.training and half.device.type == DEVICE and half.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["bf16", "fp16", "no"])
def test_training_learns_and_resumes(prepared, tmp_path, precision):
    settings = {"device": DEVICE, "mixed_precision": precision, "dropout": 0.0, "compile": False}
    whole = list(train(config(prepared, tmp_path / "whole", **settings)))
    assert whole[-1]["loss"] < whole[0]["loss"] - 1 and all(math.isfinite(row["loss"]) for row in whole)
    list(train(config(prepared, tmp_path / "parts", stop_after=7, **settings)))
    list(train(config(prepared, tmp_path / "parts", resume=True, **settings)))
    assert list(losses(tmp_path / "parts").values()) == pytest.approx([row["loss"] for row in whole], rel=0.02)


def test_a_compiled_step_learns_as_a_plain_one_does(prepared, tmp_path):
    runs = []
    for compiled in (False, True):
        settings = {"device": DEVICE, "dropout": 0.0, "compile": compiled, "max_steps": 10, "mixed_precision": "no"}
        runs.append([row["loss"] for row in train(config(prepared, tmp_path / str(compiled), **settings))])
    assert runs[1] == pytest.approx(runs[0], rel=0.01)
