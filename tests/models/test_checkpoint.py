import hashlib
import json
from pathlib import Path

import pytest
import torch

from aupipe import facs
from aupipe.errors import CheckpointError
from aupipe.models import checkpoint
from aupipe.models.build import build
from aupipe.models.configs import MultilabelTransformerConfig
from aupipe.models.inputs import InputSpec
from aupipe.storage import Storage

pytestmark = pytest.mark.unit

TEMPLATE = ((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.nn.Module, checkpoint.Card]:
    torch.manual_seed(0)
    card = checkpoint.Card(
        model=MultilabelTransformerConfig(backbone="test_resnet", width=16, heads=2, mlp_width=32),
        input=InputSpec(size_px=64),
        template=TEMPLATE, thresholds=dict.fromkeys(facs.AUS, 0.5) | {"AU15": 0.37},
        smoothing=checkpoint.Smoothing(radius=3),
    )  # fmt: skip
    system = build(card.model, card.input)
    system.encoder(torch.randn(4, 3, 64, 64))  # moves the batch-norm buffers off their initial values
    return tmp_path, system, checkpoint.save(Storage(tmp_path), system, card)


def edit(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | changes))


def test_round_trip_gives_the_same_model_and_card(saved: tuple) -> None:
    folder, system, card = saved
    loaded, read = checkpoint.load(str(folder))
    assert read == card
    assert read.thresholds["AU15"] == 0.37
    assert not loaded.training
    for (name, a), (_, b) in zip(system.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    frames = torch.randn(2, 3, 64, 64)
    assert torch.equal(system.eval().encoder(frames), loaded.encoder(frames))
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_hash_names_weights_and_configuration_not_thresholds(saved: tuple) -> None:
    folder, system, card = saved
    assert card.model_copy(update={"thresholds": dict.fromkeys(facs.AUS, 0.1)}).sha256 == card.sha256
    assert card.model_copy(update={"input": InputSpec(size_px=65)}).sha256 != card.sha256
    next(system.parameters()).data += 1
    assert checkpoint.save(Storage(folder), system, card).sha256 != card.sha256


def test_half_precision_halves_the_size_and_hardly_changes_outputs(saved: tuple, tmp_path: Path) -> None:
    folder, system, card = saved
    whole = (folder / "model.safetensors").stat().st_size
    checkpoint.save(Storage(tmp_path / "half"), system, card, half=True)
    assert (tmp_path / "half/model.safetensors").stat().st_size < 0.6 * whole
    loaded, _ = checkpoint.load(str(tmp_path / "half"))
    assert next(loaded.parameters()).dtype == torch.float32
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(system.eval().encoder(frames), loaded.encoder(frames), atol=0.02)


def test_half_precision_keeps_values_beyond_its_range(saved: tuple) -> None:
    folder, system, card = saved
    name = next(name for name in system.state_dict() if name.endswith("running_var"))
    system.state_dict()[name].fill_(1e6)  # the variance of a map with large values
    checkpoint.save(Storage(folder), system, card, half=True)
    loaded, _ = checkpoint.load(str(folder))
    assert torch.equal(loaded.state_dict()[name], system.state_dict()[name])


def test_weights_that_are_not_numbers_are_refused(saved: tuple) -> None:
    folder, system, card = saved
    name, parameter = next(system.named_parameters())
    parameter.data[0] = torch.nan
    checkpoint.save(Storage(folder), system, card)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {name} is not a number; fix: "):
        checkpoint.load(str(folder))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json and model\.safetensors missing"):
        checkpoint.load(str(tmp_path / "nowhere"))


def test_other_au_order_is_refused(saved: tuple) -> None:
    folder, *_ = saved
    edit(folder, au_order=[facs.AUS[1], facs.AUS[0], *facs.AUS[2:]])
    with pytest.raises(CheckpointError, match="order"):
        checkpoint.load(str(folder))


def test_damaged_weights_are_refused(saved: tuple) -> None:
    folder, *_ = saved
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="is not the file"):
        checkpoint.load(str(folder))


def test_weights_of_another_shape_are_refused(saved: tuple) -> None:
    folder, _, card = saved
    edit(folder, model=card.model.model_dump() | {"width": 32})
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.load(str(folder))


@pytest.mark.parametrize("change", [{"thresholds": {"AU01": 0.5}}, {"color": 1}, {"template": [[0, 0]]}])
def test_malformed_cards_are_refused(saved: tuple, change: dict) -> None:
    folder, *_ = saved
    edit(folder, **change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        checkpoint.load(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"), (b'{"model": ', "is not JSON"), (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a model's card"), (b'{"architectures": ["Vit"]}', "is not a model's card"),
    ],
)  # fmt: skip
def test_invalid_cards_are_named(saved: tuple, content: bytes, message: str) -> None:
    (saved[0] / "model.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        checkpoint.load(str(saved[0]))
    assert error.value.exit_code == 2


def test_truncated_weights_with_a_matching_hash_are_refused(saved: tuple) -> None:
    weights = (saved[0] / "model.safetensors").read_bytes()
    for size in (0, 4, len(weights) // 2):
        (saved[0] / "model.safetensors").write_bytes(weights[:size])
        edit(saved[0], weights_sha256=hashlib.sha256(weights[:size]).hexdigest())
        with pytest.raises(CheckpointError, match="does not fit"):
            checkpoint.load(str(saved[0]))


def test_impossible_sizes_are_refused(saved: tuple) -> None:
    model = json.loads((saved[0] / "model.json").read_text())["model"]
    edit(saved[0], model=model | {"width": 17})  # two heads cannot share 17
    with pytest.raises(CheckpointError, match=r"model\.json"):
        checkpoint.load(str(saved[0]))


def test_a_folder_of_a_run_names_its_checkpoint(saved: tuple, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("run")
    saved[0].rename(run / "best")
    with pytest.raises(CheckpointError, match=rf"; give the folder {run}/best$"):
        checkpoint.load(str(run))
    for path in (f"{run}/nosuch", f"{run}/best/model.json"):
        with pytest.raises(CheckpointError, match="is no checkpoint"):
            checkpoint.load(path)
