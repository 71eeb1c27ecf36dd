"""The whole picture in the 14B model's frame."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.image import ImageError
from visavis.engine.face.picture import frame_picture
from visavis.engine.image import fit_image

PICTURE = Path(__file__).parents[3] / "clients" / "web" / "public" / "avatars" / "clara.jpg"
SIZE = (192, 112)


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return FaceLandmarker()


def test_the_picture_covers_the_frame_as_the_original_fits_it(landmarker: FaceLandmarker) -> None:
    portrait = frame_picture(PICTURE, SIZE, landmarker=landmarker)
    assert portrait.image.shape == (*SIZE, 3)
    fitted = fit_image(Image.open(PICTURE), SIZE)
    np.testing.assert_array_equal(portrait.image, fitted.permute(1, 2, 0).numpy())
    # the frame fits into itself unchanged, so that the codec may fit it again
    again = fit_image(Image.fromarray(portrait.image), SIZE)
    assert torch.equal(again, fitted)


def test_landmarks_follow_the_picture(landmarker: FaceLandmarker) -> None:
    large = (768, 448)
    portrait = frame_picture(PICTURE, large, landmarker=landmarker)
    found = landmarker.detect(portrait.image)[0].landmarks
    assert np.linalg.norm(found - portrait.landmarks, axis=1).mean() < 10
    assert portrait.face_count == 1


def test_a_face_at_the_edge_earns_a_warning(landmarker: FaceLandmarker) -> None:
    clara = Image.open(PICTURE)
    wide = Image.new("RGB", (3 * clara.width, clara.height), "gray")
    wide.paste(clara, (0, 0))
    (warning,) = frame_picture(wide, SIZE, landmarker=landmarker).warnings
    assert "leaves the frame" in warning


def test_no_face_is_a_warning_and_no_error(landmarker: FaceLandmarker) -> None:
    portrait = frame_picture(Image.new("RGB", (200, 100), "olive"), SIZE, landmarker=landmarker)
    assert portrait.face_count == 0
    assert portrait.landmarks.shape == (0, 2)
    assert "No face" in portrait.warnings[0]


def test_no_picture_is_an_error(landmarker: FaceLandmarker) -> None:
    with pytest.raises(ImageError):
        frame_picture(b"none", SIZE, landmarker=landmarker)
