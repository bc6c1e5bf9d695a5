"""The sizes are what they are called, and the model is a stock one."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from jinyong_gpt2.model import SIZES, flops_per_token, new_model, parameter_count
from jinyong_gpt2.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([], titles=["天龍八部"])


@pytest.mark.parametrize(
    ("size", "vocabulary", "millions"),
    [("jinyong", 13_317, 82), ("gpt2", 50_257, 124), ("gpt2-medium", 50_257, 355), ("gpt2-large", 50_257, 774),
     ("gpt2-xl", 50_257, 1558)],
)  # fmt: skip
def test_parameters_are_those_of_the_article_and_the_paper(size, vocabulary, millions):
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **SIZES[size]))
    assert round(parameter_count(model) / 1e6) == millions


def test_mini_has_the_layers_and_heads_of_the_article(tokenizer):
    config = new_model("mini", tokenizer).config
    assert (config.n_layer, config.n_head) == (SIZES["jinyong"]["n_layer"], SIZES["jinyong"]["n_head"]) == (10, 12)


def test_plain_hugging_face_opens_what_is_saved(tokenizer, tmp_path):
    model = new_model("testing", tokenizer).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([[0, 300, 301]])
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_context_length_makes_room_but_takes_none_away(tokenizer):
    assert new_model("testing", tokenizer, context_length=100).config.n_positions == 100
    assert new_model("testing", tokenizer, context_length=8).config.n_positions == SIZES["testing"]["n_positions"]


def test_unknown_names_are_refused_with_the_known_ones(tokenizer):
    with pytest.raises(ValueError, match="mini"):
        new_model("huge", tokenizer)


def test_flops_follow_the_count_by_hand():
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=13_317, **SIZES["jinyong"]))
    block = 12 * 768**2
    by_hand = 6 * (10 * block + 13_317 * 768) + 6 * 10 * 768 * 1024
    assert flops_per_token(model, 1024) == by_hand
