"""Filters as properties of distributions, settings that name themselves, stops."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jinyong_gpt2.sampling import (
    Settings,
    apply_repetition_penalty,
    apply_temperature,
    candidate_generator,
    draw,
    draw_nucleus,
    filter_logits,
    min_p,
    repeated_endings,
    sample,
    sentence_ended,
    stopped,
    top_k,
    top_p,
    typical_p,
)

LOGIT = st.floats(-20, 20, width=32)
ROWS = st.integers(2, 40).flatmap(
    lambda size: st.lists(st.lists(LOGIT, min_size=size, max_size=size), min_size=1, max_size=3)
)
SHARE = st.floats(0.01, 0.99)


def kept(logits):
    return logits.isfinite()


def check_filter(before, after):
    """What every filter promises: values untouched or out, the most probable in, nothing in below something out."""
    assert after.shape == before.shape
    inside = kept(after)
    assert torch.equal(after[inside], before[inside])
    assert bool(inside.gather(-1, before.argmax(-1, keepdim=True)).all())


def check_from_the_top(before, after):
    least = torch.where(kept(after), before, math.inf).amin(-1)
    most = torch.where(kept(after), -math.inf, before).amax(-1)
    assert bool((least > most).all())


@given(ROWS, st.integers(0, 50))
def test_top_k_keeps_k_and_ties(rows, k):
    logits = torch.tensor(rows)
    after = top_k(logits, k)
    check_filter(logits, after)
    if 0 < k < logits.shape[-1]:
        check_from_the_top(logits, after)
        for row, left in zip(logits, kept(after).sum(-1).tolist(), strict=True):
            last = row.sort(descending=True).values[k - 1]
            assert left == int((row >= last).sum())
    else:
        assert torch.equal(after, logits)


@given(ROWS, SHARE)
def test_top_p_keeps_the_fewest_that_hold_p(rows, p):
    logits = torch.tensor(rows)
    after = top_p(logits, p)
    check_filter(logits, after)
    probabilities = logits.softmax(-1)
    for row, inside in zip(probabilities, kept(after), strict=True):
        assert float(row[inside].sum()) >= p - 1e-4
        least = row[inside].min()
        assert float(row[row > least].sum()) < p + 1e-4  # without the last ones it would not be enough


def test_top_p_beyond_the_first_look_is_the_same_as_a_whole_sort():
    torch.manual_seed(0)
    logits = torch.randn(3, 5000) * torch.tensor([[0.1], [1.0], [6.0]])  # one row flat, one peaked
    after = top_p(logits, 0.9)
    for row, left in zip(logits, kept(after), strict=True):
        ordered, order = row.softmax(-1).sort(descending=True)
        count = int((ordered.cumsum(-1) - ordered < 0.9).sum())
        assert set(order[:count].tolist()) == set(left.nonzero().flatten().tolist())


@given(ROWS, SHARE)
def test_min_p_is_relative_to_the_most_probable(rows, p):
    logits = torch.tensor(rows)
    after = min_p(logits, p)
    check_filter(logits, after)
    relative = (logits - logits.amax(-1, keepdim=True)).double().exp()
    sure = (relative - p).abs() > 1e-5
    assert torch.equal(kept(after)[sure], (relative >= p)[sure])


@given(ROWS, SHARE)
def test_typical_p_keeps_the_nearest_to_the_entropy(rows, p):
    logits = torch.tensor(rows)
    after = typical_p(logits, p)
    assert bool(kept(after).any(-1).all())
    logprobs = logits.double().log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1, keepdim=True)
    distance = (-logprobs - entropy).abs()
    for row, inside, d in zip(logprobs.exp(), kept(after), distance, strict=True):
        assert float(row[inside].sum()) >= p - 1e-3
        if not bool(inside.all()):
            assert float(d[inside].max()) <= float(d[~inside].min()) + 1e-3


@given(ROWS, st.floats(0.1, 10))
def test_temperature_scales_differences(rows, temperature):
    logits = torch.tensor(rows)
    after = apply_temperature(logits, temperature)
    torch.testing.assert_close(after * temperature, logits, rtol=1e-4, atol=1e-4)


@given(ROWS, st.floats(1.01, 5), st.data())
def test_repetition_penalty_never_raises_a_negative_logit(rows, penalty, data):
    logits = torch.tensor(rows)
    ids = st.lists(st.integers(0, logits.shape[-1] - 1), max_size=8)
    recent = [data.draw(ids) for _ in rows]
    before = logits.clone()
    after = apply_repetition_penalty(logits, recent, penalty)
    assert torch.equal(logits, before)  # pure
    for row, seen in enumerate(recent):
        for i in range(logits.shape[-1]):
            if i in seen:
                assert after[row, i] <= logits[row, i]
                assert after[row, i] < logits[row, i] or logits[row, i] == 0 or abs(logits[row, i]) < 1e-30
            else:
                assert after[row, i] == logits[row, i]


@given(ROWS, st.floats(0, 3), st.integers(0, 10), SHARE, SHARE, SHARE)
def test_filters_together_leave_something_to_draw(rows, temperature, k, p, least, typical):
    logits = torch.tensor(rows)
    settings = Settings(temperature=temperature or 1, top_k=k, top_p=p, min_p=least, typical_p=typical)
    after = filter_logits(logits, settings)
    assert bool(kept(after).any(-1).all())
    for token, inside in zip(
        draw(after, [candidate_generator(1, i) for i in range(len(rows))]), kept(after), strict=True
    ):
        assert bool(inside[token])


@pytest.mark.parametrize(
    "setting",
    [{"temperature": 1e39}, {"temperature": 1e-300}, {"top_p": 1e-46}, {"typical_p": 1e-46}, {"min_p": 1e-300}],
)
def test_settings_at_the_edge_of_their_range_draw_something(setting):
    logits = torch.tensor([[3.0, 1.0, -math.inf, 2.0]] * 2)
    generators = [candidate_generator(0, i) for i in range(2)]
    assert set(sample(logits, Settings(**{"top_p": 1.0} | setting), generators)) <= {0, 1, 3}


@pytest.mark.parametrize("penalty", [1e-38, 1e38])
def test_a_repetition_penalty_beyond_float32_leaves_numbers(penalty):
    logits = apply_repetition_penalty(torch.tensor([[5.0, -5.0, 1.0]]), [[0, 1]], penalty)
    assert logits.isfinite().all() and logits.softmax(-1).isfinite().all()


def test_draws_follow_the_distribution():
    logits = torch.tensor([[1.0, 0.0, -math.inf, 2.0, -1.0]])
    generator = candidate_generator(5, 0)
    counts = torch.zeros(5)
    n = 20_000
    for token in (t for _ in range(n // 100) for t in draw(logits.expand(100, -1), [generator] * 100)):
        counts[token] += 1
    expected = logits[0].softmax(-1) * n
    inside = expected > 0
    assert counts[2] == 0
    chi_square = ((counts - expected)[inside] ** 2 / expected[inside]).sum()
    assert chi_square < 16.3  # 3 degrees of freedom, p = 0.001


@given(ROWS, SHARE)
def test_a_nucleus_draw_never_leaves_the_nucleus(rows, p):
    logits = torch.tensor(rows)
    inside = kept(top_p(logits, p + 1e-5))
    for seed in range(5):
        tokens = draw_nucleus(logits, p, [candidate_generator(seed, i) for i in range(len(rows))])
        assert all(bool(inside[row, token]) for row, token in enumerate(tokens))


@pytest.mark.parametrize("p", [0.02, 0.3, 0.8])
def test_nucleus_draws_follow_the_filtered_distribution(p):
    torch.manual_seed(3)
    logits = torch.randn(1, 12)
    expected = top_p(logits, p)[0].softmax(-1) * 20_000
    generators = [candidate_generator(5, i) for i in range(100)]
    drawn = [t for _ in range(200) for t in draw_nucleus(logits.expand(100, -1), p, generators)]
    counts = torch.tensor(drawn).bincount(minlength=12)
    inside = expected > 0
    assert int(counts[~inside].sum()) == 0
    chi_square = ((counts - expected)[inside] ** 2 / expected[inside]).sum()
    assert chi_square < 31.3  # at most 11 degrees of freedom, p = 0.001


@pytest.mark.parametrize("p", [1e-4, 0.3, 0.9, 0.999])
def test_the_way_of_a_gpu_leads_to_the_same_nucleus(p, monkeypatch):
    torch.manual_seed(1)
    logits = torch.randn(6, 900) * torch.tensor([0.1, 0.5, 1, 2, 4, 8])[:, None]  # flat rows need all, peaked ones few
    expected = top_p(logits, p)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    assert kept(top_p(logits, p)).tolist() == kept(expected).tolist()
    tokens = draw_nucleus(logits, p, [candidate_generator(3, i) for i in range(6)])
    assert all(kept(expected)[row, token] for row, token in enumerate(tokens))


def test_a_candidate_draws_the_same_alone_and_in_company():
    torch.manual_seed(0)
    logits = torch.randn(4, 1000)
    together = draw(logits, [candidate_generator(7, i) for i in range(4)])
    alone = [draw(logits[i : i + 1], [candidate_generator(7, i)])[0] for i in range(4)]
    assert together == alone
    assert len({candidate_generator(s, c).initial_seed() for s in range(30) for c in range(30)}) == 900


@given(st.text("甲乙丙", max_size=30), st.integers(1, 5))
def test_repeated_endings_are_exactly_the_repeats(text, size):
    grams = {text[i : i + size] for i in range(len(text) - size + 1)}
    found = repeated_endings(text, size)
    tail = text[len(text) - size + 1 :] if size > 1 else ""
    if len(text) >= size:
        assert found == {c for c in "甲乙丙" if tail + c in grams}


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("他走了。", True),
        ("他走了，", False),
        ("他道：「走罷。", False),
        ("他道：「走罷。」", True),
        ("他道：「他說『好。』", False),
        ("他道：「他說『好。』」", True),
        ("他想…", False),
        ("他想……", True),
        ("是誰？！", True),
        ("「走罷。\n他走了。", True),  # a mark left open in an earlier paragraph does not matter
        ("（見前。）", True),
        ("", False),
        ("」", False),
    ],
)
def test_a_sentence_ends_only_outside_quotation_marks(text, whole):
    assert sentence_ended(text) is whole


def test_a_stop_string_must_be_newly_written():
    settings = Settings(stop_strings="阿朱")
    assert stopped("喬峰阿朱", "阿朱", settings)
    assert not stopped("喬峰阿朱", "朱", settings)  # 阿 was in the prompt


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("top_p", 1.5, r"top_p must be in \(0, 1\], got 1.5"),
        ("top_p", 0, r"top_p must be in \(0, 1\]"),
        ("temperature", -1, r"temperature must be in \[0, inf\)"),
        ("temperature", math.nan, r"temperature must be in \[0, inf\)"),
        ("temperature", "hot", r"temperature must be in \[0, inf\)"),
        ("min_p", 2, r"min_p must be in \[0, 1\]"),
        ("typical_p", 0.0, r"typical_p must be in \(0, 1\]"),
        ("repetition_penalty", 0, r"repetition_penalty must be in \(0, inf\)"),
        ("top_k", -1, r"top_k must be an integer >= 0"),
        ("top_k", 2.5, r"top_k must be an integer >= 0"),
        ("max_new_tokens", -3, r"max_new_tokens must be an integer >= 0"),
        ("max_new_tokens", True, r"max_new_tokens must be an integer >= 0"),
        ("no_repeat_ngram_size", -1, r"no_repeat_ngram_size must be an integer >= 0"),
        ("repetition_window", 0, r"repetition_window must be an integer >= 1"),
        ("stop_strings", ["", "a"], "stop_strings must be"),
        ("stop_strings", 5, "stop_strings must be"),
        ("banned_characters", 5, "banned_characters must be"),
        ("stop_at_sentence", 1, "stop_at_sentence must be True or False"),
    ],
)
def test_a_bad_setting_is_refused_by_name_and_range(name, value, range_):
    with pytest.raises(ValueError, match=range_):
        Settings(**{name: value})


def test_settings_round_trip_as_json():
    settings = Settings(temperature=0, stop_strings="。", banned_characters=["甲", "乙"], top_k=5)
    assert Settings(**json.loads(json.dumps(settings.to_dict()))) == settings
