"""Names for the 468 face-mesh landmarks.

Convention: left and right are those of the *image*, so `EYE_LEFT_*` is the eye on the picture's
left, which is the subject's own right eye. Contours run from image left to image right; the upper
and the lower contour of a pair share their first and last point (the corners) and have the same
length, so that point k of one faces point k of the other. The mesh has no iris points.
"""

from __future__ import annotations

from typing import Final

# Lips: 11 points each, corner to corner.
LIP_OUTER_UPPER: Final = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LIP_OUTER_LOWER: Final = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
LIP_INNER_UPPER: Final = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LIP_INNER_LOWER: Final = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)

# Eyelids: 9 points each, corner to corner.
EYE_LEFT_UPPER: Final = (33, 246, 161, 160, 159, 158, 157, 173, 133)
EYE_LEFT_LOWER: Final = (33, 7, 163, 144, 145, 153, 154, 155, 133)
EYE_RIGHT_UPPER: Final = (362, 398, 384, 385, 386, 387, 388, 466, 263)
EYE_RIGHT_LOWER: Final = (362, 382, 381, 380, 374, 373, 390, 249, 263)

EYES: Final = EYE_LEFT_UPPER + EYE_LEFT_LOWER + EYE_RIGHT_UPPER + EYE_RIGHT_LOWER

# Brows: 5 points each along the upper and the lower edge (without shared corners).
BROW_LEFT_UPPER: Final = (70, 63, 105, 66, 107)
BROW_LEFT_LOWER: Final = (46, 53, 52, 65, 55)
BROW_RIGHT_UPPER: Final = (336, 296, 334, 293, 300)
BROW_RIGHT_LOWER: Final = (285, 295, 282, 283, 276)

# Closed contour: 36 points from the top of the forehead, image-clockwise.
FACE_OVAL: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288,
    397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136,
    172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip

# Jaw line from image-left ear to image-right ear through the chin, part of FACE_OVAL.
JAW_LINE: Final = (
    234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152,
    377, 400, 378, 379, 365, 397, 288, 361, 323, 454,
)  # fmt: skip

NOSE_BRIDGE: Final = (168, 6, 197, 195, 5, 4)  # downwards, between the eyes to near the tip
NOSE_BASE: Final = (64, 98, 97, 2, 326, 327, 294)  # nostril wing to nostril wing
NOSE_TIP: Final = 1
# Nose, cheekbones and between the eyes: no control of the mouth moves them.
UPPER_FACE: Final = (1, 2, 4, 5, 6, 168, 98, 327, 129, 358, 205, 425, 50, 280, 117, 346)
CHIN: Final = 152
FOREHEAD: Final = 10
CHEEK_LEFT: Final = 234
CHEEK_RIGHT: Final = 454

EYE_CORNERS_LEFT: Final = (33, 133)  # outer, inner
EYE_CORNERS_RIGHT: Final = (263, 362)  # outer, inner
MOUTH_CORNERS: Final = (61, 291)
OUTER_EYE_CORNERS: Final = (33, 263)
