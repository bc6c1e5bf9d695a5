"""Attention in blocks is the attention of everybody else."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, masking_utils

from jinyong_gpt2.blockwise import BLOCK, attend_causally, attend_in_blocks, causal_attention
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5])
def test_values_and_gradients_are_those_of_plain_attention(length):
    torch.manual_seed(length)
    inputs = [torch.randn(3, length, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    aim = torch.randn(3, length, 5, dtype=torch.float64)
    ours = causal_attention(*inputs, scaling=5**-0.5)
    theirs = scaled_dot_product_attention(*inputs, is_causal=True)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad((ours * aim).sum(), inputs), torch.autograd.grad((theirs * aim).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_no_place_sees_what_comes_later():
    query, key, value = torch.randn(3, 2, 2 * BLOCK, 4).unbind()
    before = causal_attention(query, key, value, scaling=0.5)
    place = BLOCK + 7
    for tensor in (query, key, value):
        tensor[:, place:] = 100.0
    after = causal_attention(query, key, value, scaling=0.5)
    torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=0)


def test_dropout_drops_that_share_of_the_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    ones = torch.ones(64, 2 * BLOCK, 1)
    kept = causal_attention(ones, ones, ones, scaling=1.0, dropout=0.25)
    assert kept[:, 0].unique().tolist() == [0.0, pytest.approx(4 / 3)]  # the first place has one weight only
    assert kept.mean() == pytest.approx(1, abs=0.02)


def test_a_model_in_bf16_uses_it_and_keeps_nothing_of_it(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(
        "jinyong_gpt2.blockwise.causal_attention", lambda *args: used.append(1) or causal_attention(*args)
    )
    tokenizer = build_tokenizer([])
    model = new_model("testing", tokenizer).eval()
    ids = torch.randint(256, 300, (2, 40))
    plain = model(ids).logits
    attend_in_blocks(model)
    torch.testing.assert_close(model(ids).logits, plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(ids).logits
    assert len(used) == model.config.n_layer
    torch.testing.assert_close(rounded.float(), plain, rtol=0, atol=0.02)
    one_by_one = model.generate(ids[:1, :20], max_new_tokens=10, do_sample=False)
    assert one_by_one.shape == (1, 30)  # with a cache a query has more keys than itself
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_padded_text_is_read_as_before():
    model = new_model("testing", build_tokenizer([])).eval()
    ids, seen = torch.randint(256, 300, (2, 12)), torch.ones(2, 12, dtype=torch.long)
    seen[0, :5] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(ids, attention_mask=seen).logits
        attend_in_blocks(model)
        torch.testing.assert_close(model(ids, attention_mask=seen).logits, plain)


def test_told_that_it_is_causal_a_model_makes_no_mask_and_looks_for_no_padding(tmp_path, monkeypatch):
    """On a GPU the one waits for it, and the other keeps flash attention away."""
    model = new_model("testing", build_tokenizer([])).eval()
    ids = torch.randint(256, 300, (2, 40))
    plain = model(ids, use_cache=False).logits
    attend_causally(model)
    asked = []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda *_: asked.append("packed"))
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: asked.append(options) or scaled_dot_product_attention(*args, **options),
    )
    torch.testing.assert_close(model(ids, use_cache=False).logits, plain)
    assert [(call["attn_mask"], call["is_causal"]) for call in asked] == [(None, True)] * model.config.n_layer
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
