"""Threads and number format, chosen by what this machine was measured to do well."""

import logging
import time

import torch

logger = logging.getLogger(__name__)

# A chunk's token count and the embedded model's feed-forward: its largest matrix products.
_TOKENS, _WIDTH, _HIDDEN = 576, 192, 768
_MEASURED_PRODUCTS = 8
_MEASURED_ROUNDS = 5
# bfloat16 pays for its conversions only if it is clearly faster.
_WORTHWHILE_SPEEDUP = 1.3


class DeviceError(ValueError):
    """A device or number format that this machine has not."""


def set_threads(num_threads: int | None) -> int:
    """Use `num_threads` for tensor operations (None: torch's choice); return the number in use.

    Raises:
        DeviceError: fewer than one.
    """
    if num_threads is not None:
        if num_threads < 1:
            raise DeviceError(f"num_threads={num_threads}: must be at least 1, or None")
        torch.set_num_threads(num_threads)
    return torch.get_num_threads()


def choose_device(device: str | torch.device) -> torch.device:
    """The device itself.

    Raises:
        DeviceError: unknown to torch, or not in this machine.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device={device!r}: {error}") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device={str(device)!r}: no CUDA device was found; use 'cpu'")
    return chosen


def choose_dtype(device: torch.device, dtype: torch.dtype | str | None = None) -> torch.dtype:
    """The format of the transformer's weights: as told, else the faster of bfloat16 and float32.

    On a CPU without bfloat16 units the answer is float32; with them both are timed, since only
    some are faster than its vector units.

    Raises:
        DeviceError: `dtype` names another format than float32 or bfloat16.
    """
    if dtype is not None:
        names = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        chosen = names.get(dtype) if isinstance(dtype, str) else dtype
        if chosen is None or chosen not in names.values():
            raise DeviceError(f"dtype={dtype!r}: must be one of {', '.join(names)}, or None")
        return chosen
    if device.type != "cpu":
        return torch.bfloat16
    if not _has_bfloat16_units():
        logger.info("this CPU has no bfloat16 units (AMX or AVX512-BF16): using float32")
        return torch.float32
    slow, fast = _product_seconds(torch.float32), _product_seconds(torch.bfloat16)
    speedup = slow / fast
    chosen = torch.bfloat16 if speedup >= _WORTHWHILE_SPEEDUP else torch.float32
    logger.info("bfloat16 is %.1f times as fast as float32 here: using %s", speedup, chosen)
    return chosen


def _has_bfloat16_units() -> bool:
    cpu = torch.cpu
    return bool(cpu._is_amx_tile_supported() or cpu._is_avx512_bf16_supported())


def _product_seconds(dtype: torch.dtype) -> float:
    """Best time of a few feed-forward sized products."""
    x = torch.ones(_TOKENS, _WIDTH, dtype=dtype)
    weight = torch.ones(_HIDDEN, _WIDTH, dtype=dtype)
    times = []
    for _ in range(_MEASURED_ROUNDS):
        start = time.perf_counter()
        for _ in range(_MEASURED_PRODUCTS):
            torch.nn.functional.linear(x, weight)
        times.append(time.perf_counter() - start)
    return min(times)
