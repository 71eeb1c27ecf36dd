"""Layer norm with an affine map or the noise level's modulation, and the gated residual."""

from visavis.kernels.modulate.api import (
    gated_residual,
    gated_residual_layer_norm,
    layer_norm,
    layer_norm_modulate,
)

__all__ = ["gated_residual", "gated_residual_layer_norm", "layer_norm", "layer_norm_modulate"]
