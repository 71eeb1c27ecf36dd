"""The canonical frame, and reading pictures of every kind."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from visavis.engine.face import mesh
from visavis.engine.face.detector import Face, FaceLandmarker
from visavis.engine.face.framing import (
    CropJitter,
    FaceTooSmallError,
    NoFaceError,
    canonical_square,
    frame_face,
    frame_portrait,
)
from visavis.engine.face.image import ImageError, load_image
from visavis.engine.face.warp import Square, cut

GALLERY = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars"
PICTURE = GALLERY / "clara.jpg"


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return FaceLandmarker()


@pytest.fixture(scope="module")
def clara(landmarker: FaceLandmarker) -> Face:
    return landmarker.detect(load_image(PICTURE))[0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def eye_line(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vector from outer corner to outer corner, and the mean of the four corners."""
    left, right = landmarks[list(mesh.OUTER_EYE_CORNERS)].astype(float)
    corners = landmarks[list(mesh.EYE_CORNERS_LEFT + mesh.EYE_CORNERS_RIGHT)]
    return right - left, corners.astype(float).mean(axis=0)


# --- frame ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 320])
def test_eyes_lie_where_the_frame_wants_them(landmarker: FaceLandmarker, size: int) -> None:
    portrait = frame_portrait(PICTURE, size, landmarker=landmarker)
    across, middle = eye_line(portrait.landmarks)
    assert portrait.image.shape == (size, size, 3)
    assert portrait.image.dtype == np.uint8
    assert portrait.landmarks.dtype == np.float32
    assert np.hypot(*across) == pytest.approx(0.32 * size, rel=1e-4)
    assert middle == pytest.approx([0.5 * size, 0.42 * size], abs=0.05)
    assert portrait.warnings == ()


def test_landmarks_fit_the_framed_pixels(landmarker: FaceLandmarker) -> None:
    """A second look at the framed picture finds the face where the transform says it is."""
    portrait = frame_portrait(PICTURE, landmarker=landmarker)
    again = landmarker.detect(portrait.image)[0].landmarks
    error = np.linalg.norm(again - portrait.landmarks, axis=1).mean()
    assert error < 0.02 * 0.32 * 256


@pytest.mark.parametrize("degrees", [-30, 25])
def test_a_tilted_head_is_set_upright(landmarker: FaceLandmarker, degrees: int) -> None:
    tilted = Image.open(PICTURE).rotate(degrees, expand=True, fillcolor=(128, 128, 128))
    across, _ = eye_line(frame_portrait(tilted, landmarker=landmarker).landmarks)
    assert abs(math.degrees(math.atan2(across[1], across[0]))) < 0.5


def test_a_slight_tilt_stays(landmarker: FaceLandmarker) -> None:
    tilted = Image.open(PICTURE).rotate(8, fillcolor=(128, 128, 128))
    across, _ = eye_line(frame_portrait(tilted, landmarker=landmarker).landmarks)
    assert 4 < -math.degrees(math.atan2(across[1], across[0])) < 12


def test_a_picture_smaller_than_the_frame_is_continued_softly(clara: Face) -> None:
    image = load_image(PICTURE)
    left, top, right, bottom = (int(v) for v in clara.box)
    tight = image[top - 20 : bottom + 20, left - 5 : right + 5]
    face = Face(clara.box, clara.landmarks - np.float32([left - 5, top - 20]), 1.0)
    framed = frame_face(tight, face).image.astype(int)
    assert framed[:, :4].std() > 1  # not a flat colour
    assert not np.any(np.all(framed == 0, axis=2))
    # Far outside nothing is left of hair or eyes: neighbouring pixels hardly differ.
    assert np.abs(np.diff(framed[:, :24], axis=1)).max() <= 12


@settings(max_examples=25, deadline=None)
@given(
    dx=st.floats(-0.1, 0.1),
    dy=st.floats(-0.1, 0.1),
    scale=st.floats(0.8, 1.25),
    angle=st.floats(-0.2, 0.2),
)
def test_jitter_moves_the_face_as_its_fields_say(
    dx: float, dy: float, scale: float, angle: float
) -> None:
    landmarks = np.random.default_rng(0).uniform(100, 300, (468, 2)).astype(np.float32)
    landmarks[[33, 133, 362, 263]] = [[150, 200], [180, 200], [220, 200], [250, 200]]
    square = canonical_square(landmarks, CropJitter(dx=dx, dy=dy, scale=scale, angle=angle))
    across, middle = eye_line(square.from_picture(landmarks, 256))
    assert np.hypot(*across) == pytest.approx(0.32 * 256 * scale, rel=1e-4)
    assert math.atan2(across[1], across[0]) == pytest.approx(angle, abs=1e-4)
    assert middle == pytest.approx([(0.5 + dx) * 256, (0.42 + dy) * 256], abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(20, 400), st.floats(-3, 3))
def test_square_coordinates_go_there_and_back(x: float, y: float, side: float, a: float) -> None:
    square = Square(x, y, side, a)
    points = np.random.default_rng(1).uniform(0, 256, (20, 2)).astype(np.float32)
    assert square.from_picture(square.to_picture(points, 256), 256) == pytest.approx(
        points, abs=0.01
    )


