"""Make the web page's avatars: `python scripts/make_gallery.py PORTRAITS OUTPUT`.

A person of our own making has the hair and surroundings of one portrait, the eyes of a second
and the nose and mouth of a third, on a face whose shape is the mean of the three. All three are
warped to that shape along the face mesh, the two inner parts take the outer portrait's light
(their low frequencies are replaced), and Laplacian pyramids hide the joins. Only one portrait
shows in any place, so that nothing is doubled. None of the portraits is copied to the output.

Needs, beside visavis: dicebear-core, dicebear-styles, cairosvg (with libcairo) and the picture file
in scikit-image (`pip install --no-deps scikit-image`).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import cairosvg
import cv2
import dicebear
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visavis.engine.face import mesh
from visavis.engine.face.detector import FaceLandmarker
from visavis.engine.face.framing import Portrait, frame_portrait

SIZE = 512
MAX_BYTES = 60_000
HELD_OUT = Path(__file__).parent.parent / "training" / "puppets" / "held_out.json"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A person: portraits (file stems) that give the surroundings, the eyes and the mouth."""

    id: str
    name: str
    outer: str
    eyes: str
    mouth: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of index.json."""

    id: str
    name: str
    file: str
    licence: str
    source: str


PEOPLE = (
    Recipe("clara", "Clara", "female-86", "female-89", "female-49"),
    Recipe("amara", "Amara", "female-60", "female-10", "female-44"),
    Recipe("lucia", "Lucía", "female-47", "female-72", "female-1"),
    Recipe("mei", "Mei", "female-53", "female-18", "female-51"),
    Recipe("ruth", "Ruth", "female-15", "female-78", "female-75"),
    Recipe("jun", "Jun", "male-12", "male-10", "male-45"),
    Recipe("samuel", "Samuel", "male-0", "male-61", "male-30"),
    Recipe("leo", "Leo", "male-9", "male-74", "male-32"),
    Recipe("henri", "Henri", "male-17", "male-65", "male-56"),
    Recipe("arjun", "Arjun", "male-75", "male-43", "male-45"),
)


# Drawings in the style "Lorelei" by Lisa Wischofsky (CC0). Most of its heads are turned too far or
# have a mouth beside which the landmarks fall; these were looked at.
# Keys are options of DiceBear's style.
DRAWINGS = (
    {
        "id": "nori",
        "name": "Nori",
        "backgroundColor": "fde2d6",
        "skinColor": "ecad80",
        "hairColor": "5a3320",
        "hairVariant": "variant33",
        "eyesVariant": "variant02",
        "mouthVariant": "happy03",
        "eyebrowsVariant": "variant10",
        "noseVariant": "variant03",
    },
)
MORPH_SOURCE = "morph of three AI-generated portraits of faker-js/assets-person-portrait (CC0-1.0)"
NO_EXTRAS = ("glasses", "beard", "earrings", "hairAccessories", "freckles")


def delaunay(points: Floats) -> NDArray[np.int32]:
    """Triangles [M, 3] over points [N, 2] that lie inside the frame."""
    plane = cv2.Subdiv2D((-SIZE, -SIZE, 3 * SIZE, 3 * SIZE))
    index = {}
    for k, (x, y) in enumerate(points.tolist()):
        plane.insert((x, y))
        index[(np.float32(x), np.float32(y))] = k
    corners = plane.getTriangleList().reshape(-1, 3, 2)
    rows = [[index.get((c[0], c[1])) for c in triangle] for triangle in corners]
    return np.array([row for row in rows if None not in row], dtype=np.int32)


def warp_to(image: NDArray[np.uint8], source: Floats, target: Floats) -> NDArray[np.uint8]:
    """Move points `source` of an image to `target`, piecewise affine over target's triangles.

    The sampling map is smoothed a little so that no triangle's edge shows as a crease.
    """
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).astype(np.float32)
    sampling = grid.copy()
    for triangle in delaunay(target):
        matrix = cv2.getAffineTransform(target[triangle], source[triangle])
        mask = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillConvexPoly(mask, np.round(target[triangle] * 16).astype(np.int32), 1, shift=4)
        inside = mask > 0
        sampling[inside] = grid[inside] @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2]
    offset = cv2.GaussianBlur(sampling - grid, (0, 0), 3)
    sampling = grid + offset
    moved = cv2.remap(image, sampling, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, dtype=np.uint8)


def with_frame(points: Floats) -> Floats:
    """Landmarks and points on a ring and on the frame's border that stay where they are."""
    steps = np.linspace(0, SIZE - 1, 9)
    low, high = np.zeros(9), np.full(9, SIZE - 1)
    border = np.concatenate(
        [np.stack(pair, 1) for pair in ((steps, low), (steps, high), (low, steps), (high, steps))]
    )
    border = np.unique(border, axis=0).astype(np.float32)
    return np.concatenate([points, border])


