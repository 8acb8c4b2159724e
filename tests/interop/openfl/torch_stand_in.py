"""The few calls of torch that openfl's EdenPipeline makes, on NumPy; `import torch_stand_in` puts it in torch's place.

The goldens need no torch then, which is three times the size of all else together. What differs from torch: sums over a
whole tensor (norm, dot) are added in another order, so the scale that an encoder finds may differ in its last bits. Decoding
has no such sum: additions, subtractions, products and quotients of single float32 numbers, in the order the code says.
"""

import importlib.machinery
import sys
import types

import numpy as np


class Tensor:
    """An array that behaves as a tensor does in these calls."""

    __array_priority__ = 1000

    def __init__(self, data, device="cpu"):
        data = data.array if isinstance(data, Tensor) else data
        self.array = np.array(data, dtype=np.float32)

    @staticmethod
    def of(array):
        made = Tensor.__new__(Tensor)
        made.array = array
        return made

    @property
    def T(self):
        return Tensor.of(self.array.T)

    def numel(self):
        return self.array.size

    def to(self, device):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.array

    def flatten(self):
        return Tensor.of(self.array.flatten())

    def view(self, *shape):
        return Tensor.of(self.array.reshape(shape))

    def reshape(self, *shape):
        return Tensor.of(self.array.reshape(shape))

    def clone(self):
        return Tensor.of(self.array.copy())

    def int(self):
        return Tensor.of(self.array.astype(np.int32))

    def long(self):
        return Tensor.of(self.array.astype(np.int64))

    def __getitem__(self, key):
        return Tensor.of(self.array[key])

    def __setitem__(self, key, value):
        self.array[key] = plain(value)

    def __float__(self):
        return float(self.array)

    def __bool__(self):
        return bool(self.array)


def plain(value):
    return value.array if isinstance(value, Tensor) else value


def scalar(value, array):
    """A Python number takes the tensor's type, as torch has it."""
    if isinstance(value, Tensor):
        other = value.array
        if array.dtype == np.float32 and other.dtype != np.float32:
            return other.astype(np.float32)
        return other
    if array.dtype.kind == "f":
        return array.dtype.type(value)
    return value


def binary(name, swapped=False):
    def call(self, other):
        left, right = self.array, scalar(other, self.array)
        if isinstance(other, Tensor) and right.dtype == np.float32 and left.dtype != np.float32:
            left = left.astype(np.float32)
        if isinstance(right, (int, bool)) and left.dtype == np.bool_:
            left = left.astype(np.int64)
        pair = (right, left) if swapped else (left, right)
        with np.errstate(over="ignore"):
            return Tensor.of(np.asarray(getattr(np, name)(*pair)))

    return call


for method, ufunc in [
    ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("and", "bitwise_and"),
    ("xor", "bitwise_xor"), ("rshift", "right_shift"), ("mod", "mod"), ("pow", "power"),
    ("ge", "greater_equal"), ("gt", "greater"), ("ne", "not_equal"),
]:  # fmt: skip
    setattr(Tensor, f"__{method}__", binary(ufunc))
for method, ufunc in [("add", "add"), ("sub", "subtract"), ("mul", "multiply")]:
    setattr(Tensor, f"__r{method}__", binary(ufunc, swapped=True))
for method, ufunc in [("add", "add"), ("truediv", "divide"), ("rshift", "right_shift")]:

    def in_place(self, other, ufunc=ufunc):
        getattr(np, ufunc)(self.array, scalar(other, self.array), out=self.array, casting="unsafe")
        return self

    setattr(Tensor, f"__i{method}__", in_place)


def bucketize(values, boundaries):
    return Tensor.of(np.searchsorted(boundaries.array, values.array, side="left"))


def div(values, divisor, rounding_mode):
    assert rounding_mode == "floor"
    return Tensor.of(np.floor_divide(values.array, scalar(divisor, values.array)))


def zeros(size, device="cpu", dtype=np.float32):
    return Tensor.of(np.zeros(size, dtype=dtype))


torch = types.ModuleType("torch")
torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
torch.uint8 = np.uint8
torch.Tensor = Tensor
torch.arange = lambda end, device="cpu": Tensor.of(np.arange(end, dtype=np.int64))
torch.bucketize = bucketize
torch.cat = lambda tensors: Tensor.of(np.concatenate([tensor.array for tensor in tensors]))
torch.div = div
torch.dot = lambda one, other: Tensor.of(np.dot(one.array, other.array))
torch.isnan = lambda value: Tensor.of(np.isnan(value.array))
torch.norm = lambda value, order: Tensor.of(np.linalg.norm(value.array, order))
torch.take = lambda values, places: Tensor.of(np.take(values.array, places.array.astype(np.int64)))
torch.tensor = lambda values: Tensor.of(np.array(values))
torch.zeros = zeros
sys.modules["torch"] = torch


def leave():
    """Gives torch's place back: what imported it keeps it, and nobody else finds it."""
    del sys.modules["torch"]
