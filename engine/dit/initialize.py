"""Starting weights for training from scratch."""

from __future__ import annotations

from torch import nn

TIME_STD = 0.02


def initialize(model: nn.Module) -> None:
    """Xavier for every projection, zero for what modulates and for the output head.

    With gates at zero a block starts as the identity but for its ungated cross-attentions, whose
    output projections are scaled down (adaLN-Zero, arXiv 2212.09748 section 3.2).
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            _initialize_linear(name, module)


def _initialize_linear(name: str, linear: nn.Linear) -> None:
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    if name in ("time_embedding.projection", "head.projection"):
        nn.init.zeros_(linear.weight)
    elif name.startswith("time_embedding."):
        nn.init.normal_(linear.weight, std=TIME_STD)
    elif name.endswith(("cross_attention.o", "audio_attention.o")):
        nn.init.xavier_uniform_(linear.weight, gain=0.2)
    else:
        nn.init.xavier_uniform_(linear.weight)
