"""Pictures of any kind as upright uint8 RGB arrays."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageCms, ImageOps

from visavis.engine.face.warp import Pixels

MAX_PIXELS = 40_000_000
MIN_SIDE = 64
BACKDROP = 128  # neutral grey behind transparent pixels
# What people have on disk; formats that run interpreters (EPS) or reach for other files stay out.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO", "TGA")
# Enough for any photograph up to MAX_PIXELS, so that an endless upload is refused unread.
MAX_BYTES = 200_000_000


class ImageError(ValueError):
    """A picture that cannot be used; the message says why and what would help."""


ImageSource: TypeAlias = str | Path | bytes | Image.Image | Pixels


def load_image(source: ImageSource) -> Pixels:
    """Read a picture from a path, encoded bytes, a PIL image or an array.

    The EXIF orientation is applied, an embedded colour profile is converted to sRGB, transparent
    pixels lie on neutral grey, 16-bit and float pictures are scaled to 8 bits, and of an animation
    the first frame is taken. Returns uint8 RGB [H, W, 3]. Raises ImageError, also for files that
    are missing, damaged or larger than MAX_PIXELS.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source)
    with _open(source) as image:
        return _from_pil(image)


def _open(source: str | Path | bytes) -> Image.Image:
    if isinstance(source, bytes | bytearray | memoryview):
        name, size = "the picture", len(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise ImageError(f"{path}: no such file; give the path of a picture")
        name, size = str(path), path.stat().st_size
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes); give a JPEG, PNG or WebP picture")
    if size > MAX_BYTES:
        raise ImageError(
            f"{name} has {size:,} bytes, more than {MAX_BYTES:,}; save it as a JPEG and try again"
        )
    stream = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} has more than {MAX_PIXELS:,} pixels; make it smaller and try again"
        ) from error
    except Exception as error:  # Pillow's readers raise all sorts on damaged files
        raise ImageError(
            f"{name} is not a picture that can be read ({type(error).__name__}); "
            "save it as JPEG, PNG or WebP and try again"
        ) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the picture has {width}x{height} = {width * height:,} pixels, more than "
            f"{MAX_PIXELS:,}; make it smaller and try again"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"the picture has {width}x{height} pixels; its shorter side must have at least "
            f"{MIN_SIDE}: use a larger picture"
        )


def _from_array(array: Pixels) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise ImageError(
            f"an image array must be uint8 [H, W, 3 or 4], got {array.dtype} {list(array.shape)}"
        )
    _check_size(array.shape[1], array.shape[0])
    if array.shape[2] == 4:
        return _from_pil(Image.fromarray(array, "RGBA"))
    return np.ascontiguousarray(array)


def _from_pil(image: Image.Image) -> Pixels:
    _check_size(*image.size)  # known from the header, before any pixel is decoded
    try:
        image.seek(0)
        image.load()
        upright = ImageOps.exif_transpose(image)
        return np.array(_to_rgb(upright), dtype=np.uint8)
    except Exception as error:  # see _open
        raise ImageError(
            f"the picture is damaged ({type(error).__name__}: {error}); "
            "save it again as JPEG, PNG or WebP and try again"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep(image).convert("RGB")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    if transparent:
        layer = image.convert("RGBA")
        flat = Image.new("RGBA", layer.size, (BACKDROP, BACKDROP, BACKDROP, 255))
        flat.alpha_composite(layer)
        flat_rgb = flat.convert("RGB")
        return _to_srgb(flat_rgb, image.info.get("icc_profile")) or flat_rgb
    if image.mode in ("RGB", "CMYK"):
        converted = _to_srgb(image, image.info.get("icc_profile"))
        if converted is not None:
            return converted
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """The picture in sRGB; None when it has no profile or one that does not fit it."""
    if not profile:
        return None
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except ImageCms.PyCMSError:
        return None


def _from_deep(image: Image.Image) -> Image.Image:
    """One channel of 16-bit, 32-bit or float samples as 8 bits."""
    samples = np.asarray(image).astype(np.float64)
    top = float(np.nan_to_num(samples, posinf=0).max(initial=0.0))
    # Floats are either 0..1 or 0..255; integers beyond 8 bits use the 16-bit range.
    if top <= 1.0 and image.mode.startswith("F"):
        white = 1.0
    elif top <= 255 and not image.mode.startswith("I;16"):
        white = 255.0
    else:
        white = max(top, 65535.0)
    scaled = np.clip(np.nan_to_num(samples) * (255 / white), 0, 255)
    return Image.fromarray(scaled.round().astype(np.uint8), "L")
