"""Names of the original checkpoint's tensors (`WanModel`) and of ours, one to one."""

from __future__ import annotations

from visavis.engine.dit.config import DiTConfig

_TOP = {
    "patch_embedding": "patch_embedding",
    "time_embedding.0": "time_embedding.input",
    "time_embedding.2": "time_embedding.output",
    "time_projection.1": "time_embedding.projection",
    "audio_proj.proj1": "audio_adapter.first",
    "audio_proj.proj1_vf": "audio_adapter.later",
    "audio_proj.proj2": "audio_adapter.hidden",
    "audio_proj.proj3": "audio_adapter.project",
    "audio_proj.norm": "audio_adapter.norm",
    "head.head": "head.projection",
}
_TEXT = {"text_embedding.0": "text_embedding.input", "text_embedding.2": "text_embedding.output"}
_IMAGE = {
    "img_emb.proj.0": "image_embedding.norm_input",
    "img_emb.proj.1": "image_embedding.input",
    "img_emb.proj.3": "image_embedding.output",
    "img_emb.proj.4": "image_embedding.norm_output",
}
_BLOCK = {
    "self_attn.q": "self_attention.q",
    "self_attn.k": "self_attention.k",
    "self_attn.v": "self_attention.v",
    "self_attn.o": "self_attention.o",
    "norm3": "norm_cross",
    "cross_attn.q": "cross_attention.q",
    "cross_attn.o": "cross_attention.o",
    "norm_x": "norm_audio",
    "audio_cross_attn.q_linear": "audio_attention.q",
    "audio_cross_attn.kv_linear": "audio_attention.kv",
    "audio_cross_attn.proj": "audio_attention.o",
    "ffn.0": "ffn.up",
    "ffn.2": "ffn.down",
}
_BLOCK_TEXT = {"cross_attn.k": "cross_attention.k", "cross_attn.v": "cross_attention.v"}
_BLOCK_IMAGE = {
    "cross_attn.k_img": "cross_attention.k_image",
    "cross_attn.v_img": "cross_attention.v_image",
}
_BLOCK_SCALES = {  # RMS norms: a weight and no bias
    "self_attn.norm_q": "self_attention.norm_q",
    "self_attn.norm_k": "self_attention.norm_k",
    "cross_attn.norm_q": "cross_attention.norm_q",
}


def original_to_ours(config: DiTConfig) -> dict[str, str]:
    """Every tensor of the original's layout -> our parameter name, for a model of this size."""
    modules = dict(_TOP)
    scales: dict[str, str] = {}
    names = {"head.modulation": "head.modulation"}
    block = dict(_BLOCK)
    block_scales = dict(_BLOCK_SCALES)
    if config.has_text:
        modules |= _TEXT
        block |= _BLOCK_TEXT
        block_scales["cross_attn.norm_k"] = "cross_attention.norm_k"
    if config.has_image:
        modules |= _IMAGE
        block |= _BLOCK_IMAGE
        block_scales["cross_attn.norm_k_img"] = "cross_attention.norm_k_image"
    for i in range(config.num_layers):
        prefix = f"blocks.{i}."
        names[prefix + "modulation"] = prefix + "modulation"
        modules |= {prefix + theirs: prefix + ours for theirs, ours in block.items()}
        scales |= {prefix + theirs: prefix + ours for theirs, ours in block_scales.items()}
    for theirs, ours in modules.items():
        names[theirs + ".weight"] = ours + ".weight"
        names[theirs + ".bias"] = ours + ".bias"
    for theirs, ours in scales.items():
        names[theirs + ".weight"] = ours + ".weight"
    return names
