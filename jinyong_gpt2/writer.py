"""`Writer`: load a checkpoint and write with it.

>>> writer = Writer.from_pretrained()                      # the bundled checkpoint
>>> for character in writer.stream("喬峯", seed=7):
...     print(character, end="", flush=True)
>>> drafts = writer.generate("喬峯", num_return_sequences=4, seed=7)   # side by side in a notebook
>>> better = writer.resample(drafts[2], start=60, num_return_sequences=3)  # the first 60 characters stay
>>> longer = writer.continue_(better[0], max_new_tokens=500)

What a model reads is [control token] + prompt, as in training: the token of `novel`, or the generic one. Candidate i of
seed s draws its own random numbers, so it can be had again alone: `generate(prompt, seed=s, candidate=i)`; and
`stream(prompt, seed=s)` is candidate 0. The same seed gives the same text on the same device and dtype. (A GPU may
round another number of texts side by side in another way, and so write another text.)
"""

from __future__ import annotations

import functools
import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jinyong_gpt2.decoding import Decoder, Streams, read_checkpoint, resolve_dtype
from jinyong_gpt2.devices import resolve_device
from jinyong_gpt2.model import PRETRAINED, load_model
from jinyong_gpt2.passage import Character, Passage, Passages
from jinyong_gpt2.sampling import (
    REMEMBERED,
    Settings,
    apply_repetition_penalty,
    candidate_generator,
    repeated_endings,
    require_integer,
    sample,
    stopped,
)
from jinyong_gpt2.tokenizer import GENERIC_TOKEN, SURROGATES, control_token

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

ALTERNATIVES = 5  # kept with each character


