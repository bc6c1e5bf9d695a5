"""What the machine is quick in is what it is given to do, on machines without 16-bit units too."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jinyong_gpt2.decoding import resolve_dtype
from jinyong_gpt2.devices import PEAK_FLOPS, peak_flops, product_dtype, resolve_device
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.training import TrainConfig, train
from jinyong_gpt2.writer import Writer

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TEXT = "風雪夜，他獨自上山，沒有人送他。山上有一座廟，廟裡有一盞燈，燈下坐著一個老人。"


@pytest.fixture
def old_cpu(monkeypatch):
    """A CPU whose bf16 products take fifty times as long as those in float32."""
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)


class Products(TorchDispatchMode):
    """Counts the products of matrices inside, by arithmetic. Products with 8-bit weights are none of those."""

    def __init__(self):
        super().__init__()
        self.count = {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm", "linear", "matmul"):
            dtype = args[0].dtype
            self.count[dtype] = self.count.get(dtype, 0) + 1
        return operator(*args, **(kwargs or {}))


def test_an_old_cpu_trains_without_a_product_in_bf16(old_cpu, prepared, tmp_path):
    settings = {"size": "testing", "max_steps": 10, "eval_every": 10, "batch_size": 2, "context_length": 16}
    with Products() as products:
        *_, last = train(TrainConfig(str(prepared.folder), str(tmp_path / "run"), device="cpu", **settings))
    assert set(products.count) == {torch.float32} and products.count[torch.float32] > 100
    assert math.isfinite(last["heldout_bits_per_char"]) and 0 < last["utilisation"] < 1


def test_an_old_cpu_reads_a_context_without_a_product_in_bf16(old_cpu):
    tokenizer = build_tokenizer([TEXT], titles=["雪嶺刀"], min_count=1)
    torch.manual_seed(0)
    model = new_model("testing", tokenizer).eval()
    writer = Writer(model, tokenizer, dtype="int8")
    context = TEXT * 2  # long enough to be read with many rows at a time
    with Products() as products:
        (passage,) = writer.generate(context, max_new_tokens=4, seed=1)
    assert products.count and torch.bfloat16 not in products.count and len(passage.token_ids) > 0


def test_the_arithmetic_is_that_of_the_machine(old_cpu, monkeypatch):
    assert product_dtype(CPU) == product_dtype(torch.device("mps")) == torch.float32
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert product_dtype(CPU) == torch.bfloat16
    for capability, dtype in (((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device, found=capability: found)
        assert str(product_dtype(GPU)) == f"torch.{dtype}" and resolve_dtype("auto", GPU) == dtype


@pytest.mark.parametrize(
    ("name", "known"),
    [("NVIDIA A100-SXM4-40GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA L40S", "L40S"), ("NVIDIA L4", "L4")],
)
def test_the_peak_of_a_known_gpu_is_its_data_sheets(name, known, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    assert peak_flops(GPU) == PEAK_FLOPS[known]


def test_the_peak_of_a_cpu_is_measured_in_what_it_is_quick_in(old_cpu):
    with Products() as products:
        assert peak_flops(CPU) > 1e9
    assert set(products.count) == {torch.float32}


def test_unknown_devices_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="auto"):
        resolve_device("tpu9")