def mean_shape(portraits: list[Portrait]) -> Floats:
    """Mean landmarks, of which the face's outline leans towards the first portrait's."""
    points = np.stack([p.landmarks for p in portraits])
    base, mean = points[0], points.mean(axis=0)
    oval = base[list(mesh.FACE_OVAL)]
    # 1 in the middle of the face, 0 at its outline: hair and ears keep their place.
    distance = np.array([cv2.pointPolygonTest(oval, (float(x), float(y)), True) for x, y in base])
    weight = np.clip(distance / (0.12 * SIZE), 0.35, 1)[:, None]
    return (base + weight * (mean - base)).astype(np.float32)


def region(points: Floats, outline: list[int], grow: float, feather: float) -> Floats:
    """A soft mask [S, S, 1]: the convex hull of landmarks, grown and feathered in pixels."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    hull = cv2.convexHull(points[outline])
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 1.0)
    reach = round(abs(grow))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    mask = cv2.dilate(mask, kernel) if grow > 0 else cv2.erode(mask, kernel)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), feather), dtype=np.float32)[..., None]


def relight(inner: Floats, outer: Floats, inside: Floats, sigma: float) -> Floats:
    """Give `inner` the shading and the mean colour of `outer`, both seen only inside the face.

    The shading is one factor for all channels: a factor per channel would tint dark brows.
    """

    def shading(image: Floats) -> Floats:
        luma = image.mean(axis=2, keepdims=True) * inside
        weight = cv2.GaussianBlur(inside[..., 0], (0, 0), sigma) + 1e-3
        return np.asarray(cv2.GaussianBlur(luma[..., 0], (0, 0), sigma) / weight, np.float32)

    ratio = np.clip((shading(outer) + 4) / (shading(inner) + 4), 0.6, 1.6)[..., None]
    shaded = np.clip(inner * ratio, 0, 255).astype(np.float32)
    lab = [cv2.cvtColor(image / 255, cv2.COLOR_RGB2LAB) for image in (outer, shaded)]
    means = [(image * inside).sum(axis=(0, 1)) / inside.sum() for image in lab]
    # Not all of the difference: a full shift turns the whites of the eyes.
    lab[1][..., 1:] += 0.6 * (means[0] - means[1])[1:]
    return np.asarray(cv2.cvtColor(lab[1], cv2.COLOR_LAB2RGB) * 255, dtype=np.float32)


def pyramid_blend(outer: Floats, inner: Floats, mask: Floats, levels: int = 5) -> Floats:
    """Burt and Adelson's multiresolution spline: each frequency is joined over its own width."""
    stack = []
    for _ in range(levels):
        small = [cv2.pyrDown(image) for image in (outer, inner)]
        details = [
            image - cv2.pyrUp(less, dstsize=image.shape[1::-1])
            for image, less in zip((outer, inner), small, strict=True)
        ]
        weight = mask if mask.ndim == 3 else mask[..., None]
        stack.append(details[0] + weight * (details[1] - details[0]))
        outer, inner = small
        mask = cv2.pyrDown(mask)
    weight = mask if mask.ndim == 3 else mask[..., None]
    result = outer + weight * (inner - outer)
    for detail in reversed(stack):
        result = cv2.pyrUp(result, dstsize=detail.shape[1::-1]) + detail
    return np.asarray(result, dtype=np.float32)


