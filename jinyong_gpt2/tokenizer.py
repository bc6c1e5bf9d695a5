"""One token per character, byte fallback for the rest, a control token per novel: a standard Hugging Face tokenizer.

The vocabulary, in this order:

    0            `<|endoftext|>`: the generic control token, first in a text of no particular novel
    1 … 256      `<0x00>` … `<0xFF>`: the UTF-8 bytes of any character that has no token of its own
    257 …        the characters, by code point
    last         one control token per novel, `<|天龍八部|>`, first in a text of that novel

    >>> tokenizer = build_tokenizer(["喬峯帶阿朱回到北方。"], titles=["天龍八部"], min_count=1)
    >>> tokenizer.decode(encode(tokenizer, "阿朱😀"))
    '阿朱😀'
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GENERIC_TOKEN = "<|endoftext|>"
SURROGATES = re.compile("[\ud800-\udfff]")
MAX_VOCABULARY = 1 << 16  # prepared corpora are stored as uint16


def control_token(title: str) -> str:
    """The control token of a novel: `天龍八部` → `<|天龍八部|>`."""
    return f"<|{title}|>"


def base_characters(script: str = "traditional") -> set[str]:
    """The characters every vocabulary holds whatever its corpus, so that a checkpoint can be fine-tuned on another.

    Traditional: the 5,401 characters that Big5 (1984, level 1) lists as in common use. Simplified: the 3,755 of
    GB 2312 (1980, level 1). Both with the punctuation of the two standards, full-width and ASCII forms and the newline.
    """
    if script == "simplified":
        rows = [bytes([lead, trail]) for lead in range(0xB0, 0xD8) for trail in range(0xA1, 0xFF)]
        hanzi = {character for row in rows for character in row.decode("gb2312", "ignore")}
    else:
        trails = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
        rows = [bytes([lead, trail]) for lead in range(0xA4, 0xC7) for trail in trails if (lead, trail) <= (0xC6, 0x7E)]
        hanzi = {character for row in rows for character in row.decode("big5", "ignore")}
    punctuation = {chr(code) for code in range(0x3000, 0x3020)} | set("—…‘’“”·‧•–─～※○〇□×")
    full_width = {chr(code) for code in range(0xFF01, 0xFF5F)}
    ascii_printable = {chr(code) for code in range(0x20, 0x7F)}
    return hanzi | punctuation | full_width | ascii_printable | {"\n"}


def build_tokenizer(
    texts: Iterable[str], titles: Iterable[str] = (), min_count: int = 5, script: str = "traditional"
) -> PreTrainedTokenizerFast:
    """A tokenizer for `texts`: the base characters of `script`, and every other one seen `min_count` times or more.

    `titles` become control tokens, in the order given. Raises ValueError where the vocabulary would not fit 16 bits.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    frequent = {character for character, count in counts.items() if count >= min_count}
    # A lone surrogate has no UTF-8 form; the rest of Unicode may have a token.
    characters = {c for c in frequent | base_characters(script) if not 0xD800 <= ord(c) <= 0xDFFF}
    names = [GENERIC_TOKEN, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(characters)]
    controls = [control_token(title) for title in dict.fromkeys(titles)]
    size = len(names) + len(controls)
    if size > MAX_VOCABULARY:
        raise ValueError(f"{size:,} tokens do not fit the 16 bits a prepared corpus stores: raise min_count")

    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges=[], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    special = [AddedToken(name, special=True, normalized=False) for name in [GENERIC_TOKEN, *controls]]
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=GENERIC_TOKEN,
        eos_token=GENERIC_TOKEN,
        pad_token=GENERIC_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | os.PathLike[str]) -> None:
    """`save_pretrained`, in the form that transformers 4 and 5 both open with AutoTokenizer.

    transformers 5 names its own class, which 4 does not know; `PreTrainedTokenizerFast` is read by both.
    """
    tokenizer.save_pretrained(folder)
    path = Path(folder) / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        # transformers 4 would add token_type_ids, and GPT-2 would add their embeddings.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for volatile in ("backend", "is_local"):  # of this process, not of the tokenizer
        config.pop(volatile, None)
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of plain text. A control token typed in it is ordinary characters: only `control_id` gives its id.

    A lone surrogate (no character, and not writable as UTF-8) counts as U+FFFD.
    """
    text = SURROGATES.sub("\ufffd", text)
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def novel_titles(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The titles that have a control token, in the order of their ids."""
    added = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    return [name[2:-2] for name in added if name.startswith("<|") and name != GENERIC_TOKEN]


def control_id(tokenizer: PreTrainedTokenizerFast, novel: str | None = None) -> int:
    """The id that goes first in a text of `novel`; of no particular novel where that is None.

    Raises ValueError with the known titles where the novel has no control token.
    """
    if novel is None:
        return tokenizer.bos_token_id
    titles = novel_titles(tokenizer)
    if novel not in titles:
        known = "、".join(titles) if titles else "none"
        raise ValueError(f"this checkpoint has no control token for the novel {novel!r}; it knows: {known}")
    return tokenizer.convert_tokens_to_ids(control_token(novel))


def byte_ids(tokenizer: PreTrainedTokenizerFast) -> dict[int, int]:
    """Token id → byte value, for the 256 fallback tokens."""
    return {tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>"): byte for byte in range(256)}


def is_character_start(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """(V,) bool: False for UTF-8 continuation bytes and control tokens; summed over ids it counts characters."""
    starts = np.ones(len(tokenizer), dtype=bool)
    starts[[i for i, byte in byte_ids(tokenizer).items() if 0x80 <= byte <= 0xBF]] = False
    starts[[i for i, token in tokenizer.added_tokens_decoder.items() if token.special]] = False
    return starts


class TableEncoder:
    """`encode` by one look-up per code point: the same ids, some fifty times faster on a whole corpus."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._table = np.full(0x110000, -1, dtype=np.int32)
        for token, i in tokenizer.get_vocab().items():
            if len(token) == 1:
                self._table[ord(token)] = i
        self._bytes = np.array([i for i, _ in sorted(byte_ids(tokenizer).items(), key=lambda item: item[1])])

    def __call__(self, text: str) -> np.ndarray:
        """(T,) uint16 token ids of `text`."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        points = np.where((points >= 0xD800) & (points <= 0xDFFF), 0xFFFD, points)
        ids = self._table[points]
        unknown = np.flatnonzero(ids < 0)
        pieces, last = [], 0
        for i in unknown:
            pieces += [ids[last:i], self._bytes[list(chr(points[i]).encode("utf-8"))]]
            last = i + 1
        return np.concatenate([*pieces, ids[last:]]).astype(np.uint16)