class Vocabulary:
    """What writing needs of the tokenizer, read from its `tokenizer.json` in milliseconds."""

    def __init__(self, tokenizer_json: str) -> None:
        try:
            data = json.loads(tokenizer_json)
            added = {token["content"]: token["id"] for token in data["added_tokens"]}
            tokens: dict[str, int] = data["model"]["vocab"] | added
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"this checkpoint's tokenizer.json is damaged, take it anew: {error!r}") from None
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
        self.first = set(self.ids.values()) | {self.byte_ids[byte] for byte in leading}
        self.never_first = torch.tensor([i for i in range(len(self.names)) if i not in self.first])

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; a character without a token becomes the tokens of its UTF-8 bytes."""
        ids: list[int] = []
        for character in SURROGATES.sub("\ufffd", text):
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
        writer._model, writer._tokenizer, writer._folder = None, None, folder.resolve()
        writer.vocabulary = Vocabulary((folder / "tokenizer.json").read_text(encoding="utf-8"))
        writer.decoder = Decoder(*read_checkpoint(folder), resolved, dtype)
        return writer

    @property
    def model(self) -> GPT2LMHeadModel:
        """The checkpoint as a `GPT2LMHeadModel` in float32, opened when first asked for."""
        if self._model is None:
            self._model = load_model(self._folder).to(self.decoder.device).eval()
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
        """Yield the continuation one character at a time, however long, in constant memory.

        `settings` are those of `Settings`. Raises ValueError at once where one is outside its range.
        """
        chosen = Settings(**settings)
        text, _ = self.match(prompt)
        drafts = self._drafts(text, self.vocabulary.encode(text), novel, _seed(seed), _candidates(candidate, 1))
        return (character.text for _, character in self._write(drafts, chosen, details=False))

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        novel: str | None = None,
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int | Sequence[int] = 0,
        batch_size: int = 64,
        **settings: Any,
    ) -> Passages:
        """`num_return_sequences` candidates for each prompt, decoded side by side from one prefill.

        They are numbered from `candidate` (one number, or one for each prompt), so that
        `generate(prompt, seed=s, candidate=i)` is candidate i of seed s alone. Without a seed one is drawn, and kept in
        `Passage.seed`. Several prompts may differ in length; the passages come in their order. At most `batch_size`
        texts share the device at a time. Raises as `stream`.
        """
        return self.write(
            prompt,
            novel=novel,
            num_return_sequences=num_return_sequences,
            seed=seed,
            candidate=candidate,
            batch_size=batch_size,
            **settings,
        ).finish()

    def write(
        self,
        prompt: str | Sequence[str] = "",
        *,
        novel: str | None = None,
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int | Sequence[int] = 0,
        batch_size: int = 64,
        **settings: Any,
    ) -> Writing:
        """`generate` step by step: passages that grow while they are iterated over.

        >>> writing = writer.write("喬峯", num_return_sequences=4)
        >>> for i, character in writing:  # stop whenever you like
        ...     print(i, character.text)
        >>> writing.passages
        """
        chosen, seed = Settings(**settings), _seed(seed)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if isinstance(prompts, bytes) or not isinstance(prompts, Sequence):
            raise ValueError(f"prompt must be a string or a list of strings, got {type(prompt).__name__}")
        numbers = candidate if isinstance(candidate, Sequence) else [candidate] * len(prompts)
        if len(numbers) != len(prompts):
            raise ValueError(f"candidate must be one number or one for each prompt, got {len(numbers)}")
        starts, drafts = [], []
        for one, first in zip(prompts, numbers, strict=True):
            text, changes = self.match(one)
            start = Passage(text, "", seed=seed, settings=chosen.to_dict(), novel=novel, changes=changes)
            candidates = _candidates(first, num_return_sequences)
            starts += [_as_candidate(start, number) for number in candidates]
            drafts += self._drafts(text, self.vocabulary.encode(text), novel, seed, candidates)
        return Writing(self, starts, drafts, chosen, batch_size)

    def resample(
        self,
        passage: Passage,
        start: int,
        *,
        insert: str = "",
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int = 0,
        batch_size: int = 64,
        **settings: Any,
    ) -> Passages:
        """Other endings of a passage: all before character `start` of its continuation stays, the rest is written anew.

        `insert` stands at `start` before the new (one of the alternatives there, say). Settings are the passage's own
        where not given; `max_new_tokens` counts what is new, and by default gives the same length. Raises ValueError
        where `start` is outside the continuation.
        """
        return self.rewrite(
            passage,
            start,
            insert=insert,
            num_return_sequences=num_return_sequences,
            seed=seed,
            candidate=candidate,
            batch_size=batch_size,
            **settings,
        ).finish()

    def continue_(self, passage: Passage, *, seed: int | None = None, candidate: int = 0, **settings: Any) -> Passage:
        """The passage, longer by `max_new_tokens`. Settings are the passage's own where not given.

        For several ways on, `resample(passage, start=len(passage.continuation), num_return_sequences=n)`.
        """
        end = len(passage.continuation)
        settings = {"max_new_tokens": Settings(**passage.settings).max_new_tokens, **settings}
        return self.rewrite(passage, end, seed=seed, candidate=candidate, **settings).finish()[0]

    def rewrite(
        self,
        passage: Passage,
        start: int,
        *,
        insert: str = "",
        num_return_sequences: int = 1,
        seed: int | None = None,
        candidate: int = 0,
        batch_size: int = 64,
        **settings: Any,
    ) -> Writing:
        """`resample` step by step, as `write` is to `generate`."""
        start = require_integer("start", start, 0)
        if start > len(passage.continuation):
            raise ValueError(f"start must be in [0, {len(passage.continuation)}], got {start}")
        kept = self._cut(passage, start)
        kept.settings = Settings(**{**passage.settings, **settings}).to_dict()
        kept.seed = _seed(seed)
        for character in self._weigh(kept, insert):
            kept.add(character)
        original = Settings(**passage.settings).max_new_tokens
        rest = max(original, len(passage.token_ids)) - len(kept.token_ids)
        chosen = Settings(**{**passage.settings, "max_new_tokens": rest if rest > 0 else original, **settings})
        candidates = _candidates(candidate, num_return_sequences)
        ids = self.vocabulary.encode(kept.prompt) + kept.token_ids
        drafts = self._drafts(kept.text, ids, kept.novel, kept.seed, candidates)
        return Writing(self, [_as_candidate(kept, number) for number in candidates], drafts, chosen, batch_size)

    def match(self, prompt: str) -> tuple[str, list[str]]:
        """A prompt in the characters this model knows, and what was replaced for that, like `["乔→喬"]`.

        The other script is converted, a variant (峯 for 峰) replaced; what has no known form stays as it is.
        Raises ValueError where the prompt is no string.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"prompt must be a string, got {type(prompt).__name__}")
        prompt = SURROGATES.sub("\ufffd", prompt)
        if all(character in self.vocabulary.ids for character in prompt):
            return prompt, []
        from jinyong_gpt2.script import match_script

        text, changes = match_script(prompt, self.vocabulary.ids)
        return text, [str(change) for change in changes]

    # ------------------------------------------------------------ from passages to drafts

    def _cut(self, passage: Passage, start: int) -> Passage:
        """The passage up to character `start` of its continuation, with what is known of each token.

        Nothing is known of the first ones where they were written by hand or with another vocabulary.
        """
        ids, texts = passage.token_ids, []
        if all(0 <= i < len(self.vocabulary.names) for i in ids):
            texts = self.vocabulary.split(ids)
        kept = Passage(passage.prompt, passage.continuation[:start], novel=passage.novel, kept=start)
        kept.changes = list(passage.changes)
        if "".join(text for text, _ in texts) != passage.continuation:
            kept.token_ids = self.vocabulary.encode(kept.continuation)
            return kept
        tokens = sum(count for _, count in texts[:start])
        known = max(tokens - (len(ids) - len(passage.logprobs)), 0)
        kept.token_ids, kept.logprobs = ids[:tokens], passage.logprobs[:known]
        known = max(start - (len(passage.continuation) - len(passage.probabilities)), 0)
        kept.alternatives, kept.probabilities = passage.alternatives[:known], passage.probabilities[:known]
        return kept

    def _weigh(self, passage: Passage, text: str) -> list[Character]:
        """The characters of `text`, as if the model had written them after `passage`."""
        if not text:
            return []
        text, _ = self.match(text)
        ids = self.vocabulary.encode(passage.prompt) + passage.token_ids
        (draft,) = self._drafts("", ids, passage.novel, 0, range(1))
        tokens = self.vocabulary.encode(text)
        streams = self.decoder.streams(1)
        try:
            logits, known = streams.prefill([draft.window]), []
            for token in tokens:
                logprobs, alternatives = self._look(logits, [token])
                known.append((token, logprobs[0], alternatives[0]))
                self._make_room(streams, [draft], [token])
                logits = streams.step([token])
        finally:
            self.decoder.release(streams)
        characters = []
        for character, count in self.vocabulary.split(tokens):
            these, known = known[:count], known[count:]
            characters.append(Character(character, [t for t, _, _ in these], [p for _, p, _ in these], these[0][2]))
        return characters

    def _drafts(self, text: str, ids: list[int], novel: str | None, seed: int, numbers: range) -> list[_Draft]:
        """A draft for each candidate number, all going on from `text`, whose tokens are `ids`."""
        control = self.vocabulary.control(novel)
        window = self._window(control, ids)
        return [_Draft(control, window[:], text[-REMEMBERED:], candidate_generator(seed, number)) for number in numbers]

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
        settings = self._heeded(settings)
        streams = self.decoder.streams(len(drafts))
        try:
            with streams.threads():
                logits = streams.prefill([draft.window for draft in drafts])  # (B, V)
            active = list(enumerate(drafts))
            while True:
                with streams.threads():
                    ids, logprobs, alternatives = self._choose([d for _, d in active], logits, settings, details)
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
                with streams.threads():
                    self._make_room(streams, [draft for _, draft in active], ids)
                    logits = streams.step(ids)
        finally:
            self.decoder.release(streams)

    def _heeded(self, settings: Settings) -> Settings:
        """The settings with stop strings and banned characters in the model's script, too."""
        banned, _ = self.match(settings.banned_characters)
        stops = [self.match(string)[0] for string in settings.stop_strings]
        return replace(
            settings,
            banned_characters=settings.banned_characters + banned,
            stop_strings=(*settings.stop_strings, *stops),
        )

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
        ids = sample(allowed, settings, [draft.generator for draft in drafts])
        if not details:
            return ids, [math.nan] * len(ids), [[]] * len(ids)
        return ids, *self._look(logits, ids)

    def _look(self, logits: torch.Tensor, ids: list[int]) -> tuple[list[float], list[list[tuple[str, float]]]]:
        """The log-probability of each row's token, and the row's most probable tokens with their probabilities."""
        logprobs = logits.log_softmax(-1)  # (B, V)
        best, tokens = logprobs.topk(min(ALTERNATIVES, logprobs.shape[-1]), dim=-1)
        ours = logprobs.gather(-1, torch.tensor(ids, device=logits.device)[:, None])  # (B, 1)
        rows = torch.cat([ours.double(), best.double(), tokens.double()], dim=-1).tolist()  # a GPU is waited for once
        names, count = self.vocabulary.names, best.shape[-1]
        alternatives = [
            [(names[int(i)], math.exp(value)) for value, i in zip(row[1 : 1 + count], row[1 + count :], strict=True)]
            for row in rows
        ]
        return [row[0] for row in rows], alternatives

    @functools.cached_property
    def _never_first(self) -> torch.Tensor:
        return self.vocabulary.never_first.to(self.decoder.drawing)

    def _allow(self, drafts: list[_Draft], logits: torch.Tensor, settings: Settings) -> torch.Tensor:
        """Logits in which only what can come next is left: whole, permitted characters, and never a control token."""
        vocabulary = self.vocabulary
        window = settings.repetition_window
        if settings.repetition_penalty != 1:
            recent = [draft.window[1:][-window:] for draft in drafts]
            logits = apply_repetition_penalty(logits, recent, settings.repetition_penalty)
        allowed = logits.index_fill(-1, self._never_first, -math.inf)
        for row, draft in enumerate(drafts):
            if not (draft.pending or settings.banned_characters or settings.no_repeat_ngram_size):
                continue
            repeated = repeated_endings(draft.tail[-window:], settings.no_repeat_ngram_size)
            for more in ("".join(sorted(repeated)), ""):
                forbidden = _forbidden(settings.banned_characters + more)
                if draft.pending:
                    following = _following_bytes(draft.pending)
                    good = [byte for byte in following if not forbidden.bars(draft.pending + bytes([byte]))]
                    if not good and more:
                        continue
                    tokens = [vocabulary.byte_ids[byte] for byte in good or following]
                    allowed[row] = -math.inf
                    allowed[row, tokens] = logits[row, tokens]
                    break
                tokens = [vocabulary.ids[c] for c in forbidden.characters if c in vocabulary.ids]
                tokens += [vocabulary.byte_ids[byte] for byte in _leading_bytes() if forbidden.bars(bytes([byte]))]
                if not vocabulary.first <= set(tokens):  # something is left
                    allowed[row, tokens] = -math.inf
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
        if len(draft.tail) > 2 * REMEMBERED:
            draft.tail = draft.tail[-REMEMBERED:]
            draft.written = min(draft.written, REMEMBERED)
        return character


