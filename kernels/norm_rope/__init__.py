"""RMS norm over the whole width, then rotary positions per head, in one pass."""

from visavis.kernels.norm_rope.api import rms_norm, rms_norm_rope, rms_norm_rotate

__all__ = ["rms_norm", "rms_norm_rope", "rms_norm_rotate"]
