"""The weights that a stage starts from. They are always named: a missing file is an error, never random weights."""

from __future__ import annotations

import timm
import torch
from safetensors import torch as safetensors
from torch import Tensor

from aupipe.errors import CheckpointError, ConfigError
from aupipe.models import checkpoint
from aupipe.models.interfaces import System
from aupipe.models.timm_backbone import TimmBackbone
from aupipe.storage import Storage

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def check(init: str, *, setting: str, backbone: str) -> None:
    """Refuse an `init` whose weights are not there, before anything is started.

    Raises:
        ConfigError: naming the setting and the file that is wanted.
    """
    if init in ("random", "timm"):
        return
    if init.endswith(SUFFIXES):
        if not Storage(init).exists():
            raise ConfigError(
                f"{setting}: {init} is not there. Put timm's state dict of {backbone} (keys as in "
                f"timm.create_model({backbone!r}).state_dict(), classifier optional; safetensors, or .pth without "
                f"other objects) in that place or name another with --set {setting}=FILE; "
                f"--set {setting}=timm downloads it"
            )
        return
    checkpoint.load_card(_checkpoint_folder(init))


def initialise(system: System, init: str, *, setting: str) -> None:
    """Give `system` the weights that `init` names; `random` leaves it as it was built.

    Raises:
        ConfigError: weights that do not fit.
    """
    if init == "random":
        return
    if init == "timm" or init.endswith(SUFFIXES):
        backbone = getattr(system.encoder, "backbone", None)
        if not isinstance(backbone, TimmBackbone):
            raise ConfigError(f"{setting}: {init}: this model has no timm backbone")
        tensors = _download(backbone.name) if init == "timm" else _read(init)
        _load_backbone(backbone, tensors, f"{setting}: {init}")
        return
    trained, _ = checkpoint.load(_checkpoint_folder(init))
    try:
        system.load_state_dict(trained.state_dict(), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{setting}: {init} does not fit this model: {' '.join(str(error).split())[:300]}"
        ) from None


def _checkpoint_folder(init: str) -> str:
    return f"{init}/best" if Storage(init).exists(f"best/{checkpoint.CARD}") else init


def _download(name: str) -> dict[str, Tensor]:
    return timm.create_model(name, pretrained=True).state_dict()


def _read(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return safetensors.load(Storage(path).read(""))
    with Storage(path).open("") as file:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    return dict(tensors.get("state_dict", tensors))


def _load_backbone(backbone: TimmBackbone, tensors: dict[str, Tensor], where: str) -> None:
    """Load strictly, but for what the cut took off the network: its classifier and auxiliary heads."""
    own = backbone.network.state_dict()
    missing = [key for key in own if key not in tensors or tensors[key].shape != own[key].shape]
    if missing:
        raise CheckpointError(f"{where}: no tensor of the right shape for {missing[0]!r} and {len(missing) - 1} others")
    heads = tuple(f"{top}." for top in (*backbone.classifiers, "AuxLogits"))
    foreign = [key for key in tensors if key not in own and not key.startswith(heads)]
    if foreign:
        raise CheckpointError(f"{where}: tensors of another network: {', '.join(foreign[:3])} …")
    backbone.network.load_state_dict({key: tensors[key] for key in own})