def make_person(recipe: Recipe, folder: Path, landmarker: FaceLandmarker) -> NDArray[np.uint8]:
    """A person's picture, uint8 RGB [512, 512, 3]."""
    portraits = [
        frame_portrait(folder / f"{stem}.jpg", SIZE, landmarker=landmarker)
        for stem in (recipe.outer, recipe.eyes, recipe.mouth)
    ]
    shape = mean_shape(portraits)
    target = with_frame(shape)
    outer, eyes, mouth = (
        warp_to(p.image, with_frame(p.landmarks), target).astype(np.float32) for p in portraits
    )
    skin = region(shape, list(mesh.FACE_OVAL), -0.03 * SIZE, 0.02 * SIZE)
    eyes = relight(eyes, outer, skin, 0.06 * SIZE)
    mouth = relight(mouth, outer, skin, 0.06 * SIZE)
    brows = mesh.BROW_LEFT_UPPER + mesh.BROW_RIGHT_UPPER
    lids = mesh.EYE_LEFT_LOWER + mesh.EYE_RIGHT_LOWER
    eye_mask = region(shape, [*brows, *lids, *mesh.BROW_LEFT_LOWER, *mesh.BROW_RIGHT_LOWER], 14, 6)
    mouth_mask = region(
        shape, [*mesh.LIP_OUTER_UPPER, *mesh.LIP_OUTER_LOWER, *mesh.NOSE_BASE, 197], 18, 7
    )
    inside = region(shape, list(mesh.FACE_OVAL), -12, 5)
    eye_mask, mouth_mask = eye_mask * inside, mouth_mask * inside
    blended = pyramid_blend(outer, mouth, mouth_mask)
    blended = pyramid_blend(blended, eyes, np.maximum(eye_mask - mouth_mask, 0))
    return np.clip(blended.round(), 0, 255).astype(np.uint8)


def encode(image: NDArray[np.uint8]) -> bytes:
    """JPEG of at most MAX_BYTES, of the best quality that fits."""
    for quality in range(92, 40, -2):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= MAX_BYTES:
            break
    return stream.getvalue()


def add_astronaut(folder: Path, landmarker: FaceLandmarker) -> Entry:
    """NASA's public-domain portrait of Eileen Collins, as scikit-image ships it."""
    package = importlib.util.find_spec("skimage")  # only its file is wanted, not its import
    if package is None or package.origin is None:
        raise SystemExit(
            "the astronaut comes with scikit-image: pip install --no-deps scikit-image"
        )
    picture = Path(package.origin).parent / "data" / "astronaut.png"
    portrait = frame_portrait(picture, SIZE, landmarker=landmarker)
    (folder / "astronaut.jpg").write_bytes(encode(portrait.image))
    return Entry(
        "astronaut", "Astronaut", "astronaut.jpg", "public domain", "NASA, by scikit-image"
    )


def add_drawings(folder: Path, landmarker: FaceLandmarker) -> list[Entry]:
    """Drawn heads, framed like the photographs."""
    definition = resources.files("dicebear_styles").joinpath("lorelei.json").read_text("utf-8")
    style = dicebear.Style(json.loads(definition))
    entries = []
    for drawing in DRAWINGS:
        options: dict[str, object] = {f"{extra}Probability": 0 for extra in NO_EXTRAS}
        options |= {"seed": drawing["id"], "size": 2 * SIZE, "headVariant": "variant01"}
        for key, value in drawing.items():
            if key not in ("id", "name"):
                options[key] = [value] if key.endswith("Color") else value
        svg = dicebear.Avatar(style, options).to_string()
        picture = cairosvg.svg2png(svg.encode(), output_width=2 * SIZE)
        portrait = frame_portrait(picture, SIZE, landmarker=landmarker)
        file = f"{drawing['id']}.jpg"
        (folder / file).write_bytes(encode(portrait.image))
        source = "Lorelei by Lisa Wischofsky, drawn by DiceBear"
        entries.append(Entry(drawing["id"], drawing["name"], file, "CC0-1.0", source))
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("portraits", type=Path, help="folder with female-N.jpg and male-N.jpg")
    parser.add_argument("output", type=Path, help="folder for the pictures and index.json")
    arguments = parser.parse_args()
    held_out = set(json.loads(HELD_OUT.read_text()))
    landmarker = FaceLandmarker()
    arguments.output.mkdir(parents=True, exist_ok=True)
    entries = []
    for recipe in PEOPLE:
        if used := held_out & {recipe.outer, recipe.eyes, recipe.mouth}:
            raise SystemExit(f"{recipe.id} uses held-out portraits: {sorted(used)}")
        image = make_person(recipe, arguments.portraits, landmarker)
        (arguments.output / f"{recipe.id}.jpg").write_bytes(encode(image))
        entries.append(Entry(recipe.id, recipe.name, f"{recipe.id}.jpg", "CC0-1.0", MORPH_SOURCE))
    entries.append(add_astronaut(arguments.output, landmarker))
    entries += add_drawings(arguments.output, landmarker)
    index = json.dumps([asdict(entry) for entry in entries], indent=2, ensure_ascii=False)
    (arguments.output / "index.json").write_text(index + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
