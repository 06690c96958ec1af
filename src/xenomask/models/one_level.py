"""Mask2Former with a pixel decoder that attends on one level, as RbA's: transformers builds it with three only."""

from typing import Any

from torch import nn


def one_level(module: nn.Module) -> nn.Module:
    """Makes the pixel decoder attend on the coarsest features only, as RbA's; the finer ones are added by convolutions.

    For a module whose configuration has feature_strides (4, 32, 32, 32), so that these convolutions are there.
    """
    pixel: Any = module.get_submodule("model.pixel_level_module.decoder")
    queries: Any = module.get_submodule("model.transformer_module")
    # transformers writes "3" into its constructors, but all that runs reads these attributes
    pixel.num_feature_levels = queries.num_feature_levels = queries.decoder.num_feature_levels = 1
    pixel.level_embed = nn.Parameter(pixel.level_embed[:1].detach().clone())
    pixel.input_projections = pixel.input_projections[:1]
    queries.level_embed = nn.Embedding(1, queries.level_embed.embedding_dim)
    queries.input_projections = queries.input_projections[:1]
    for layer in pixel.encoder.layers:
        a = layer.self_attn
        a.n_levels = 1
        a.sampling_offsets = nn.Linear(a.d_model, a.n_heads * a.n_points * 2)
        a.attention_weights = nn.Linear(a.d_model, a.n_heads * a.n_points)
    return module
