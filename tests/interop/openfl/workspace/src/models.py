"""The models of the tests' workspaces: arrays by name, and what training moves them to. All of it follows from the seed."""

import numpy as np

# Shapes and dtypes by name, in the order of the model. `large` gets its size from the plan.
MODELS = {
    "mixed": {
        "dense/kernel": ((8, 3), np.float32),
        "dense/bias": ((3,), np.float32),
        "scale": ((1,), np.float32),
        "steps": ((4,), np.int64),
        "odd name: ä&=/%+?": ((2, 2), np.float32),
        "large": (None, np.float32),
    },
    "conv": {
        "conv.0.weight": ((4, 3, 3, 3), np.float32),
        "conv.1.weight": ((2, 4, 1, 1), np.float32),
        "norm.running_var": ((4,), np.float64),
        "norm.num_batches": ((1,), np.int32),
        "head.weight": ((5, 2), np.float32),
    },
    # What has no dimension: in the goldens it is added up partly in double precision.
    "scalar": {
        "temperature": ((), np.float32),
        "steps": ((), np.int64),
        "dense/bias": ((3,), np.float32),
    },
    # A tenth of each and zero are at most six values: k-means finds them all, whatever it begins with.
    "few": {
        "dense/kernel": ((8, 3), np.float32),
        "dense/bias": ((3,), np.float32),
        "scale": ((1,), np.float32),
        "square": ((7, 7), np.float32),
    },
    # Some of them FedCurv adds up, by how their names end; with its state the optimizer's too.
    "curved": {
        "dense/kernel": ((8, 3), np.float32),
        "dense/kernel_u": ((8, 3), np.float32),
        "dense/kernel_v": ((8, 3), np.float32),
        "bias_w": ((1,), np.float32),
        "w_": ((3,), np.float32),
    },
}


def layout(model, large_elements):
    shapes = MODELS[model]
    return {name: ((large_elements,) if shape is None else shape, dtype) for name, (shape, dtype) in shapes.items()}


def drawn(seed, *place, shape):
    """Normal numbers of float32, the same on every machine."""
    rng = np.random.default_rng([seed, *place])
    return np.asarray(rng.standard_normal(shape, dtype=np.float32), dtype=np.float32)


def first(model, large_elements, seed):
    """The first model."""
    arrays = {}
    for index, (name, (shape, dtype)) in enumerate(layout(model, large_elements).items()):
        if np.issubdtype(dtype, np.integer):
            arrays[name] = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
        else:
            arrays[name] = drawn(seed, 0, index, shape=shape).astype(dtype)
    return arrays
