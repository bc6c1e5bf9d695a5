"""`Writer`: load a checkpoint and write with it.

>>> writer = Writer.from_pretrained()                      # the bundled checkpoint
>>> for character in writer.stream("喬峯", seed=7):
...     print(character, end="", flush=True)
>>> drafts = writer.generate("喬峯", num_return_sequences=4, seed=7)   # side by side in a notebook
>>> better = writer.resample(drafts[2], start=60, num_return_sequences=3)  # the first 60 characters stay
>>> longer = writer.continue_(better[0], max_new_tokens=500)

What a model reads is [control token] + prompt, as in training: the token of `novel`, or the generic one. Candidate i of
seed s draws its own random numbers, so it can be had again alone: `generate(prompt, seed=s, candidate=i)`; and
`stream(prompt, seed=s)` is candidate 0. The same seed gives the same text on the same device and dtype.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from jinyong_gpt2.decoding import Decoder, Streams, read_checkpoint, resolve_dtype
from jinyong_gpt2.model import PRETRAINED, resolve_device
from jinyong_gpt2.passage import Passage, Passages
from jinyong_gpt2.sampling import (
    Settings,
    apply_repetition_penalty,
    candidate_generator,
    draw,
    filter_logits,
    repeated_endings,
    require_integer,
    stopped,
)
from jinyong_gpt2.tokenizer import GENERIC_TOKEN, SURROGATES, control_token

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

ALTERNATIVES = 5  # kept with each character
TAIL = 2048  # characters remembered for stops and repetitions, however long the text


class Character(NamedTuple):
    """One character as it was written: its tokens, their log-probabilities, and what else its first could have been."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    alternatives: list[tuple[str, float]]


