"""The planner's answers against counters on meta tensors and against what is known."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from dit_counting import PeakBytes, meta_model, meta_step, run_step
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.cards import CARDS, CardRates, RatesError, card_rates, read_rates
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_stream import VideoStream
from visavis.engine.plan_estimates import (
    GIB,
    VAE_BYTES_PER_PIXEL,
    VAE_ENCODE_FLOPS,
    VAE_FIRST_FLOPS,
    VAE_LATER_FLOPS,
    VAE_PARAMETERS,
    PlannerError,
    Request,
)
from visavis.engine.planner import Option, best_of_each, faster_rounded, options
from visavis.engine.weight_memory import WeightMemory
from visavis.plan_cli import plan

H100 = card_rates("h100")


def plain(request: Request) -> tuple[Option, ...]:
    """The splits with weights as they are, on the GPUs."""
    return tuple(o for o in options(request, H100) if o.weights == WeightMemory())


def test_vae_constants_are_those_of_the_network() -> None:
    """At a tenth of the size; its attention, quadratic in the size, is less than 3 % of it."""
    rows, columns = 32, 18
    with torch.device("meta"):
        network = WanNetwork(WanConfig()).to(torch.bfloat16).eval()
    assert sum(p.numel() for p in network.parameters()) == VAE_PARAMETERS
    latent = torch.empty(1, rows, columns, 16, device="meta", dtype=torch.bfloat16)
    flops, stream = [], VideoStream()
    with torch.inference_mode():
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                network.decoder(latent, stream)
            flops.append(counter.get_total_flops())
    stream = VideoStream()
    with torch.inference_mode(), PeakBytes() as held:
        for _ in range(3):
            network.decoder(latent, stream)
    assert flops[0] == pytest.approx(VAE_FIRST_FLOPS * rows * columns, rel=0.05)
    assert flops[1] == pytest.approx(VAE_LATER_FLOPS * rows * columns, rel=0.03)
    assert held.peak == pytest.approx(VAE_BYTES_PER_PIXEL * 64 * rows * columns, rel=0.1)
    stream = VideoStream()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for frames in (1, 4):
            picture = (frames, 8 * rows, 8 * columns, 3)
            network.encoder(torch.empty(picture, device="meta", dtype=torch.bfloat16), stream)
    encode = counter.get_total_flops()
    assert encode == pytest.approx(VAE_ENCODE_FLOPS * rows * columns, rel=0.05)


def test_the_released_model_needs_an_80_gib_card() -> None:
    request = Request(vram=80)
    (only,) = plain(request)
    assert only.fits
    assert only == options(request, H100)[0]  # the best that is exact
    assert 37.7e9 < only.memory.transformer < 37.9e9
    assert not plain(replace(request, vram=48))[0].fits
    # more GPUs do not make the weights smaller
    assert not plain(replace(request, vram=32, gpus=8))[0].fits
    assert not options(replace(request, vram=12), H100)[0].fits


def test_eight_gpus_do_at_most_087_of_the_original_work_each_and_are_real_time() -> None:
    splits = plain(Request(gpus=8, vram=80))
    best = splits[0]
    assert {option.plan.ulysses_degree for option in splits} == {1, 2, 4, 8}
    assert all(option.fits and option.flops_ratio <= 0.87 for option in splits)
    assert best.realtime_factor < 1 < options(Request(vram=80), H100)[0].realtime_factor


def test_flags_name_the_split_that_was_counted() -> None:
    for option in plain(Request(gpus=6, vram=80)):
        assert 40 % option.plan.ulysses_degree == 0
        assert option.plan.world == 6
        assert f"--ulysses-degree {option.plan.ulysses_degree}" in option.flags
        assert f"--ring-degree {option.plan.ring_degree}" in option.flags
    assert "--ulysses-degree 1" not in options(Request(vram=80), H100)[0].flags


@settings(max_examples=25, deadline=None)
@given(
    gpus=st.integers(1, 8),
    height=st.integers(4, 48),
    width=st.integers(4, 48),
    chunk=st.sampled_from([9, 13, 17, 33]),
)
def test_more_of_anything_costs_more(gpus: int, height: int, width: int, chunk: int) -> None:
    request = Request(gpus=gpus, vram=80, height=16 * height, width=16 * width, chunk_frames=chunk)
    here = options(request, H100)[0]
    larger = options(replace(request, height=request.height + 16), H100)[0]
    assert larger.times.chunk > here.times.chunk
    assert larger.memory.activations > here.memory.activations
    assert here.memory.total > here.memory.transformer
    faster = replace(H100, products=2 * H100.products)
    assert options(request, faster)[0].times.chunk < here.times.chunk


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "embedded"}, "fit anywhere"),
        ({"gpus": 0}, "gpus=0"),
        ({"height": 100}, "multiple of 16"),
        ({"chunk_frames": 20}, "chunk_frames=20"),
    ],
)
def test_questions_without_an_answer_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Request(**{"vram": 80, **wrong})  # type: ignore[arg-type]
    assert isinstance(caught.value, PlannerError) or "chunk_frames" in wrong


def test_times_are_counted_work_over_measured_rates() -> None:
    """Each part by itself, the other rates being without limit."""
    endless = replace(
        H100, products=1e30, attention=1e30, convolutions=1e30, memory=1e30, link=1e30
    )
    request = Request(vram=80)
    model = meta_model(request.config)
    inputs = meta_step(model, 9, (96, 56), 30)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        audio = model.prepare_audio(inputs[3], latent_size=(96, 56))
    with torch.no_grad(), FlopCounterMode(display=False) as step:
        run_step(model, inputs, audio, slots=2)
    counts = step.get_flop_counts()["Global"]
    attention = sum(n for op, n in counts.items() if "attention" in str(op))
    products = sum(counts.values()) - attention

    def seconds(**rates: float) -> float:
        return plain_with(request, replace(endless, **rates)).times.chunk

    # 100 TFLOP/s
    assert seconds(attention=100) == pytest.approx(4 * attention / 1e14, rel=1e-3)
    whole = 4 * products + once.get_total_flops()
    assert seconds(products=100) == pytest.approx(whole / 1e14, rel=1e-3)


def plain_with(request: Request, rates: CardRates) -> Option:
    """The one way to run it on one card with weights as they are."""
    (only,) = (o for o in options(request, rates) if o.weights == WeightMemory())
    return only


def test_measured_rates_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(asdict(CARDS["h200"])))
    assert read_rates(path) == CARDS["h200"]
    path.write_text(json.dumps({**asdict(CARDS["h200"]), "attention": 0}))
    with pytest.raises(RatesError, match="attention=0"):
        read_rates(path)
    path.write_text(json.dumps({"products": 1, "speed": 2}))
    with pytest.raises(RatesError, match=r"missing \['attention'.*unknown \['speed'\]"):
        read_rates(path)
    path.write_text("[]")
    with pytest.raises(RatesError, match="needs a JSON object"):
        read_rates(path)
    with pytest.raises(RatesError, match="h100"):
        card_rates("abacus")


def test_memory_is_a_sum_of_its_parts() -> None:
    memory = options(Request(gpus=4, vram=80), H100)[0].memory
    assert memory.reserve > GIB
    whole = sum(asdict(replace(memory, host=0, recorded=False)).values())
    assert memory.recorded  # as from four GPUs: neither a step nor a decode gives its memory back
    assert memory.total == whole
    alone = options(Request(gpus=1, vram=80), H100)[0].memory
    assert not alone.recorded
    whole = sum(asdict(replace(alone, host=0)).values())
    assert alone.total == whole - min(alone.audio + alone.activations, alone.decode)


def test_steps_are_recorded_only_where_there_is_room_for_it() -> None:
    def int8(vram: float) -> Option:
        found = options(Request(gpus=8, vram=vram), H100)
        return next(o for o in best_of_each(found) if o.weights.quantize == "int8")

    roomy = int8(80)
    assert "--recorded" in roomy.flags
    narrow = int8(roomy.memory.total / GIB - 0.5)
    assert narrow.fits
    assert "--recorded" not in narrow.flags
    assert not int8(narrow.memory.total / GIB - 0.5).fits


def test_offloading_is_exact_and_takes_as_little_as_will_do() -> None:
    request = Request(vram=48, avatars=1)
    found = options(request, H100)
    best = found[0]
    assert best.fits
    assert best.exact
    count = best.weights.offload
    assert 2 < count < 40
    assert f"--offload {count}" in best.flags
    assert not {"--compiled", "--recorded"} & set(best.flags)  # refused together
    # of the GPU's memory it saves all blocks that are away but the two places that they share
    block = best.memory.host / count
    (whole,) = plain(request)
    assert whole.memory.transformer - best.memory.transformer == pytest.approx((count - 2) * block)
    # one block more on the GPU would be too much
    assert best.memory.total + block > request.vram * GIB
    roomier = options(replace(request, vram=49), H100)[0]
    assert 0 < roomier.weights.offload < count


def test_a_slow_bus_is_waited_for_and_a_fast_one_is_not() -> None:
    request = Request(vram=40, avatars=1)
    slow = options(request, replace(H100, host_link=10))[0]
    fast = options(request, replace(H100, host_link=1000))[0]
    assert slow.weights.offload == fast.weights.offload > 0
    # what is left is the way of what must be there before the first block can compute
    assert fast.times.transfer < 0.02 * slow.times.transfer
    # every offloaded byte comes over the bus in each of four steps, while one block computes
    over_the_bus = 4 * slow.memory.host / 10e9
    assert 0.7 * over_the_bus < slow.times.transfer < over_the_bus + slow.memory.host / 10e9


def test_rounded_weights_are_named_beside_the_exact_ones() -> None:
    found = options(Request(vram=80), H100)
    by_name = {option.name: option for option in best_of_each(found)}
    assert list(by_name)[0] == "bfloat16"  # it fits, and comes before any that rounds
    assert set(by_name) == {"bfloat16", "int8", "fp8", "int8-dynamic", "fp8-dynamic"}
    half = by_name["int8"].memory.transformer / by_name["bfloat16"].memory.transformer
    assert 0.5 < half < 0.6  # the audio attention stays as it is
    assert by_name["int8"].times.chunk > by_name["bfloat16"].times.chunk
    quicker = faster_rounded(found)
    assert quicker is not None
    assert quicker.name.endswith("-dynamic")
    assert quicker.times.chunk < by_name["bfloat16"].times.chunk
    assert f"--quantize {quicker.name}" in quicker.flags
    # a card without eight-bit units, as far as the rates say
    without = options(Request(vram=80), replace(H100, products_8bit=None))
    assert faster_rounded(without) is None
    assert {option.name for option in without} == {"bfloat16", "int8", "fp8"}


def test_the_command_says_what_to_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "plan.json"
    plan(card="rtx-5090", avatars=1, json=report)
    said = capsys.readouterr().out
    assert "Best, as trained, not in real time" in said
    assert "--offload" in said
    first = json.loads(report.read_text())["options"][0]
    assert (first["fits"], first["name"].split()[0]) == (True, "offload")
    plan(gpus=8)
    said = capsys.readouterr().out
    # rank 0 starts the others and replaces them; under torchrun a loss would end all
    assert "visavis serve --processes 8 --model flashtalk-14b --weights FOLDER" in said
    assert "torchrun" not in said
    with pytest.raises(SystemExit) as ended:
        plan(vram=12)
    assert ended.value.code == 1
    assert "Nothing fits" in capsys.readouterr().out
