"""Where the embeddings of a new model begin: characters in like company begin alike.

A character model of a few million parameters spends the first part of its training on finding out which of thousands of
characters go together, and rare ones it meets too seldom to find out at all. Counting does it at once: the mutual
information of neighbouring characters, factorised into as many numbers as the embedding has (Levy & Goldberg 2014,
"Neural Word Embedding as Implicit Matrix Factorization"; the factors by the random projections of Halko et al. 2011).

The loss begins high, at 15 to 27 nats, for a character is likest itself and the output layer shares the embedding;
after a dozen steps it is below that of a random beginning, and stays there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REACH = 2  # characters before and after that count as neighbours
SMOOTHING = 0.75  # of the neighbours' frequencies (Levy, Goldberg & Dagan 2015, section 3.2)
SPREAD = 0.1  # standard deviation of the numbers: what trained embeddings come to around their mean


def begin_with_neighbours(model: PreTrainedModel, tokens: np.ndarray) -> None:
    """Set `model`'s embeddings to what the neighbours of each character in `tokens` (T,) say of it.

    Tokens that never occur keep the weights they have. The same tokens and torch seed give the same embeddings.
    """
    embedding = model.get_input_embeddings().weight  # (V, C), a GPT-2 shares it with its output layer
    found = neighbour_embeddings(tokens, *embedding.shape)
    occurs = (found != 0).any(dim=1, keepdim=True)
    with torch.no_grad():
        embedding.copy_(torch.where(occurs, found, embedding))


def neighbour_embeddings(tokens: np.ndarray, vocab_size: int, width: int) -> torch.Tensor:
    """(V, width) float32 with standard deviation `SPREAD`; zero for a token that never occurs.

    Tokens whose neighbours are the same lie in the same direction. Seeded by torch's global generator.
    """
    matrix = _mutual_information(tokens, vocab_size)  # (V, 2 · REACH · V)
    rank = min(width, vocab_size)
    left, strength = _leading_factors(matrix, rank)
    rows = left * strength.sqrt()
    occurs = torch.zeros(vocab_size, dtype=torch.bool)
    occurs[torch.from_numpy(np.unique(tokens).astype(np.int64))] = True
    rows = torch.where(occurs.unsqueeze(1), rows - rows[occurs].mean(dim=0), 0.0)
    # A random rotation, so that no coordinate carries more than another.
    rotation = torch.linalg.qr(torch.randn(width, width))[0][:rank]
    rows = rows @ rotation
    return rows * (SPREAD / rows[occurs].std().clamp_min(1e-9))


def _mutual_information(tokens: np.ndarray, vocab_size: int) -> torch.Tensor:
    """Positive pointwise mutual information of each token with those 1 … REACH before and after it, a sparse matrix."""
    rows, columns, values = [], [], []
    tokens = np.asarray(tokens).astype(np.int64)
    for distance in range(1, min(REACH, len(tokens) - 1) + 1):
        pairs, counts = np.unique(tokens[:-distance] * vocab_size + tokens[distance:], return_counts=True)
        before, after, count = (torch.from_numpy(a) for a in (pairs // vocab_size, pairs % vocab_size, counts))
        count = count.float()
        for side, (token, neighbour) in enumerate(((before, after), (after, before))):
            of_token = torch.zeros(vocab_size).index_add_(0, token, count)
            of_neighbour = torch.zeros(vocab_size).index_add_(0, neighbour, count).pow(SMOOTHING)
            expected = of_token[token] * of_neighbour[neighbour] / of_neighbour.sum()
            rows.append(token)
            columns.append(neighbour + (2 * (distance - 1) + side) * vocab_size)
            values.append((count / expected).log().clamp_min(0))
    places = torch.stack([torch.cat(rows), torch.cat(columns)]) if rows else torch.zeros(2, 0, dtype=torch.int64)
    numbers = torch.cat(values) if values else torch.zeros(0)
    shape = (vocab_size, 2 * REACH * vocab_size)
    return torch.sparse_coo_tensor(places, numbers, shape, check_invariants=True).coalesce()


def _leading_factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `rank` left singular vectors (V, rank) and values (rank,) of a sparse matrix, nearly.

    Randomised subspace iteration with a little more room than asked for (Halko et al. 2011, algorithm 4.4).
    """
    transposed = matrix.t()
    room = min(rank + 32, matrix.shape[0])
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], room))[0]
    for _ in range(3):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(transposed @ basis)[0])[0]
    small, values, _ = torch.linalg.svd((transposed @ basis).t(), full_matrices=False)
    return (basis @ small)[:, :rank], values[:rank]
