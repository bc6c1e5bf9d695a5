"""Jin Yong style (金庸) wuxia passages from a small GPT-2, and a look inside it. Begin with notebooks/01_generate."""

from jinyong_gpt2.attention import heads_of_interest, show
from jinyong_gpt2.corpus import SAMPLE, Corpus, load_corpus
from jinyong_gpt2.dataset import PreparedCorpus, prepare
from jinyong_gpt2.evaluation import bits_per_char
from jinyong_gpt2.memorization import CopyIndex
from jinyong_gpt2.model import PRETRAINED, SIZES, new_model
from jinyong_gpt2.passage import Passage, Passages
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.training import TrainConfig, train
from jinyong_gpt2.writer import Writer

__all__ = [
    "PRETRAINED",
    "SAMPLE",
    "SIZES",
    "CopyIndex",
    "Corpus",
    "Passage",
    "Passages",
    "PreparedCorpus",
    "TrainConfig",
    "Writer",
    "bits_per_char",
    "build_tokenizer",
    "heads_of_interest",
    "load_corpus",
    "new_model",
    "prepare",
    "show",
    "train",
]