class Writing:
    """Passages while they are written: iterating yields `(i, Character)`, and `passages[i]` has grown by it."""

    def __init__(
        self, writer: Writer, starts: list[Passage], drafts: list[_Draft], settings: Settings, batch_size: int
    ) -> None:
        self.passages = Passages(starts)
        self._total = len(drafts) * settings.max_new_tokens
        self._steps = self._run(writer, drafts, settings, require_integer("batch_size", batch_size, 1))

    def _run(
        self, writer: Writer, drafts: list[_Draft], settings: Settings, batch_size: int
    ) -> Generator[tuple[int, Character], None, None]:
        for first in range(0, len(drafts), batch_size):
            for i, character in writer._write(drafts[first : first + batch_size], settings, details=True):
                self.passages[first + i].add(character)
                yield first + i, character

    def __iter__(self) -> Iterator[tuple[int, Character]]:
        return self._steps

    def close(self) -> None:
        """Stop here. The passages stay as they are."""
        self._steps.close()

    def finish(self) -> Passages:
        """Write to the end, with a progress bar where that takes long."""
        from tqdm import tqdm

        with tqdm(total=self._total, unit="token", delay=2, leave=False, disable=None) as bar:
            for _, character in self._steps:
                bar.update(len(character.token_ids))
        return self.passages


def _as_candidate(start: Passage, number: int) -> Passage:
    """A copy of `start` as another candidate, sharing no list with it."""
    copy = Passage.from_dict(start.to_dict())
    copy.candidate = number
    return copy


# ---------------------------------------------------------------- checks


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


class _Forbidden:
    """Characters that may not be written, and the beginnings of UTF-8 that lead to no other."""

    def __init__(self, characters: str) -> None:
        self.characters = set(characters)
        whole = [character.encode("utf-8") for character in self.characters]
        self._beginnings = Counter(each[:n] for each in whole for n in range(1, len(each) + 1))

    def bars(self, beginning: bytes) -> bool:
        """Whether every character that begins so is forbidden."""
        length = _utf8_length(beginning[0])
        missing = length - len(beginning)
        if len(beginning) == 1 < length:
            possible = len(_following_bytes(beginning)) * 64 ** (missing - 1)
        else:
            possible = 64**missing
        return self._beginnings[beginning] >= possible


@functools.lru_cache(maxsize=16)
def _forbidden(characters: str) -> _Forbidden:
    return _Forbidden(characters)
