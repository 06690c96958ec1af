"""Small OpenVINO models in a network's place."""

import numpy as np


def convolution(network, x):
    """An openvino.Model in a tiny network's place: one convolution makes the masks, their means the classes."""
    import openvino
    from openvino import opset13 as ops

    q, n = network.config.num_queries, network.config.num_labels + 1
    r = np.random.default_rng(0)
    image = ops.parameter(list(x.shape), np.float32, name="image")
    kernel = ops.constant(r.normal(size=(q, 3, 4, 4)).astype(np.float32) / 4)
    masks = ops.convolution(image, kernel, [4, 4], [0, 0], [0, 0], [1, 1])
    means = ops.reduce_mean(masks, ops.constant(np.array([2, 3])), keep_dims=False)
    classes = ops.multiply(
        ops.unsqueeze(means, ops.constant(np.array(2))), ops.constant(r.normal(size=(1, 1, n)).astype(np.float32))
    )
    model = openvino.Model([classes, masks], [image])  # pyright: ignore
    for port, name in zip((*model.outputs, *model.inputs), ("class_logits", "mask_logits", "image"), strict=True):
        port.get_tensor().set_names({name})
    return model


def small_model():
    """An openvino.Model of two outputs whose numbers come from its weights file."""
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([-1, 3, -1, -1], np.float32, name="image")
    weights = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1) + 0.5
    masks = ops.multiply(x, ops.constant(weights))
    classes = ops.reduce_max(masks, ops.constant(np.array([3])))
    return openvino.Model([classes, masks], [x])  # pyright: ignore
