"""A portrait as the released 14B model takes it: the whole picture, cut to the frame's shape."""

from __future__ import annotations

import numpy as np
from PIL import Image

from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait
from visavis.engine.face.image import ImageSource, load_image
from visavis.engine.face.warp import Points
from visavis.engine.image import cover_size, fit_image

CLIPPED = 0.9  # of a face's points that must lie inside the frame


def frame_picture(
    source: ImageSource,
    size: tuple[int, int],
    *,
    landmarker: FaceLandmarker | None = None,
) -> Portrait:
    """Scale a picture until it covers `size` (height, width) and cut out its centre.

    No face is needed, since the model moves whatever the picture shows; what a user would not
    expect becomes a warning. The portrait's `image` is uint8 [height, width, 3], its `landmarks`
    are the largest face's in these pixels, or [0, 2] without a face.

    Raises:
        ImageError: the picture cannot be read.
    """
    image = load_image(source)
    fitted = fit_image(Image.fromarray(image), size).permute(1, 2, 0).numpy()
    faces = (landmarker or FaceLandmarker()).detect(image)
    if not faces:
        warning = "No face was found; the result may not talk. Use a picture that shows one face."
        return Portrait(fitted, np.zeros((0, 2), np.float32), (warning,), 0)
    found = []
    if len(faces) > 1:
        found.append(f"{len(faces)} faces were found; any of them may move.")
    points = _in_frame(faces[0].landmarks, (image.shape[0], image.shape[1]), size)
    inside = np.all((points >= 0) & (points <= (size[1], size[0])), axis=1).mean()
    if inside < CLIPPED:
        found.append(
            f"The face leaves the frame, which is the picture's centre at {size[1]}x{size[0]}; "
            "crop the picture around the face first."
        )
    return Portrait(fitted, points, tuple(found), len(faces))


def _in_frame(points: Points, picture: tuple[int, int], size: tuple[int, int]) -> Points:
    """Points of the picture (height, width) in the frame's pixels, as `fit_image` moves them."""
    height, width = cover_size(picture[0], picture[1], size)
    scale = np.array([width / picture[1], height / picture[0]])
    offset = np.array([round((width - size[1]) / 2.0), round((height - size[0]) / 2.0)])
    moved: Points = (points * scale - offset).astype(np.float32)
    return moved
