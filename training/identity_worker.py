"""Face embeddings by dlib's residual network, in a process and an environment of its own.

Neither the puppets nor the model was trained with it. Imports nothing of this project; protocol as
in landmark_worker.py, with 128 values a frame.
"""

import struct
import sys
from importlib.util import find_spec
from pathlib import Path

import dlib
import numpy as np

VALUES = 128


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    spec = find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        sys.exit("identity: face_recognition_models is not installed")
    models = Path(spec.origin).parent / "models"
    detector = dlib.get_frontal_face_detector()
    shape = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(
        str(models / "dlib_face_recognition_resnet_model_v1.dat")
    )
    while True:
        header = source.read(12)
        if len(header) < 12:
            return
        count, height, width = struct.unpack("<III", header)
        if count == 0:
            return
        for _ in range(count):
            frame = np.frombuffer(source.read(height * width * 3), np.uint8)
            frame = np.ascontiguousarray(frame.reshape(height, width, 3))
            faces = detector(frame, 0)
            values = np.full(VALUES, np.nan, np.float32)
            if faces:
                largest = max(faces, key=lambda face: face.area())
                values[:] = network.compute_face_descriptor(frame, shape(frame, largest))
            sink.write(values.tobytes())
        sink.flush()


if __name__ == "__main__":
    main()
