import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aupipe.errors import CheckpointError, ConfigError
from aupipe.models import weights

pytestmark = pytest.mark.unit

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


class Malice:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/aupipe_was_executed"),))


@pytest.mark.parametrize("wrapped", [False, True])
def test_state_dicts_of_torch_and_safetensors_are_read(tmp_path: Path, wrapped: bool) -> None:
    torch.save({"state_dict": STATE, "epoch": 3} if wrapped else STATE, tmp_path / "w.pth")
    save_file(STATE, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        read = weights.read(str(tmp_path / name))
        assert read.keys() == STATE.keys()
        assert all(torch.equal(read[key], tensor) for key, tensor in STATE.items())


def test_other_files_are_refused_and_nothing_is_executed(tmp_path: Path) -> None:
    files = {
        "malice.pth": pickle.dumps({"a": Malice()}, protocol=2),
        "text.pth": b"weights, honestly",
        "line.pth": b"hello\n",  # for the pickle machine, it looks up its memo
        "dot.pth": b".",
        "tuple.pth": b"(t.",
        "empty.pth": b"",
        "text.safetensors": b"weights, honestly",
        "empty.safetensors": b"",
    }
    torch.save(STATE, tmp_path / "half.pth")
    files["half.pth"] = (tmp_path / "half.pth").read_bytes()[:700]
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    files["list.pth"] = (tmp_path / "list.pth").read_bytes()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=name):
            weights.read(str(tmp_path / name))
    assert not Path("/tmp/aupipe_was_executed").exists()
    with pytest.raises(ConfigError, match=r"none\.pth cannot be read \(No such file"):
        weights.read(str(tmp_path / "none.pth"))
