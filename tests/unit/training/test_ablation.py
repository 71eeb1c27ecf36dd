"""The ablation: prepared chunks, long roll-outs, figures, the table's bookkeeping."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.ablation.chunk_bank import ChunkBank, HeardChunks, chunks_in
from visavis.training.ablation.data import AblationData
from visavis.training.ablation.hand_over import ErringChunks, RecordedErrors
from visavis.training.ablation.measure import figures
from visavis.training.ablation.report import draw_picture, interval, markdown, read_records
from visavis.training.ablation.rows import BASE, ROWS, TEACHER, Row, slug
from visavis.training.ablation.sessions import Deployment, HeldSessions, recovery
from visavis.training.ablation.table import LONG_FOLDER, Table, jobs
from visavis.training.dit_data import FocusSpec, MotionWindows, PortraitBank, SpeechClips
from visavis.training.hearing import Hearing
from visavis.training.puppets.basis import WEIGHTS, control_weights
from visavis.training.recipes import MODELS, StudentRecipe, smoke_student
from visavis.training.rollout import hand_over

CHUNK = 9
HOW = Deployment(num_steps=1, errors=0.0)


def chunk_bank(*, held: bool = False) -> ChunkBank:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    lengths = (21, 40)
    clips = SpeechClips(
        features=rng.normal(size=(1, sum(lengths), 4, 64)).astype(np.float16),
        controls=rng.uniform(-0.5, 0.5, size=(sum(lengths), 15)).astype(np.float32),
        offsets=np.cumsum([0, *lengths]),
    )
    basis = torch.randn(3, len(WEIGHTS), 6, 16, 16)
    # Six controls move the head's flow alone, the others the two layers alone.
    basis[:, :-6, :2] = 0
    basis[:, -6:, 2:] = 0
    # The lower lip goes up the way it goes down.
    basis[:, WEIGHTS.index("lower_lip_up")] = -basis[:, WEIGHTS.index("lower_lip")]
    portraits = PortraitBank(
        basis=basis,
        rest=0.1 * torch.randn(3, 6, 16, 16),
        layout=torch.rand(3, 16, 16, 16),
        held=np.array([True, True, False]),
    )
    windows = MotionWindows(
        clips, portraits, control_weights, FocusSpec((0, 1)), Hearing(), held=held
    )
    return ChunkBank(windows, HeardChunks.hear(clips, Hearing(), CHUNK), CHUNK)


def small_model() -> FlashTalkDiT:
    torch.manual_seed(0)
    model = FlashTalkDiT(MODELS["smoke"], attention_impl="plain")
    torch.nn.init.normal_(model.head.projection.weight, std=0.05)
    return model


def nothing(x: Tensor, times: Tensor, *_: object, **__: object) -> Tensor:
    """The velocity of a network that always answers with the zero code."""
    return x / times.view(-1, 1, 1, 1, 1)


def test_prepared_chunks_sound_like_the_clip_itself() -> None:
    bank = chunk_bank()
    clips = bank.source.clips
    hearing = Hearing()
    for clip, begin, end in zip((0, 1), clips.offsets[:-1], clips.offsets[1:], strict=True):
        count = chunks_in(int(end - begin), CHUNK)
        rows = torch.arange(count)[None] + bank.heard.starts[clip]
        mel = hearing.rows(clips.features[0, begin:end], 0, 5 + 4 * count)[None]
        for chunk in range(count):
            heard = bank.hearing.chunk(rows, 4 * chunk, CHUNK)
            torch.testing.assert_close(heard, hearing.chunk(mel, 4 * chunk, CHUNK))
    assert bank.heard.starts == (0, 4, 12)


def test_prepared_chunks_refuse_what_is_off_the_grid() -> None:
    bank = chunk_bank()
    with pytest.raises(ValueError, match="multiples of 4"):
        bank.hearing.chunk(torch.zeros(1, 2, dtype=torch.int64), 3, CHUNK)
    with pytest.raises(ValueError, match="frames=12"):
        bank.draw_sequences(np.random.default_rng(0), 1, 12, from_portrait=True)
    with pytest.raises(ValueError, match="longest: 8"):
        bank.draw_sequences(np.random.default_rng(0), 1, 5 + 4 * 9, from_portrait=True)


def test_heard_chunks_are_kept_and_read_again(tmp_path: Path) -> None:
    clips = chunk_bank().source.clips
    first = HeardChunks.load(tmp_path / "heard.npz", clips, Hearing(), CHUNK)
    stamp = (tmp_path / "heard.npz").stat().st_mtime_ns
    again = HeardChunks.load(tmp_path / "heard.npz", clips, Hearing(), CHUNK)
    assert torch.equal(first.features, again.features)
    assert (tmp_path / "heard.npz").stat().st_mtime_ns == stamp
    # Chunks of another length are heard anew.
    other = HeardChunks.load(tmp_path / "heard.npz", clips, Hearing(), 13)
    assert other.features.shape[1] == 15


def test_sequences_and_windows_have_the_shapes_that_training_wants() -> None:
    bank = chunk_bank()
    sequences = bank.draw_sequences(np.random.default_rng(0), 2, 13, from_portrait=True)
    assert sequences.codes.shape == (2, 13, 6, 16, 16)
    assert not sequences.codes[:, 0].any()
    assert bank.hearing.chunk(sequences.mel, 4, CHUNK).shape == (2, CHUNK, 5, 4, 64)
    batch = bank.draw(np.random.default_rng(0), 3, CHUNK)
    assert batch.latents.shape == (3, 24, 3, 16, 16)
    assert batch.audio.shape == (3, CHUNK, 5, 4, 64)


def recorded_errors(people: int = 4) -> RecordedErrors:
    generator = torch.Generator().manual_seed(5)
    return RecordedErrors(0.05 * torch.randn(people, 3, 5, 6, 16, 16, generator=generator))


def sessions(count: int = 2) -> HeldSessions:
    return HeldSessions.draw(chunk_bank(held=True), recorded_errors(), count)


def test_a_hand_over_errs_as_its_person_was_recorded_to() -> None:
    errors = recorded_errors()
    latents = pack_codes(torch.randn(3, CHUNK, 6, 16, 16))
    people = torch.tensor([1, 5, 2])  # the second is the first: there are four
    generator = torch.Generator().manual_seed(0)
    handed = errors.hand_over(latents, people, generator, scale=2.0)
    added = (unpack_codes(handed) - unpack_codes(hand_over(latents))) / 2
    for sample, person in enumerate((1, 1, 2)):
        gaps = (errors.errors[person] - added[sample]).abs().amax(dim=(1, 2, 3, 4))
        assert float(gaps.min()) < 1e-5
    assert torch.equal(errors.hand_over(latents, people, generator, scale=0.0), hand_over(latents))


def test_people_of_training_are_not_measured_with() -> None:
    train, held = recorded_errors(5).split()
    assert (len(train.errors), len(held.errors)) == (3, 2)
    assert not any(torch.equal(a, b) for a in train.errors for b in held.errors)


def test_errors_that_were_not_recorded_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hand_over_error --portraits PORTRAITS --save"):
        RecordedErrors.load(tmp_path / "none.npz")


def test_training_errs_where_it_goes_through_its_own_chunks() -> None:
    bank, generator = chunk_bank(), torch.Generator()
    latents = pack_codes(torch.zeros(2, CHUNK, 6, 16, 16))
    for scale in (0.0, 1.0):
        chunks = ErringChunks(bank, recorded_errors(), scale)
        scene = chunks.draw_scene(np.random.default_rng(0), 2, 2, from_portrait=True)
        handed = scene.hand_over(latents, generator)
        assert (float(handed.abs().max()) > 0) == (scale > 0)


def test_a_roll_out_in_two_parts_is_that_in_one() -> None:
    held, model = sessions(), small_model()
    one, _ = held.run(
        model, HOW, held.initial_motion(), torch.Generator().manual_seed(1), first=0, chunks=3
    )
    generator = torch.Generator().manual_seed(1)
    start, motion = held.run(model, HOW, held.initial_motion(), generator, first=0, chunks=1)
    rest, _ = held.run(model, HOW, motion, generator, first=1, chunks=2)
    assert torch.equal(one, torch.cat([start, rest], dim=1))
    assert held.truth(3).shape == one.shape


def test_the_recorded_motion_has_perfect_figures() -> None:
    held = sessions()
    found = figures(held.truth(12), held, 12, {})
    assert found.sync == pytest.approx(1.0, abs=1e-4)
    assert (found.lips, found.head, found.lids) == pytest.approx((1, 1, 1), abs=1e-4)
    assert max(found.stray) < 0.05
    assert found.collapse == 0
    assert max(found.drift) < 0.6


def test_drift_stray_and_collapse_see_what_they_are_named_after() -> None:
    held = sessions()
    truth = held.truth(12)
    fine = figures(truth, held, 12, {})
    basis = held.bank.source.bank.basis[held.portraits, -1]
    drifted = truth.clone()
    drifted[:, -20:] += 3 * basis[:, None]  # the head has come nearer by three units
    found = figures(drifted, held, 12, {})
    assert found.drift[2] > fine.drift[2] + 1
    assert found.drift[0] == pytest.approx(fine.drift[0], abs=0.5)
    assert found.camera > fine.camera + 1
    assert found.collapse == 1
    assert found.stray == pytest.approx(fine.stray, abs=0.05)

    dirty = truth.clone()
    dirty[:, -20:] += truth.std() * torch.randn(dirty[:, -20:].shape)
    assert figures(dirty, held, 12, {}).stray[2] > 0.5

    still = truth.clone()
    still[:, -20:] = truth[:, -20:-19]
    assert figures(still, held, 12, {}).collapse == 1


def test_who_remembers_nothing_recovers_at_once_and_who_copies_never() -> None:
    held = sessions()
    forgotten = recovery(held, nothing, HOW, 0, settle=1)
    assert set(forgotten) == {"noise", "shift", "blur", "gain"}
    # The zero code has nothing that blur or gain could disturb.
    assert forgotten["shift"] == [0, 0, 0, 0]

    def copies(x: Tensor, times: Tensor, *_: object, **__: object) -> Tensor:
        last = unpack_codes(x)[:, 4:5].expand(-1, CHUNK, -1, -1, -1)
        return (x - pack_codes(last)) / times.view(-1, 1, 1, 1, 1)

    assert recovery(held, copies, HOW, 0, settle=1)["shift"] == pytest.approx([1] * 4, abs=1e-5)


def test_every_row_names_a_recipe_and_titles_do_not_clash() -> None:
    titles = [title for row in ROWS for title in (row.title, *row.also)]
    assert len({slug(title) for title in titles}) == len(titles)
    assert all(isinstance(row.recipe(1), StudentRecipe) for row in ROWS)
    assert len({json.dumps(sorted(map(str, row.changes.items()))) for row in ROWS if row.trained})
    # What is sampled in another way than it was trained is a row of its own.
    for row in ROWS:
        if row.trained:
            recipe = row.recipe(1)
            assert (recipe.num_steps, recipe.sampler) == (row.how.num_steps, row.how.sampler)
    order = [(len(row.seeds) == 1, seed) for row, seed in jobs()]
    assert order == sorted(order)


class TinyRow(Row):
    """The base of a model small enough for a test."""

    def recipe(self, seed: int) -> StudentRecipe:
        return replace(smoke_student(), chunk_frames=CHUNK, num_steps=1, seed=seed, bf16=False)


def tiny_table(folder: Path) -> Table:
    data = AblationData(chunk_bank(), chunk_bank(held=True), recorded_errors(), recorded_errors())
    return Table(folder, data, small_model(), evaluations=40, sessions=2, chunks=5, long_chunks=15)


def test_a_row_is_made_once_and_a_dead_claim_does_not_stop_it(tmp_path: Path) -> None:
    table = tiny_table(tmp_path)
    row = TinyRow(title=BASE, how=HOW, also={"again": HOW})
    claim = table.path(BASE, 1).with_suffix(".claim")
    claim.write_text("1")  # the first process of all is alive
    assert not table.make(row, 1)
    claim.write_text("999999999")
    assert table.make(row, 1)
    assert not table.make(row, 1)
    record = json.loads(table.path(BASE, 1).read_text())
    assert 0 < record["training"]["evaluations"] <= 40
    assert record["training"]["rounds"] >= 2
    assert json.loads(table.path("again", 1).read_text())["figures"] == record["figures"]
    assert not list(tmp_path.glob("*.claim"))


def test_the_report_has_a_line_a_title_and_a_picture(tmp_path: Path) -> None:
    table = tiny_table(tmp_path)
    row = TinyRow(title=BASE, how=HOW, trained=False, long=(1,))
    for seed in (1, 2, 3):
        table.make(row, seed)
    records, long = read_records(tmp_path), read_records(tmp_path / LONG_FOLDER)
    assert long[BASE].curve("drift_curve").shape == (1, 3)  # one seed, 15 chunks by fives
    assert len(markdown(records, long).splitlines()) == 11
    lines = markdown(records).splitlines()
    assert len(lines) == 7
    assert lines[2].startswith(f"| {BASE} | 3 | 0 | ")
    assert "±" in lines[2]
    for part in (lines[:3], lines[4:]):
        assert len({line.count("|") for line in part}) == 1
    with pytest.raises(FileNotFoundError, match="visavis train ablation rows"):
        read_records(tmp_path / "none")


def test_the_picture_names_its_panels_and_has_one_legend_under_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_table(tmp_path)
    table.make(TinyRow(title=BASE, how=HOW, trained=False, long=(1,)), 1)
    table.make(TinyRow(title=TEACHER, how=HOW, trained=False), 1)
    kept: list[Figure] = []
    monkeypatch.setattr("matplotlib.pyplot.close", kept.append)
    long = read_records(tmp_path / LONG_FOLDER)
    draw_picture(read_records(tmp_path), tmp_path / "picture.png", long)
    assert (tmp_path / "picture.png").stat().st_size > 5000
    (figure,) = kept
    assert all(axes.get_title() for axes in figure.axes)
    assert all(axes.get_legend() is None for axes in figure.axes)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [f"{TEACHER} (Euler)", BASE]
    lowest = min(axes.get_window_extent().y0 for axes in figure.axes)
    assert legend.get_window_extent().y1 < lowest


def test_an_interval_needs_three_seeds_and_is_students() -> None:
    assert interval(np.array([1.0, 2.0])) == "1.50"
    assert interval(np.array([1.0, 2.0, 3.0])) == "2.00 ± 2.48"
    assert slug("K = 1") == "k-1"
