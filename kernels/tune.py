"""Chooses the tiles of the Triton attention by the clock, and keeps them in a file.

python -m visavis.kernels.tune --output configs.json
VISAVIS_KERNEL_CONFIGS=configs.json visavis serve ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import torch

from visavis.kernels.attention.configs import SHIPPED, TileConfig, record
from visavis.kernels.bench import Shape, make_call
from visavis.kernels.timing import Plan, timing

TOKENS = 12096  # of the 14B model's chunk
HEADS = 8


def candidates(architecture: int, head_dim: int) -> Iterator[TileConfig]:
    """Tiles worth timing: those whose accumulators fit the registers."""
    descriptors = (True, False) if architecture >= 90 else (False,)
    # automatic warp specialization exists for data-centre Blackwell only, and is ignored elsewhere
    specialize = (True, False) if 100 <= architecture < 120 else (False,)
    for m, n, warps, stages in product((64, 128), (32, 64, 128), (4, 8), (2, 3, 4)):
        # float32 accumulators of output and scores, per thread
        if m * (head_dim + n) / (32 * warps) > 192:
            continue
        for tma, split in product(descriptors, specialize):
            yield TileConfig(
                m=m, n=n, num_warps=warps, num_stages=stages, descriptors=tma, specialize=split
            )


def best(
    configs: Sequence[TileConfig],
    seconds_of: Callable[[TileConfig], float],
    say: Callable[[str], None],
) -> TileConfig:
    """The quickest; one that does not compile or run is told about and passed over.

    Raises:
        RuntimeError: none runs.
    """
    quickest: tuple[float, TileConfig] | None = None
    for config in configs:
        try:
            seconds = seconds_of(config)
        except Exception as error:
            say(f"{config}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        say(f"{config}: {seconds * 1e3:.3f} ms")
        if quickest is None or seconds < quickest[0]:
            quickest = seconds, config
    if quickest is None:
        raise RuntimeError(f"none of {len(configs)} configurations runs on this GPU")
    return quickest[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Tune head sizes 64 and 128, exact and, where there are 8-bit units, fp8."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=SHIPPED, help="file to keep them in")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.stderr.write("tune: no CUDA device here, so there is nothing to time\n")
        raise SystemExit(2)
    device = torch.device("cuda")
    major, minor = torch.cuda.get_device_capability(device)
    architecture = 10 * major + minor
    for head_dim in (64, 128):
        shape = Shape(queries=TOKENS, keys=TOKENS, heads=HEADS, head_dim=head_dim)
        for kind in ("exact", "fp8") if architecture >= 89 else ("exact",):
            chosen = best(
                list(candidates(architecture, head_dim)),
                _seconds_of(shape, device, fp8=kind == "fp8"),
                lambda text: (sys.stdout.write(text + "\n"), None)[1],
            )
            name = torch.cuda.get_device_name(device)
            record(arguments.output, name, architecture, head_dim, kind, chosen)
            sys.stdout.write(f"{architecture}/{head_dim}/{kind}: {chosen}\n")


def _seconds_of(shape: Shape, device: torch.device, *, fp8: bool) -> Callable[[TileConfig], float]:
    from visavis.kernels.attention.launch import triton_attention  # needs Triton

    call = make_call(shape, device, torch.bfloat16)

    def seconds(config: TileConfig) -> float:
        return timing(
            lambda: triton_attention(call, fp8=fp8, config=config),
            device,
            Plan(seconds=0.1),
            name="attention",
            implementation="triton",
            shape=shape.words,
        ).median_s

    return seconds


if __name__ == "__main__":
    main()
