"""Judges frames in a process and an environment of its own: `landmarks` or `identity`.

Landmarks are MediaPipe's attention mesh, 478 points in pixels; identity is dlib's residual network,
128 values. They judge frames that the model made, and nothing of the model was trained with them.
MediaPipe pins an older numpy, hence the second environment (`make eval` makes it). Runs there,
imports nothing of this project. Protocol on stdin: three little-endian uint32 (frames, height,
width), then RGB bytes; on stdout: float32 [frames, values], NaN where no face was found. A count of
0 ends it.
"""

import struct
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Judge = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def landmarks() -> Judge:
    """The attention mesh."""
    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True
    )

    def judge(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width, _ = frame.shape
        points = np.full((478, 2), np.nan, np.float32)
        faces = mesh.process(frame).multi_face_landmarks
        if faces:
            points[:] = [(p.x * width, p.y * height) for p in faces[0].landmark]
        return points

    return judge


def identity() -> Judge:
    """The residual network, on the largest face."""
    import dlib

    spec = find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        sys.exit("identity: face_recognition_models is not installed")
    models = Path(spec.origin).parent / "models"
    detector: Any = dlib.get_frontal_face_detector()
    shape = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(
        str(models / "dlib_face_recognition_resnet_model_v1.dat")
    )

    def judge(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = np.full(128, np.nan, np.float32)
        faces = detector(frame, 0)
        if faces:
            largest = max(faces, key=lambda face: face.area())
            values[:] = network.compute_face_descriptor(frame, shape(frame, largest))
        return values

    return judge


def main(kind: str) -> None:
    """Judge what comes in on stdin until it ends."""
    judge = {"landmarks": landmarks, "identity": identity}[kind]()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        header = source.read(12)
        if len(header) < 12:
            return
        count, height, width = struct.unpack("<III", header)
        if count == 0:
            return
        for _ in range(count):
            data = np.frombuffer(source.read(height * width * 3), np.uint8)
            frame = np.ascontiguousarray(data.reshape(height, width, 3))
            sink.write(judge(frame).tobytes())
        sink.flush()


if __name__ == "__main__":
    main(sys.argv[1])