def test_cutting_the_whole_picture_changes_nothing() -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut(image, Square(32, 32, 64), 64), image)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_cut_puts_a_dot_where_the_square_says(factor: float) -> None:
    """The averaging of large squares must not shift the picture."""
    side = round(240 * factor)
    y, x = np.mgrid[:side, :side] + 0.5
    centre = np.array([0.63 * side, 0.41 * side])
    dot = 255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * (8 * factor) ** 2))
    image = np.repeat(dot[..., None], 3, axis=2).astype(np.uint8)
    square = Square(0.55 * side, 0.5 * side, 0.7 * side, 0.3)
    small = cut(image, square, 120)[..., 0].astype(float)
    v, u = np.mgrid[:120, :120] + 0.5
    found = np.array([(small * u).sum(), (small * v).sum()]) / small.sum()
    expected = square.from_picture(centre[None].astype(np.float32), 120)[0]
    assert found == pytest.approx(expected, abs=0.1)


# --- trouble with faces --------------------------------------------------------------------------


def test_no_face_is_an_error_with_a_remedy(landmarker: FaceLandmarker) -> None:
    with pytest.raises(NoFaceError, match="use a photograph or drawing"):
        frame_portrait(Image.new("RGB", (160, 160), "olive"), landmarker=landmarker)


def test_several_faces_give_the_largest_and_a_warning(landmarker: FaceLandmarker) -> None:
    group = Image.new("RGB", (800, 512), (128, 128, 128))
    group.paste(Image.open(GALLERY / "samuel.jpg").resize((256, 256)), (20, 128))
    group.paste(Image.open(PICTURE), (288, 0))
    portrait = frame_portrait(group, landmarker=landmarker)
    alone = frame_portrait(PICTURE, landmarker=landmarker)
    assert portrait.face_count == 2
    assert any("2 faces" in warning for warning in portrait.warnings)
    assert np.abs(portrait.landmarks - alone.landmarks).mean() < 2


def test_small_faces_warn_and_tiny_ones_are_refused(landmarker: FaceLandmarker) -> None:
    small = frame_portrait(Image.open(PICTURE).resize((160, 160)), landmarker=landmarker)
    assert any("pixels high" in warning for warning in small.warnings)
    tiny = Image.new("RGB", (200, 200), (128, 128, 128))
    tiny.paste(Image.open(PICTURE).resize((56, 56), Image.Resampling.LANCZOS), (70, 70))
    with pytest.raises(FaceTooSmallError, match="use a larger picture"):
        frame_portrait(tiny, landmarker=landmarker)


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(
        np.random.default_rng(3).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    ).resize((120, 80), Image.Resampling.BICUBIC)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        load_image(encoded(stored, "PNG", exif=exif)), np.asarray(upright)
    )


def test_transparent_pixels_lie_on_grey() -> None:
    layer = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    layer.paste((255, 0, 0, 255), (0, 0, 40, 80))
    for picture in (encoded(layer, "PNG"), encoded(layer, "WEBP", lossless=True)):
        pixels = load_image(picture)
        assert pixels[0, 0].tolist() == [255, 0, 0]
        assert pixels[0, 79].tolist() == [128, 128, 128]
    assert load_image(np.asarray(layer))[0, 79].tolist() == [128, 128, 128]


def test_unusual_modes_become_rgb() -> None:
    ramp = np.linspace(0, 1, 80 * 80).reshape(80, 80)
    deep = Image.fromarray((ramp * 65535).astype(np.uint16))
    grey = (ramp * 255).round()
    for image, kind in (
        (deep, "PNG"),
        (deep, "TIFF"),
        (Image.fromarray(ramp.astype(np.float32)), "TIFF"),
        (Image.fromarray(grey.astype(np.uint8)), "PNG"),
        (Image.fromarray(grey.astype(np.uint8)).convert("CMYK"), "TIFF"),
        (Image.fromarray(grey.astype(np.uint8)).convert("P"), "GIF"),
    ):
        pixels = load_image(encoded(image, kind))
        assert pixels.shape == (80, 80, 3)
        assert np.abs(pixels.astype(int) - grey[..., None]).max() <= 2, (image.mode, kind)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (70, 70), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(gif)[35, 35].tolist() == [255, 0, 0]


def huge_png(width: int, height: int) -> bytes:
    """A valid header that claims many pixels, with hardly any data."""

    def part(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_bad_pictures_are_refused_with_a_remedy(tmp_path: Path) -> None:
    good = PICTURE.read_bytes()
    cases: list[tuple[object, str]] = [
        (b"", "empty"),
        (b"hello, this is no picture", "save it as JPEG"),
        (good[: len(good) // 3], "damaged"),
        (huge_png(9_000, 9_000), "make it smaller"),
        (huge_png(60_000, 60_000), "make it smaller"),
        (encoded(Image.new("RGB", (40, 200)), "PNG"), "at least 64"),
        (tmp_path / "missing.jpg", "no such file"),
        (tmp_path, "no such file"),
        (np.zeros((100, 100), np.uint8), "uint8"),
    ]
    for source, words in cases:
        with pytest.raises(ImageError, match=words):
            load_image(source)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["", "jpeg", "png"]))
def test_any_bytes_are_a_picture_or_an_image_error(tail: bytes, kind: str) -> None:
    start = {"": b"", "jpeg": b"\xff\xd8\xff\xe0", "png": b"\x89PNG\r\n\x1a\n"}[kind]
    with contextlib.suppress(ImageError):
        assert load_image(start + tail).ndim == 3
