"""What this machine computes with: the device, the arithmetic it is quick in, and how quick that can be at best."""

from __future__ import annotations

import time

import torch

# Dense peak of a GPU in FLOP/s with 16-bit inputs, from the makers' data sheets.
PEAK_FLOPS = {
    "GH200": 989e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "V100": 125e12,
    "T4": 65e12, "P100": 19e12,
}  # fmt: skip


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is the GPU where there is one (CUDA, then Apple's MPS), else the CPU; anything else is torch's own name.

    Raises ValueError where the name is unknown or the device is absent.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'unknown device {device!r}: use "auto", "cpu", "cuda" or "mps"') from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(resolved.type, False):
        raise ValueError(f'no {resolved.type} device on this machine: use "auto" or "cpu"')
    return resolved


def product_dtype(device: torch.device) -> torch.dtype:
    """In which arithmetic a device multiplies matrices fastest: bfloat16 where it is built for that.

    Older GPUs are built for float16; older CPUs (before AVX512-BF16: most laptops) for float32 alone, and take some
    fifty times as long over bfloat16.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    built = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if built else torch.float32


def peak_flops(device: torch.device) -> float:
    """The peak in FLOP/s, in the device's `product_dtype`: a known GPU's from its data sheet, else measured (0.2 s)."""
    if device.type == "cuda":
        words = torch.cuda.get_device_name(device).replace("-", " ").split()  # "NVIDIA A100-SXM4-40GB"
        known = next((PEAK_FLOPS[word] for word in words if word in PEAK_FLOPS), None)
        if known:
            return known
    # A GPU is given products that take far longer than it takes to ask for them, many at a time.
    size, times = (1024, 1) if device.type == "cpu" else (4096, 10)
    a = torch.randn(size, size, dtype=product_dtype(device), device=device)
    rate, end = 0.0, time.perf_counter() + 0.2
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(times):
            product = a @ a
        product[0, 0].item()
        rate = max(rate, 2 * times * size**3 / (time.perf_counter() - start))
    return rate
