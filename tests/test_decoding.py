"""The decoding step against the model itself: stock `GPT2LMHeadModel` is the oracle."""

from __future__ import annotations

import json

import pytest
import torch

from jinyong_gpt2 import decoding
from jinyong_gpt2.decoding import Decoder, GraphStreams, Int8, read_checkpoint, resolve_dtype
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer

TEXTS = [[0, 300, 400, 500], [0, 301], [0, 302, 303]]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = new_model("testing", build_tokenizer(["甲乙丙"], min_count=1)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # away from the small initial weights, so that mistakes show
            parameter.mul_(3).add_(torch.randn_like(parameter) * 0.01)
    return made


@pytest.fixture(scope="module")
def decoder(model):
    return Decoder(model.state_dict(), model.config.to_dict(), dtype="float32")


def expected(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1]


def decode(streams, steps=12):
    """Logits of a prefill, some steps, a text fewer, more steps; and the texts they belong to."""
    texts = [ids[:] for ids in TEXTS]
    found = [(ids[:], row) for ids, row in zip(texts, streams.prefill(texts), strict=True)]
    for t in range(2 * steps):
        if t == steps:
            streams.keep([2, 0])
            texts = [texts[2], texts[0]]
        if t == steps + 3:
            streams.keep([1])
            texts = [texts[1]]
        tokens = [310 + 40 * i + t for i in range(len(texts))]
        for ids, token in zip(texts, tokens, strict=True):
            ids.append(token)
        found += [(ids[:], row) for ids, row in zip(texts, streams.step(tokens), strict=True)]
    return found


@pytest.mark.parametrize("kind", ["streams", "graph"])
def test_every_step_gives_the_models_logits(model, decoder, kind):
    """Texts of different lengths side by side, ending one after another; the step for CUDA graphs run without one."""
    streams = GraphStreams(decoder, 3) if kind == "graph" else decoder.streams(3)
    for ids, logits in decode(streams):
        torch.testing.assert_close(logits, expected(model, ids), rtol=1e-4, atol=1e-4)


def test_a_cache_that_has_to_grow_loses_nothing(model, decoder, monkeypatch):
    monkeypatch.setattr(decoding, "SHORTEST", 3)
    streams = decoder.streams(3)
    for ids, logits in decode(streams):
        torch.testing.assert_close(logits, expected(model, ids), rtol=1e-4, atol=1e-4)
    assert max(streams.lengths) < streams.capacity < decoder.context_length
    streams.prefill([[0, *range(300, 362)]])
    assert streams.capacity == decoder.context_length


def test_texts_of_one_length_give_the_models_logits(model, decoder):
    streams = decoder.streams(2)
    logits = streams.prefill([[0, 300], [0, 301]])
    for t in range(5):
        logits = streams.step([310 + t, 320 + t])
    for row, ids in enumerate(([0, 300, *range(310, 315)], [0, 301, *range(320, 325)])):
        torch.testing.assert_close(logits[row], expected(model, ids), rtol=1e-4, atol=1e-4)


def test_a_long_prefill_and_the_last_place_of_the_context(model, decoder):
    streams = decoder.streams(1)
    ids = [0, *range(300, 362)]
    torch.testing.assert_close(streams.prefill([ids])[0], expected(model, ids), rtol=1e-4, atol=1e-4)
    assert len(ids) == decoder.context_length - 1
    torch.testing.assert_close(streams.step([500])[0], expected(model, [*ids, 500]), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="context of 64 tokens is full"):
        streams.step([501])
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        streams.prefill([[]])


def test_a_row_started_anew_does_not_disturb_the_others(model, decoder):
    streams = decoder.streams(2)
    streams.prefill([[0, 300, 301], [0, 302, 303]])
    streams.prefill_one(0, [0, 400])
    logits = streams.step([401, 304])
    torch.testing.assert_close(logits[0], expected(model, [0, 400, 401]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[1], expected(model, [0, 302, 303, 304]), rtol=1e-4, atol=1e-4)


def test_int8_is_near_and_does_not_depend_on_company(model):
    decoder = Decoder(model.state_dict(), model.config.to_dict(), dtype="int8")
    assert all(layer.up.weight.dtype == torch.int8 for layer in decoder.layers)
    worst = max((logits - expected(model, ids)).abs().max() for ids, logits in decode(decoder.streams(3)))
    assert worst < 0.05 * expected(model, TEXTS[0]).abs().max()
    for others in (2, 39):  # few rows, and many
        alone, together = decoder.streams(1), decoder.streams(1 + others)
        alone.prefill([[0, 300]])
        together.prefill([[0, 300]] * (1 + others))
        one, all_of_them = alone.step([301]), together.step([301, *range(302, 302 + others)])
        torch.testing.assert_close(one[0], all_of_them[0], rtol=0, atol=1e-6)


def test_int8_unpacked_for_many_rows_is_the_same_product():
    torch.manual_seed(0)
    linear = Int8(torch.randn(64, 96), torch.randn(96))
    x = torch.randn(40, 64).bfloat16()
    torch.testing.assert_close(linear(x, many=True), linear(x), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("system", ["as it is", "without huge pages", "refuses them"])
def test_int8_weights_are_whole_wherever_they_lie(model, monkeypatch, system):
    """The last matrix of too small a place goes elsewhere, and a system without huge pages does as well."""
    if system == "without huge pages":
        monkeypatch.delattr(decoding.mmap, "MADV_HUGEPAGE", raising=False)
    if system == "refuses them":
        monkeypatch.setattr(decoding.mmap, "MADV_HUGEPAGE", -1, raising=False)
    place = decoding.huge_pages(100)
    torch.manual_seed(0)
    weights = [torch.randn(8, 6), torch.randn(6, 8), torch.randn(4, 5)]
    linears = [Int8(weight, None, place) for weight in weights]
    for weight, linear in zip(weights, linears, strict=True):
        torch.testing.assert_close(linear.weight, Int8(weight, None).weight)


def test_float32_weights_are_shared_not_copied(model, decoder):
    assert decoder.wte.data_ptr() == model.transformer.wte.weight.data_ptr()
    assert decoder.layers[1].down.weight.data_ptr() == model.transformer.h[1].mlp.c_proj.weight.data_ptr()


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_a_checkpoint_is_read_whole_or_in_shards(model, decoder, tmp_path, shard):
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").is_file() == (shard == "5GB")
    read = Decoder(*read_checkpoint(tmp_path), dtype="float32")
    torch.testing.assert_close(read.streams(1).prefill([TEXTS[0]]), decoder.streams(1).prefill([TEXTS[0]]))


def test_a_missing_shard_is_named(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    gone = sorted(tmp_path.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=gone.name):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_named(model, tmp_path, name):
    model.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        read_checkpoint(tmp_path)


def test_a_config_without_a_shape_is_refused(model):
    with pytest.raises(ValueError, match=r"config\.json has no n_head"):
        Decoder(model.state_dict(), {"model_type": "gpt2"})


@pytest.mark.parametrize(
    "change", [{"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}, {"model_type": "llama"}]
)
def test_another_architecture_is_refused_not_approximated(model, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Decoder(model.state_dict(), model.config.to_dict() | change)


def test_a_checkpoint_of_half_precision_is_read(model, tmp_path):
    import copy

    copy.deepcopy(model).half().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    for dtype in ("float32", "int8"):
        logits = Decoder(*read_checkpoint(tmp_path), dtype=dtype).streams(1).prefill([TEXTS[0]])[0]
        assert (logits - expected(model, TEXTS[0])).abs().max() < 0.3


def test_dtypes_by_name():
    assert resolve_dtype("auto", CPU) == "int8"
    assert resolve_dtype(torch.float32, CPU) == "float32"
    assert resolve_dtype("auto", torch.device("mps")) == "float32"
    for name, device in (("int4", "cpu"), ("bfloat16", "cpu"), ("int8", "mps")):
        with pytest.raises(ValueError, match="dtype"):
            resolve_dtype(name, torch.device(device))
