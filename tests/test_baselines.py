"""The LSTM: an honest opponent, measured and asked like GPT-2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jinyong_gpt2.baselines import continuations, new_lstm, open_model, train_lstm
from jinyong_gpt2.dataset import PreparedCorpus
from jinyong_gpt2.evaluation import bits_per_char, token_bits
from jinyong_gpt2.model import new_model, parameter_count
from jinyong_gpt2.tokenizer import build_tokenizer, control_id, encode

TEXT = "風吹草動，他便停下來聽；雨打芭蕉，他便坐下來等。" * 6


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([TEXT], ["甲"], min_count=1)


@pytest.fixture(scope="module")
def lstm(tokenizer):
    torch.manual_seed(0)
    model = new_lstm(tokenizer, parameters=200_000, context_length=32).eval()
    model.lm_head.weight.data.mul_(20)  # so that context matters
    return model


def test_parameters_are_as_many_as_asked_for(tokenizer):
    for wanted in (200_000, 1_000_000):
        assert parameter_count(new_lstm(tokenizer, wanted)) == pytest.approx(wanted, rel=0.1)
    articles = new_lstm(tokenizer).config
    assert (articles.n_embd, articles.n_units, articles.n_layer) == (512, 1024, 1)
    with pytest.raises(ValueError, match="too few"):
        new_lstm(tokenizer, parameters=100)


def test_sees_only_what_came_before(tokenizer, lstm):
    ids = torch.tensor([encode(tokenizer, TEXT[:20])])
    changed = ids.clone()
    changed[0, 12] = 300
    one, other = lstm(ids).logits, lstm(changed).logits
    assert torch.equal(one[:, :12], other[:, :12])
    assert not torch.allclose(one[:, 12:], other[:, 12:])


def test_state_carried_on_equals_reading_at_once(tokenizer, lstm):
    ids = torch.tensor([encode(tokenizer, TEXT[:20])])
    first = lstm(ids[:, :7], use_cache=True)
    second = lstm(ids[:, 7:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, lstm(ids).logits[:, 7:])
    torch.testing.assert_close(lstm(ids, logits_to_keep=3).logits, lstm(ids).logits[:, -3:])


def test_same_measure_as_gpt2(tokenizer, lstm):
    ids = np.array(encode(tokenizer, TEXT[:25]))
    (bits,) = token_bits(lstm, [(control_id(tokenizer), ids)])
    logits = lstm(torch.tensor([[control_id(tokenizer), *ids[:-1]]])).logits[0].log_softmax(-1)
    expected = -logits[range(25), ids].detach().numpy() / np.log(2)
    np.testing.assert_allclose(bits, expected, rtol=1e-4)


def test_saved_and_opened_it_is_the_same(tokenizer, lstm, tmp_path):
    lstm.save_pretrained(tmp_path / "lstm")
    assert bits_per_char(open_model(tmp_path / "lstm"), tokenizer, TEXT) == bits_per_char(lstm, tokenizer, TEXT)
    gpt2 = new_model("testing", tokenizer).eval()
    gpt2.save_pretrained(tmp_path / "gpt2")
    assert bits_per_char(open_model(tmp_path / "gpt2"), tokenizer, TEXT) == bits_per_char(gpt2, tokenizer, TEXT)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        open_model(tmp_path)


def test_training_learns_the_windows_gpt2_would_see(tokenizer, tmp_path):
    ids = np.array(encode(tokenizer, TEXT), np.uint16)
    chapters = [{"title": "一", "split": "train", "start": 0, "stop": len(ids)}]
    prepared = PreparedCorpus(tmp_path, tokenizer, ids, ids[:0], {"novels": [{"title": "甲", "chapters": chapters}]})
    torch.manual_seed(0)
    model = new_lstm(tokenizer, parameters=300_000, context_length=32)
    losses = [metrics["loss"] for metrics in train_lstm(model, prepared, 150, 4, learning_rate=1e-2)]
    assert losses[0] == pytest.approx(np.log(len(tokenizer)), rel=0.05)
    assert losses[-1] < losses[0] / 2
    assert not model.training


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_continuations_do_not_depend_on_their_neighbours(tokenizer, lstm, kind):
    model = lstm if kind == "lstm" else new_model("testing", tokenizer).eval()
    contexts = [(control_id(tokenizer), encode(tokenizer, text)) for text in (TEXT[:9], TEXT[4:9], TEXT[3:12])]
    together = continuations(model, tokenizer, contexts, max_new_tokens=12, seed=3)
    assert together == continuations(model, tokenizer, contexts, max_new_tokens=12, seed=3)
    assert together[0] == continuations(model, tokenizer, contexts[:1], max_new_tokens=12, seed=3)[0]
    assert all("<|" not in text and text for text in together)
    with pytest.raises(ValueError, match="no room"):
        continuations(model, tokenizer, contexts, max_new_tokens=1000)


def test_greedy_limit_agrees_with_generate(tokenizer):
    torch.manual_seed(1)
    model = new_model("testing", tokenizer).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    ids = [control_id(tokenizer), *encode(tokenizer, TEXT[:9])]
    inputs = torch.tensor([ids])
    mask = torch.ones_like(inputs)  # the control token is the padding token too: generate would not look at it
    output = model.generate(inputs, attention_mask=mask, max_new_tokens=10, do_sample=False, eos_token_id=None)
    expected = output[0, len(ids) :]
    written = continuations(model, tokenizer, [(ids[0], ids[1:])], max_new_tokens=10, nucleus=1e-9)
    assert written == [tokenizer.decode(expected)]
