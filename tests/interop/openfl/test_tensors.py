"""Stock decodes what Sheaf encodes: the tensors and model files in crates/wire-openfl/testdata/sheaf, which Sheaf's own tests hold
against the encoder. Both decoders must give the same float32 bits.
"""

import golden
import numpy as np
import pytest
from openfl.protocols import base_pb2

OURS = golden.HERE / "../../../crates/wire-openfl/testdata/sheaf"


def tensors(path):
    return {tensor.name: tensor for tensor in base_pb2.ModelProto.FromString(path.read_bytes()).tensors}


def decoded(pipeline, tensor):
    array = golden.PIPELINES[pipeline].backward(tensor.data_bytes, golden.read(tensor))
    return np.asarray(array, dtype=np.float32)


@pytest.mark.parametrize("pipeline", golden.PIPELINES)
def test_stock_decodes_our_tensors_to_the_same_bits(pipeline):
    ours, wanted = tensors(OURS / f"{pipeline}.pbuf"), tensors(OURS / f"{pipeline}.decoded.pbuf")
    assert len(ours) == len(wanted) == len(golden.tensors())
    for name, tensor in ours.items():
        array = decoded(pipeline, tensor)
        assert array.shape == golden.tensors()[name].shape, name
        raw = np.frombuffer(wanted[name].data_bytes, np.float32)
        np.testing.assert_array_equal(array.ravel().view(np.uint32), raw.view(np.uint32), err_msg=f"{pipeline} {name}")


@pytest.mark.parametrize("pipeline", ["no_compression", "random_shift"])
def test_pipelines_without_loss_give_back_what_went_in(pipeline):
    for name, tensor in tensors(OURS / f"{pipeline}.pbuf").items():
        # A shift up to twenty is added and taken away in float32.
        atol = 0 if pipeline == "no_compression" else 4e-6
        np.testing.assert_allclose(decoded(pipeline, tensor), golden.tensors()[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("pipeline", ["skc", "kc"])
def test_our_clusters_lose_no_more_than_those_of_stock(pipeline):
    for name, array in golden.tensors().items():
        losses = []
        for path in [OURS, golden.OUT]:
            tensor = decoded(pipeline, tensors(path / f"{pipeline}.pbuf")[name])
            losses.append(float(np.sum((tensor - array) ** 2)))
        assert losses[0] <= 1.1 * losses[1] + 1e-9, f"{name}: {losses}"
