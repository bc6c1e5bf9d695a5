"""Embeddings that begin with what a character's neighbours say of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jinyong_gpt2.embeddings import SPREAD, _leading_factors, begin_with_neighbours, neighbour_embeddings
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer


def interchangeable(length=6000, seed=0):
    """Tokens 0 and 1 stand in the same places by the toss of a coin; 2 … 9 run round."""
    random = np.random.default_rng(seed)
    tokens = np.arange(length) % 9 + 1
    return np.where((tokens == 1) & (random.random(length) < 0.5), 0, tokens)


def test_characters_with_the_same_neighbours_begin_alike():
    rows = torch.nn.functional.normalize(neighbour_embeddings(interchangeable(), 10, 16), dim=1)
    likeness = rows @ rows.T
    assert likeness[0, 1] > 0.99
    assert likeness[0, 2:].max() < 0.5


def test_the_numbers_have_the_stated_spread_and_come_again():
    tokens = interchangeable()
    torch.manual_seed(3)
    first = neighbour_embeddings(tokens, 12, 8)
    torch.manual_seed(3)
    assert torch.equal(first, neighbour_embeddings(tokens, 12, 8))
    assert first[:10].std() == pytest.approx(SPREAD, rel=1e-4)
    assert (first[10:] == 0).all()  # tokens 10 and 11 never occur


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_corpus_of_a_few_characters_is_no_error(length):
    assert torch.isfinite(neighbour_embeddings(np.arange(length), 300, 32)).all()


def test_a_token_that_never_occurs_keeps_its_random_weights():
    tokenizer = build_tokenizer(["甲乙丙丁"], min_count=1)
    model = new_model("testing", tokenizer)
    before = model.transformer.wte.weight.detach().clone()
    ids = np.array(tokenizer.convert_tokens_to_ids(list("甲乙丙甲丁乙丙") * 9), dtype=np.uint16)
    begin_with_neighbours(model, ids)
    after = model.transformer.wte.weight.detach()
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(set(ids.tolist()))
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()


def test_the_factors_are_those_of_the_full_decomposition():
    torch.manual_seed(0)
    dense = torch.randn(60, 20) @ torch.randn(20, 90)  # rank 20
    left, values = _leading_factors(dense.to_sparse_coo(), 20)
    oracle_left, oracle_values, _ = torch.linalg.svd(dense)
    torch.testing.assert_close(values, oracle_values[:20], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left @ left.T, oracle_left[:, :20] @ oracle_left[:, :20].T, rtol=0, atol=1e-4)
