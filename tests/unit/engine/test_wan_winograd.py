"""Half the products give the same sums."""

import pytest
import torch
from torch import Tensor

from visavis.engine.codec.wan_conv import CausalFilter
from visavis.engine.codec.wan_stream import VideoStream
from visavis.engine.codec.wan_winograd import (
    SLOTS,
    bias_transform,
    kernel_transform,
    merge_products,
    split_lines,
)


@pytest.mark.parametrize("outputs", sorted(SLOTS))
def test_outputs_are_those_of_the_filter(outputs: int) -> None:
    torch.manual_seed(0)
    frames = torch.randn(outputs + 2, 3, 5, dtype=torch.float64)
    taps = torch.randn(3, dtype=torch.float64)
    bias = torch.randn(1, dtype=torch.float64)
    slots = torch.empty(SLOTS[outputs], 3, 5, dtype=torch.float64)
    before = frames.clone()
    split_lines(frames.unbind(), slots.unbind(), torch.empty(2, 3, 5).double().unbind())
    assert torch.equal(frames, before)
    kernels = kernel_transform(outputs) @ taps
    products = slots * kernels[:, None, None] + (bias_transform(outputs) * bias)[:, None, None]
    found = torch.empty(outputs, 3, 5, dtype=torch.float64)
    merge_products(products.unbind(), found.unbind())
    expected = torch.stack(
        [sum(taps[k] * frames[t + k] for k in range(3)) + bias for t in range(outputs)]
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def filtered(layer: CausalFilter, video: Tensor, sizes: list[int]) -> Tensor:
    stream = VideoStream()
    with torch.inference_mode():
        return torch.cat([layer(part, stream) for part in video.split(sizes)])


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("sizes", [[1, 4, 4, 2, 1], [1, 2, 2, 7], [1, 3, 1, 1, 6]])
def test_filter_does_not_depend_on_the_division_of_the_video(
    channels: int, sizes: list[int]
) -> None:
    torch.manual_seed(0)
    layer = CausalFilter(channels, 8).double()
    video = torch.randn(12, 5, 6, channels, dtype=torch.float64)
    padded = torch.nn.functional.pad(video, (0, 0, 1, 1, 1, 1, 2, 0)).permute(3, 0, 1, 2)[None]
    whole = torch.nn.functional.conv3d(padded, layer.weight, layer.bias)[0].permute(1, 2, 3, 0)
    torch.testing.assert_close(filtered(layer, video, sizes), whole, atol=1e-12, rtol=0)
    halved = CausalFilter(channels, 8)
    halved.load_state_dict(layer.state_dict())
    single = filtered(halved, video.float(), sizes)
    torch.testing.assert_close(single.double(), whole, atol=1e-5, rtol=0)


def test_exchanged_weights_are_used() -> None:
    layer = CausalFilter(8, 8)
    video = torch.randn(9, 4, 4, 8)
    before = filtered(layer, video, [1, 4, 4])
    layer.weight = torch.nn.Parameter(layer.weight * 2)
    layer.bias = torch.nn.Parameter(layer.bias * 2)
    torch.testing.assert_close(filtered(layer, video, [1, 4, 4]), 2 * before)
    layer.load_state_dict({name: p * 2 for name, p in layer.state_dict().items()})
    torch.testing.assert_close(filtered(layer, video, [1, 4, 4]), 4 * before)
