"""The LSTM: an honest opponent, measured and asked like GPT-2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_training import config, losses

from jinyong_gpt2 import training
from jinyong_gpt2.baselines import continuations, new_lstm, open_model
from jinyong_gpt2.evaluation import bits_per_char, token_bits
from jinyong_gpt2.loss import LanguageModelLoss
from jinyong_gpt2.model import flops_per_token, new_model, parameter_count
from jinyong_gpt2.optimizers import build_optimizers
from jinyong_gpt2.tokenizer import build_tokenizer, control_id, encode
from jinyong_gpt2.training import train

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


def lstm_config(prepared, folder, **changes):
    return config(
        prepared, folder, **{"size": "lstm", "parameters": 300_000, "learning_rate": 0.02, "dropout": 0.0, **changes}
    )


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """An LSTM's uninterrupted run of 60 steps."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, list(train(lstm_config(prepared, folder, max_steps=60)))


def test_the_one_trainer_trains_it_and_its_checkpoint_opens(prepared, trained):
    folder, metrics = trained
    assert metrics[0]["loss"] == pytest.approx(np.log(len(prepared.tokenizer)), rel=0.05)
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 2
    model, text = open_model(folder / "best"), prepared.tokenizer.decode(prepared.heldout)
    assert parameter_count(model) == pytest.approx(300_000, rel=0.1)
    assert bits_per_char(model, prepared.tokenizer, text) < np.log2(len(prepared.tokenizer)) / 2


def test_it_sees_the_windows_gpt2_sees(prepared, tmp_path):
    runs = [training._Run(c) for c in (lstm_config(prepared, tmp_path / "a"), config(prepared, tmp_path / "b"))]
    for step in (0, 1, 30):
        (ours, *_), (theirs, *_) = (run._load(step)[0] for run in runs)
        assert torch.equal(ours, theirs)


def test_its_resumed_run_repeats_an_uninterrupted_one_to_the_bit(prepared, trained, tmp_path):
    list(train(lstm_config(prepared, tmp_path, max_steps=60, stop_after=7)))
    list(train(lstm_config(prepared, tmp_path, max_steps=60, resume=True)))
    assert losses(tmp_path) == losses(trained[0])


def test_muon_moves_no_recurrent_matrix(prepared, lstm, tokenizer, tmp_path):
    settings = lstm_config(prepared, tmp_path, optimizer="muon")
    optimizers = build_optimizers(LanguageModelLoss(lstm), settings)
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["AdamW"]
    held = {id(p) for group in optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in lstm.parameters()}
    gpt2 = build_optimizers(LanguageModelLoss(new_model("testing", tokenizer)), settings)
    assert [len(group["params"]) for group in gpt2[0].param_groups] == [2 * 4]  # two blocks of four matrices


def test_its_operations_are_those_of_its_products(lstm):
    units, size, vocabulary = lstm.config.n_units, lstm.config.n_embd, lstm.config.vocab_size
    multiplied = 4 * units * (size + units) + units * vocabulary
    assert flops_per_token(lstm, 32) == flops_per_token(lstm, 64) == 6 * multiplied


@pytest.mark.parametrize(
    ("change", "message"), [({"dropout": 0.1}, "no dropout"), ({"size": "mini"}, "shape of its own")]
)
def test_settings_that_say_nothing_to_it_are_refused(prepared, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        lstm_config(prepared, tmp_path, **change)


def test_a_gpt2_is_not_resumed_as_an_lstm(prepared, trained):
    with pytest.raises(ValueError, match="holds a run of size lstm, not testing"):
        next(train(config(prepared, trained[0], resume=True)))


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


def test_continuations_hold_no_control_token(tokenizer):
    torch.manual_seed(0)
    model = new_model("testing", tokenizer).eval()
    titles = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    assert len(titles) > len(tokenizer.all_special_ids)
    with torch.no_grad():
        model.transformer.wte.weight[titles] *= 0
        model.transformer.ln_f.bias += 1
        model.transformer.wte.weight[titles] += 1  # it would like nothing better
    for text in continuations(model, tokenizer, [(0, encode(tokenizer, TEXT[:5]))] * 3, max_new_tokens=20):
        assert "<|" not in text


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
