from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from aupipe.errors import CheckpointError
from aupipe.models import insightface
from aupipe.models.backbone import make
from aupipe.storage import Storage

pytestmark = pytest.mark.unit


def state(name: str, size_px: int = 112) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return make(name, size_px).network.state_dict()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("iresnet18", 24_025_600),
        ("iresnet34", 34_139_328),
        ("iresnet50", 43_590_848),
        ("iresnet100", 65_156_160),
        ("ir_se50", 43_797_696),
    ],
)
def test_networks_are_recognized_by_their_tensors(name: str, count: int) -> None:
    tensors = state(name)
    assert insightface.recognize(tensors, where="x") == name
    assert insightface.parameters(tensors) == count


def test_differences_are_named() -> None:
    whole = state("iresnet50")
    less = {key: tensor for key, tensor in whole.items() if key != "layer3.5.prelu.weight"}
    for tensors, message in (
        (less, r"x is none of .* for iresnet50, the nearest, layer3\.5\.prelu\.weight is missing, not \(256,\)$"),
        (whole | {"head.weight": torch.zeros(1)}, r"iresnet50.*head\.weight is none of its tensors"),
        (state("iresnet50", 64), r"at 112 px; for iresnet50.*fc\.weight is \(512, 8192\), not \(512, 25088\)"),
        ({"conv1.weight": torch.zeros(1)}, r"and \d+ more"),
    ):
        with pytest.raises(CheckpointError, match=message):
            insightface.recognize(tensors, where="x")


def test_half_precision_file_becomes_safetensors_that_any_backbone_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insightface, "PUBLISHED", ("iresnet_quick",))  # the class is the same, the file is small
    network = make("iresnet_quick", 112).network.half()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    name, tensors = insightface.read(str(tmp_path / "w.pth"))
    assert name == "iresnet_quick"
    digests = {insightface.write(str(tmp_path / f"{n}.safetensors"), name, tensors) for n in range(3)}
    assert len(digests) == 1
    assert insightface.read(str(tmp_path / "0.safetensors"))[0] == name
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == {"network": "iresnet_quick"}
    assert Storage(tmp_path).names() == ["0.safetensors", "1.safetensors", "2.safetensors", "w.pth"]
    loaded = make("iresnet_quick", 112).network
    loaded.load_state_dict(tensors, strict=True)
    assert torch.equal(loaded.fc.weight, network.fc.weight.float())
    assert loaded.fc.weight.dtype == torch.float32
