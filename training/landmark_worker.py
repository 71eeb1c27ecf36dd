"""Face landmarks by MediaPipe's attention mesh, in a process and an environment of its own.

It judges frames that the model made, and nothing of the model was trained with it. MediaPipe pins
an older numpy, hence the second environment (`make eval` makes it). Runs there, imports nothing of
this project. Protocol on stdin: three little-endian uint32 (frames, height, width), then RGB bytes;
on stdout: float32 [frames, 478, 2] in pixels, NaN where no face was found. A count of 0 ends it.
"""

import struct
import sys

import mediapipe
import numpy as np

POINTS = 478


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True
    )
    while True:
        header = source.read(12)
        if len(header) < 12:
            return
        count, height, width = struct.unpack("<III", header)
        if count == 0:
            return
        for _ in range(count):
            data = source.read(height * width * 3)
            frame = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            faces = mesh.process(frame).multi_face_landmarks
            points = np.full((POINTS, 2), np.nan, np.float32)
            if faces:
                points[:] = [(p.x * width, p.y * height) for p in faces[0].landmark]
            sink.write(points.tobytes())
        sink.flush()


if __name__ == "__main__":
    main()
