"""The compiled filter and norm of the video VAE against their definitions in float64."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.codec.wan_conv import CausalFilter
from visavis.engine.codec.wan_stream import VideoStream
from visavis.kernels import native as native_module
from visavis.kernels.choice import tell_fallback
from visavis.kernels.native import COMPILERS, native
from visavis.kernels.video import api, pixel_norm
from visavis.kernels.video.reference import plain_filter, plain_pixel_norm

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="no C compiler: plain PyTorch serves"
)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What was found out about the compiler is found out anew, before and after."""
    caches = (native, api._library, tell_fallback)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def filtered(layer: CausalFilter, video: Tensor, residual: Tensor, sizes: list[int]) -> Tensor:
    stream = VideoStream()
    pairs = zip(video.split(sizes), residual.split(sizes), strict=True)
    with torch.inference_mode():
        return torch.cat([layer(part, stream, residual=added) for part, added in pairs])


@needs_compiler
@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 40),
    outputs=st.integers(1, 40),
    height=st.integers(1, 13),
    width=st.integers(1, 9),
    later=st.lists(st.integers(1, 5), max_size=3),
    seed=st.integers(0, 99),
)
def test_filter_is_its_definition_at_any_size(
    channels: int, outputs: int, height: int, width: int, later: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = CausalFilter(channels, outputs)
    sizes = [1, *later]
    video = torch.randn(sum(sizes), height, width, channels)
    residual = torch.randn(sum(sizes), height, width, outputs)
    padded = torch.nn.functional.pad(video.double(), (0, 0, 1, 1, 1, 1, 2, 0))
    expected = plain_filter(padded, layer.weight.double(), layer.bias.double()) + residual
    found = filtered(layer, video, residual, sizes)
    torch.testing.assert_close(found.double(), expected.detach(), atol=1e-5, rtol=0)


@needs_compiler
def test_filter_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    layer = CausalFilter(32, 32)
    video, residual = torch.randn(5, 20, 24, 32), torch.zeros(5, 20, 24, 32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = filtered(layer, video, residual, [1, 4])
        torch.set_num_threads(3)
        together = filtered(layer, video, residual, [1, 4])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, together)


@needs_compiler
def test_four_frames_take_a_sixth_of_the_products_and_are_counted() -> None:
    layer = CausalFilter(32, 32)
    stream = VideoStream()
    with torch.inference_mode():
        for count in (1, 4):  # kernels are transformed once
            layer(torch.randn(count, 16, 16, 32), stream)
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(4, 16, 16, 32), stream)
    plain = 2 * 27 * 32 * 32 * 4 * 16 * 16
    assert counter.get_total_flops() == plain * (6 / 4 * 6 / 4 * 4 / 2) / 27


@needs_compiler
@pytest.mark.parametrize("channels", [16, 48, 20])
@pytest.mark.parametrize("silu", [True, False])
def test_norm_is_its_definition_from_nothing_to_much(channels: int, silu: bool) -> None:
    torch.manual_seed(0)
    scales = torch.tensor([0.0, 1e-20, 1e-3, 1.0, 1e6]).view(1, 1, 5, 1)
    x = torch.randn(2, 3, 5, channels) * scales
    gamma = torch.randn(channels) * 40  # far out on both sides of the sigmoid
    room = torch.full((2, 5, 7, channels), 7.0)
    pixel_norm(x, room[:, 1:4, 1:6], gamma, silu=silu)
    expected = torch.empty_like(x, dtype=torch.float64)
    plain_pixel_norm(x.double(), expected, gamma.double(), silu)
    torch.testing.assert_close(room[:, 1:4, 1:6].double(), expected, rtol=3e-6, atol=1e-12)
    room[:, 1:4, 1:6] = 7
    assert bool((room == 7).all())


@needs_compiler
def test_norm_keeps_what_is_not_a_number() -> None:
    x = torch.randn(1, 1, 2, 16)
    x[0, 0, 0, 3] = float("nan")
    target = torch.empty_like(x)
    pixel_norm(x, target, torch.ones(16), silu=True)
    assert target[0, 0, 0].isnan().all()
    assert target[0, 0, 1].isfinite().all()


@needs_compiler
@pytest.mark.parametrize("change", ["frames", "bias", "strides"])
def test_sizes_that_do_not_belong_together_are_refused(change: str) -> None:
    frames = [torch.zeros(6, 6, 16) for _ in range(6)]
    kernels, bias = torch.zeros(6, 24, 1, 16, 16), torch.zeros(16)
    outcome = torch.zeros(4, 4, 4, 16)
    if change == "frames":
        frames = frames[:5]
    elif change == "bias":
        bias = torch.zeros(15)
    else:
        frames[0] = torch.zeros(16, 6, 6).permute(1, 2, 0)
    with pytest.raises(ValueError, match="filter_tiles"):
        api.filter_tiles(frames, kernels, bias, outcome, None)


@pytest.mark.usefixtures("forgetful")
def test_without_a_compiler_pytorch_serves_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(native_module.CACHE_VARIABLE, str(tmp_path / "native"))
    monkeypatch.setattr(native_module.shutil, "which", lambda name: None)
    torch.manual_seed(0)
    layer = CausalFilter(16, 16)
    video, residual = torch.randn(5, 8, 8, 16), torch.zeros(5, 8, 8, 16)
    assert not api.tiles_serve(video)
    assert not api.tiles_serve(video)
    (line,) = caplog.records
    assert "install one, such as gcc" in line.getMessage()
    padded = torch.nn.functional.pad(video.double(), (0, 0, 1, 1, 1, 1, 2, 0))
    expected = plain_filter(padded, layer.weight.double(), layer.bias.double()).detach()
    found = filtered(layer, video, residual, [1, 4])
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@needs_compiler
@pytest.mark.usefixtures("forgetful")
def test_library_is_kept_and_a_folder_that_others_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "native"
    monkeypatch.setenv(native_module.CACHE_VARIABLE, str(folder))
    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }\n", encoding="utf-8")
    library = native(source)
    assert library is not None
    assert library.one() == 1
    (kept,) = folder.iterdir()
    written = kept.stat().st_mtime_ns
    native.cache_clear()
    assert native(source) is not None
    assert kept.stat().st_mtime_ns == written
    folder.chmod(0o777)
    native.cache_clear()
    assert native(source) is None
    (line,) = caplog.records
    assert "others may write there" in line.getMessage()


@needs_compiler
@pytest.mark.usefixtures("forgetful")
def test_source_that_does_not_compile_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(native_module.CACHE_VARIABLE, str(tmp_path / "native"))
    source = tmp_path / "broken.c"
    source.write_text("int one(void) { return }\n", encoding="utf-8")
    assert native(source) is None
    (line,) = caplog.records
    assert "failed" in line.getMessage()