class Vocabulary:
    """What writing needs of the tokenizer, read from its `tokenizer.json` in milliseconds."""

    def __init__(self, tokenizer_json: str) -> None:
        data = json.loads(tokenizer_json)
        added = {token["content"]: token["id"] for token in data["added_tokens"]}
        tokens: dict[str, int] = data["model"]["vocab"] | added
        self.controls = added
        self.ids = {token: i for token, i in tokens.items() if len(token) == 1}
        self.bytes = {tokens.get(f"<0x{byte:02X}>", -1): byte for byte in range(256)}
        if len(self.bytes) < 256 or GENERIC_TOKEN not in added:
            raise ValueError("this checkpoint's tokenizer is no character tokenizer with byte fallback")
        self.byte_ids = {byte: i for i, byte in self.bytes.items()}
        self.names = [""] * (max(tokens.values()) + 1)  # id -> token
        for token, i in tokens.items():
            self.names[i] = token
        leading = [byte for byte in _leading_bytes() if chr(byte) not in self.ids or byte > 0x7F]
        starts = set(self.ids.values()) | {self.byte_ids[byte] for byte in leading}
        self.never_first = torch.tensor([i for i in range(len(self.names)) if i not in starts])

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; a character without a token becomes the tokens of its UTF-8 bytes."""
        ids: list[int] = []
        for character in text:
            if (known := self.ids.get(character)) is not None:
                ids.append(known)
            else:
                ids += [self.byte_ids[byte] for byte in character.encode("utf-8")]
        return ids

    def split(self, ids: Sequence[int]) -> list[tuple[str, int]]:
        """The whole characters that `ids` spell, each with the number of its tokens."""
        characters, pending = [], b""
        for i in ids:
            if i in self.bytes:
                pending += bytes([self.bytes[i]])
                if len(pending) == _utf8_length(pending[0]):
                    characters.append((pending.decode("utf-8", "replace"), len(pending)))
                    pending = b""
            else:
                characters.append((self.names[i], 1))
        return characters

    def control(self, novel: str | None) -> int:
        """The id that goes first in a text of `novel`. Raises ValueError with the known titles for another."""
        if novel is None:
            return self.controls[GENERIC_TOKEN]
        if control_token(novel) not in self.controls:
            known = "、".join(token[2:-2] for token in self.controls if token != GENERIC_TOKEN) or "none"
            raise ValueError(f"this checkpoint has no control token for the novel {novel!r}; it knows: {known}")
        return self.controls[control_token(novel)]


@dataclass
class _Draft:
    """One text while it is being written; its memory does not grow with its length."""

    control: int
    window: list[int]  # the tokens the model sees, the control token first
    tail: str  # the end of prompt and continuation
    generator: torch.Generator
    tokens: int = 0  # sampled so far
    written: int = 0  # characters of `tail` that are new
    pending: bytes = b""  # of a character that is not whole yet
    pending_ids: list[int] = field(default_factory=list)
    pending_logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[str, float]] = field(default_factory=list)


class Writer:
    """Writes with one checkpoint. `model` and `tokenizer` are plain Hugging Face objects.

    `dtype` is "int8" on a CPU and "bfloat16" on a GPU unless asked otherwise; "float32" computes exactly what
    `model.generate` computes.
    """

    def __init__(
        self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, dtype: str | torch.dtype = "auto"
    ) -> None:
        self._model, self._tokenizer, self._folder = model, tokenizer, None
        self.vocabulary = Vocabulary(tokenizer.backend_tokenizer.to_str())
        self.decoder = Decoder(model.state_dict(), model.config.to_dict(), model.device, dtype)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str] | None = None, device: str = "auto", dtype: str | torch.dtype = "auto"
    ) -> Writer:
        """Open a checkpoint, the bundled one where `folder` is None. transformers is imported only for `.model`.

        Raises FileNotFoundError where there is no checkpoint, ValueError for an unknown device or dtype.
        """
        resolved = resolve_device(device)
        resolve_dtype(dtype, resolved)
        folder = PRETRAINED if folder is None else Path(folder)
        for name in ("config.json", "tokenizer.json"):
            if not (folder / name).is_file():
                hint = "train one with scripts/train.py"
                if folder != PRETRAINED:
                    hint += ", or give no folder for the bundled one"
                raise FileNotFoundError(f"no checkpoint in {folder} ({name} is missing): {hint}")
        writer = cls.__new__(cls)
        writer._model, writer._tokenizer, writer._folder = None, None, folder
        writer.vocabulary = Vocabulary((folder / "tokenizer.json").read_text(encoding="utf-8"))
        writer.decoder = Decoder(*read_checkpoint(folder), resolved, dtype)
        return writer

    @property
    def model(self) -> GPT2LMHeadModel:
        """The checkpoint as a `GPT2LMHeadModel` in float32, opened when first asked for."""
        if self._model is None:
            from transformers import GPT2LMHeadModel

            self._model = GPT2LMHeadModel.from_pretrained(self._folder).to(self.decoder.device).eval()
        return self._model

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The checkpoint's tokenizer, opened when first asked for."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
        return self._tokenizer

    # ------------------------------------------------------------ what a user calls

    def stream(
        self,
        prompt: str = "",
        *,
        novel: str | None = None,
        seed: int | None = None,
        candidate: int = 0,
        **settings: Any,
    ) -> Iterator[str]:
        """Yield the continuation one character at a time, without limit and in constant memory.

        `settings` are those of `Settings`. Raises ValueError at once where one is outside its range.
        """
        characters = self.write(prompt, novel=novel, seed=seed, candidate=candidate, details=False, **settings)
        return (character.text for _, character in characters)

    def write(
        self,
        prompt: str = "",
        *,
        novel: str | None = None,
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int = 0,
        details: bool = True,
        **settings: Any,
    ) -> Iterator[tuple[int, Character]]:
        """Yield `(i, character)` as candidates grow side by side.

        Without `details` a character comes with its tokens only, a little faster. Raises as `stream`.
        """
        chosen = Settings(**settings)
        numbers = _candidates(candidate, num_return_sequences)
        drafts = self._drafts([(_text(prompt), [])], novel, _seed(seed), numbers)
        return self._write(drafts, chosen, details)

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        novel: str | None = None,
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int = 0,
        batch_size: int = 64,
        **settings: Any,
    ) -> Passages:
        """`num_return_sequences` candidates for each prompt, decoded side by side from one prefill.

        They are numbered from `candidate`, so `generate(prompt, seed=s, candidate=i)` is candidate i of seed s alone.
        Without a seed one is drawn, and kept in `Passage.seed`. Several prompts may differ in length; the passages
        come in their order. At most `batch_size` texts share the device at a time. Raises as `stream`.
        """
        chosen, seed = Settings(**settings), _seed(seed)
        prompts = [_text(prompt)] if isinstance(prompt, str) else [_text(one) for one in prompt]
        numbers = _candidates(candidate, num_return_sequences)
        starts = [Passage(one, "", seed=seed, settings=chosen.to_dict(), novel=novel) for one in prompts]
        return self._extend(starts, numbers, chosen, chosen, batch_size)

    def resample(
        self,
        passage: Passage,
        start: int,
        *,
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int = 0,
        batch_size: int = 64,
        **settings: Any,
    ) -> Passages:
        """Other endings of a passage: all before character `start` of its continuation stays, the rest is written anew.

        Settings are the passage's own where not given; `max_new_tokens` counts what is new and by default gives the
        same length. Raises ValueError where `start` is outside the continuation.
        """
        if require_integer("start", start, 0) > len(passage.continuation):
            raise ValueError(f"start must be in [0, {len(passage.continuation)}], got {start}")
        kept = self._cut(passage, start)
        original = Settings(**passage.settings)
        rest = max(original.max_new_tokens - len(kept.token_ids), len(passage.token_ids) - len(kept.token_ids))
        chosen = Settings(**{**passage.settings, "max_new_tokens": rest or original.max_new_tokens, **settings})
        kept.seed = _seed(seed)
        recorded = Settings(**{**passage.settings, **settings})
        return self._extend([kept], _candidates(candidate, num_return_sequences), chosen, recorded, batch_size)

    def continue_(self, passage: Passage, *, seed: int | None = None, candidate: int = 0, **settings: Any) -> Passage:
        """The passage, longer by `max_new_tokens`. Settings are the passage's own where not given.

        For several ways on, `resample(passage, start=len(passage.continuation), num_return_sequences=n)`.
        """
        kept = self._cut(passage, len(passage.continuation))
        kept.seed = _seed(seed)
        chosen = Settings(**{**passage.settings, **settings})
        return self._extend([kept], _candidates(candidate, 1), chosen, chosen, batch_size=1)[0]

    # ------------------------------------------------------------ from texts to passages

    def _cut(self, passage: Passage, start: int) -> Passage:
        """The passage up to character `start` of its continuation, with what is known of each token."""
        characters = self.vocabulary.split(passage.token_ids)
        if "".join(text for text, _ in characters) != passage.continuation:
            # Written by hand or with another vocabulary: the text stays, what is known of its tokens does not apply.
            text = passage.continuation[:start]
            return Passage(passage.prompt, text, self.vocabulary.encode(text), novel=passage.novel, kept=start)
        tokens = sum(count for _, count in characters[:start])
        return Passage(
            passage.prompt,
            passage.continuation[:start],
            passage.token_ids[:tokens],
            logprobs=passage.logprobs[:tokens],
            alternatives=passage.alternatives[:start],
            probabilities=passage.probabilities[:start],
            novel=passage.novel,
            kept=start,
        )

    def _extend(
        self, starts: list[Passage], numbers: range, chosen: Settings, recorded: Settings, batch_size: int
    ) -> Passages:
        """Each of `starts` continued once for each candidate number."""
        require_integer("batch_size", batch_size, 1)
        passages = Passages()
        drafts: list[_Draft] = []
        for start in starts:
            kept = [(start.prompt + start.continuation, self.vocabulary.encode(start.prompt) + start.token_ids)]
            drafts += self._drafts(kept, start.novel, start.seed, numbers)
            for number in numbers:
                copy = Passage.from_dict(start.to_dict())
                copy.candidate, copy.settings = number, recorded.to_dict()
                passages.append(copy)
        pieces: list[list[str]] = [[] for _ in passages]
        from tqdm import tqdm

        with tqdm(total=len(drafts) * chosen.max_new_tokens, unit="token", delay=2, leave=False, disable=None) as bar:
            for first in range(0, len(drafts), batch_size):
                for i, character in self._write(drafts[first : first + batch_size], chosen, details=True):
                    passage = passages[first + i]
                    pieces[first + i].append(character.text)
                    passage.token_ids += character.token_ids
                    passage.logprobs += character.logprobs
                    passage.alternatives.append(character.alternatives)
                    passage.probabilities.append(math.exp(sum(character.logprobs)))
                    bar.update(len(character.token_ids))
        for passage, written in zip(passages, pieces, strict=True):
            passage.continuation += "".join(written)
        return passages

    def _drafts(
        self, texts: Sequence[tuple[str, list[int]]], novel: str | None, seed: int, numbers: range
    ) -> list[_Draft]:
        control = self.vocabulary.control(novel)
        drafts = []
        for text, ids in texts:
            window = self._window(control, ids or self.vocabulary.encode(text))
            drafts += [_Draft(control, window[:], text[-TAIL:], candidate_generator(seed, n)) for n in numbers]
        return drafts

    # ------------------------------------------------------------ decoding

    def _window(self, control: int, ids: list[int]) -> list[int]:
        """The control token and as much of the end of `ids` as leaves room to write."""
        context = self.decoder.context_length
        if len(ids) < context:
            return [control, *ids]
        tail = ids[-(context - max(context // 4, 1) - 1) :]
        whole = next((n for n, i in enumerate(tail) if not 0x80 <= self.vocabulary.bytes.get(i, 0) <= 0xBF), 0)
        return [control, *tail[whole:]]

    def _write(self, drafts: list[_Draft], settings: Settings, details: bool) -> Iterator[tuple[int, Character]]:
        if settings.max_new_tokens == 0:
            return
        streams = self.decoder.streams(len(drafts))
        try:
            logits = streams.prefill([draft.window for draft in drafts])  # (B, V)
            active = list(enumerate(drafts))
            while True:
                ids, logprobs, alternatives = self._choose([draft for _, draft in active], logits, settings, details)
                going = []
                for row, (i, draft) in enumerate(active):
                    character = self._take(draft, ids[row], logprobs[row], alternatives[row])
                    if character is not None:
                        yield i, character
                    if not self._done(draft, settings, whole=character is not None):
                        going.append(row)
                if not going:
                    return
                if len(going) < len(active):
                    streams.keep(going)
                    active, ids = [active[row] for row in going], [ids[row] for row in going]
                self._make_room(streams, [draft for _, draft in active], ids)
                logits = streams.step(ids)
        finally:
            self.decoder.release(streams)

    def _make_room(self, streams: Streams, drafts: list[_Draft], ids: list[int]) -> None:
        """Add a token to each window; one that is full slides: its last three quarters are read anew.

        GPT-2's positions are absolute, so the cache cannot slide with it; the quarter makes that rare.
        """
        for row, (draft, token) in enumerate(zip(drafts, ids, strict=True)):
            if len(draft.window) == self.decoder.context_length:
                draft.window = self._window(draft.control, [*draft.window[1:], token])[:-1]
                streams.prefill_one(row, draft.window)
            draft.window.append(token)

    def _done(self, draft: _Draft, settings: Settings, whole: bool) -> bool:
        if draft.tokens >= settings.max_new_tokens:
            return True
        heeded = whole and draft.tokens >= settings.min_new_tokens
        return heeded and stopped(draft.tail, draft.tail[-draft.written :], settings)

    def _choose(
        self, drafts: list[_Draft], logits: torch.Tensor, settings: Settings, details: bool
    ) -> tuple[list[int], list[float], list[list[tuple[str, float]]]]:
        """The next token of each draft, its log-probability, and the most probable ones with their probabilities."""
        allowed = self._allow(drafts, logits, settings)
        if settings.temperature == 0:
            ids = allowed.argmax(-1).tolist()
        else:
            ids = draw(filter_logits(allowed, settings), [draft.generator for draft in drafts])
        if not details:
            return ids, [math.nan] * len(ids), [[]] * len(ids)
        logprobs = logits.log_softmax(-1)  # (B, V)
        best, tokens = logprobs.topk(min(ALTERNATIVES, logprobs.shape[-1]), dim=-1)
        names = self.vocabulary.names
        alternatives = [
            [(names[i], math.exp(value)) for i, value in zip(row_ids, row, strict=True)]
            for row_ids, row in zip(tokens.tolist(), best.tolist(), strict=True)
        ]
        chosen = logprobs.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1).tolist()
        return ids, chosen, alternatives

    def _allow(self, drafts: list[_Draft], logits: torch.Tensor, settings: Settings) -> torch.Tensor:
        """Logits in which only what can come next is left: whole, permitted characters, and never a control token."""
        vocabulary = self.vocabulary
        window = settings.repetition_window
        if settings.repetition_penalty != 1:
            recent = [draft.window[1:][-window:] for draft in drafts]
            logits = apply_repetition_penalty(logits, recent, settings.repetition_penalty)
        allowed = logits.index_fill(-1, vocabulary.never_first, -math.inf)
        for row, draft in enumerate(drafts):
            if not (draft.pending or settings.banned_characters or settings.no_repeat_ngram_size):
                continue
            repeated = repeated_endings(draft.tail[-window:], settings.no_repeat_ngram_size)
            for forbidden in ({*settings.banned_characters, *repeated}, set(settings.banned_characters)):
                if draft.pending:
                    following = _following_bytes(draft.pending)
                    good = [byte for byte in following if not _completes(draft.pending, byte, forbidden)]
                    tokens = torch.tensor([vocabulary.byte_ids[byte] for byte in good or following])
                    allowed[row] = -math.inf
                    allowed[row, tokens] = logits[row, tokens]
                    break
                tokens = torch.tensor([vocabulary.encode(c)[0] for c in forbidden if c in vocabulary.ids or c < "\x80"])
                candidate = allowed[row].index_fill(0, tokens.long(), -math.inf)
                if bool(candidate.isfinite().any()):
                    allowed[row] = candidate
                    break
        return allowed

    def _take(
        self, draft: _Draft, token: int, logprob: float, alternatives: list[tuple[str, float]]
    ) -> Character | None:
        """Add a token to a draft; the character that it completes, if it does."""
        draft.tokens += 1
        if not draft.pending_ids:
            draft.alternatives = alternatives
        draft.pending_ids.append(token)
        draft.pending_logprobs.append(logprob)
        if (byte := self.vocabulary.bytes.get(token)) is None:
            text = self.vocabulary.names[token]
        else:
            draft.pending += bytes([byte])
            if len(draft.pending) < _utf8_length(draft.pending[0]):
                return None
            text = draft.pending.decode("utf-8")
        character = Character(text, draft.pending_ids, draft.pending_logprobs, draft.alternatives)
        draft.pending, draft.pending_ids, draft.pending_logprobs = b"", [], []
        draft.tail += text
        draft.written += 1
        if len(draft.tail) > 2 * TAIL:
            draft.tail = draft.tail[-TAIL:]
            draft.written = min(draft.written, TAIL)
        return character


# ---------------------------------------------------------------- checks


def _text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be a string, got {type(prompt).__name__}")
    return SURROGATES.sub("\ufffd", prompt)


def _seed(seed: int | None) -> int:
    return secrets.randbelow(2**31) if seed is None else require_integer("seed", seed, 0)


def _candidates(first: int, count: int) -> range:
    first = require_integer("candidate", first, 0)
    return range(first, first + require_integer("num_return_sequences", count, 1))


# ---------------------------------------------------------------- UTF-8 (RFC 3629, section 4)


def _leading_bytes() -> list[int]:
    """The bytes a character can begin with; of the control characters only tab and newline."""
    return [0x09, 0x0A, *range(0x20, 0x7F), *range(0xC2, 0xF5)]


def _utf8_length(lead: int) -> int:
    """How many bytes the character that begins with `lead` has."""
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _following_bytes(pending: bytes) -> range:
    """The bytes that may follow the begun character `pending`."""
    if len(pending) == 1:
        low = {0xE0: 0xA0, 0xF0: 0x90}.get(pending[0], 0x80)
        high = {0xED: 0x9F, 0xF4: 0x8F}.get(pending[0], 0xBF)
        return range(low, high + 1)
    return range(0x80, 0xC0)


def _completes(pending: bytes, byte: int, characters: set[str]) -> bool:
    """Whether `byte` makes one of `characters` of the begun character `pending`."""
    whole = pending + bytes([byte])
    return len(whole) == _utf8_length(whole[0]) and whole.decode("utf-8") in characters
