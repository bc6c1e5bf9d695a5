"""Kneser–Ney against the formula written out with dictionaries, and as a probability."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from jinyong_gpt2.ngrams import FALLBACK_DISCOUNTS, KneserNey, _discounts

START = -1


def slow_kneser_ney(texts, vocab_size, order):
    """P(token | history) straight from Chen & Goodman's equations, one dictionary look-up at a time."""
    grams = [Counter() for _ in range(order + 1)]  # by length
    for text in texts:
        padded = [START] * (order - 1) + list(text)
        for end in range(order - 1, len(padded)):
            for n in range(1, order + 1):
                grams[n][tuple(padded[end - n + 1 : end + 1])] += 1
    counts = [None] * (order + 1)
    counts[order] = grams[order]
    for n in range(1, order):
        counts[n] = Counter(gram[1:] for gram in grams[n + 1])
    discounts = [None] + [_discounts(np.array(list(counts[n].values()))) for n in range(1, order + 1)]
    followers = [defaultdict(list) for _ in range(order + 1)]
    for n in range(1, order + 1):
        for gram, count in counts[n].items():
            followers[n][gram[:-1]].append(count)

    def probability(token, history):
        p = 1 / vocab_size
        padded = [START] * (order - 1) + list(history)
        for n in range(1, order + 1):
            context = tuple(padded[len(padded) - n + 1 :])
            following = followers[n].get(context)
            if not following:
                continue
            take = [discounts[n][min(count, 3)] for count in following]
            count = counts[n].get((*context, token), 0)
            p = (count - discounts[n][min(count, 3)] + sum(take) * p) / sum(following)
        return p

    return probability


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    return [random.geometric(0.25, size) % 12 for size in (300, 1, 200, 0, 57)]  # skewed, so that all counts occur


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_agrees_with_the_formula_token_by_token(texts, order):
    model = KneserNey.train(texts, vocab_size=15, order=order)
    reference = slow_kneser_ney(texts, 15, order)
    unseen = np.random.default_rng(1).integers(0, 15, 60)
    for text in (texts[0][:80], unseen):
        expected = [reference(token, text[:i]) for i, token in enumerate(text)]
        np.testing.assert_allclose(2 ** model.log2_probs(text), expected, rtol=1e-5)


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("history", [[], [3], [3, 4, 14, 13, 2], [14] * 7])
def test_sums_to_one_after_any_history(texts, order, history):
    model = KneserNey.train(texts, vocab_size=15, order=order)
    distribution = model.distribution(history)
    assert distribution.min() > 0  # tokens 12 to 14 were never seen
    assert distribution.sum() == pytest.approx(1, abs=1e-6)
    assert distribution[5] == pytest.approx(model.probs(np.array([*history, 5]))[-1])


def test_no_ngram_reaches_across_two_texts():
    apart = KneserNey.train([np.array([1, 2]), np.array([3, 4])], vocab_size=6, order=2)
    together = KneserNey.train([np.array([1, 2, 3, 4])], vocab_size=6, order=2)
    assert apart.distribution([2])[3] < together.distribution([2])[3]


def test_largest_vocabulary_of_sixteen_bits_fits():
    model = KneserNey.train([np.array([65535, 0, 65535], np.uint16)], vocab_size=65536, order=2)
    assert model.distribution([65535]).sum() == pytest.approx(1, abs=1e-5)


def test_too_small_a_text_falls_back_to_fixed_discounts():
    assert _discounts(np.array([1, 1, 2])) is FALLBACK_DISCOUNTS


def test_no_text_or_an_id_outside_the_vocabulary_is_an_error():
    with pytest.raises(ValueError, match="no text"):
        KneserNey.train([], vocab_size=5)
    with pytest.raises(ValueError, match="between 0 and 4"):
        KneserNey.train([np.array([5])], vocab_size=5)
