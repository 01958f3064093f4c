"""The weights that a stage starts from. They are always named: a missing file is an error, never random weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from aupipe.errors import CheckpointError, ConfigError
from aupipe.models import checkpoint, weights
from aupipe.models.backbone import Backbone, FaceBackbone
from aupipe.models.interfaces import System
from aupipe.storage import Storage

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def check(init: str, *, setting: str, system: System) -> None:
    """Refuse an `init` whose weights are not there, before anything is started.

    Raises:
        ConfigError: naming the setting and the file that is wanted.
    """
    if init == "random":
        return
    if init != "timm" and not init.endswith(SUFFIXES):
        checkpoint.load_card(checkpoint_folder(init))
        return
    backbone = _backbone(system, f"{setting}: {init}")
    if init == "timm":
        if isinstance(backbone, FaceBackbone):
            raise ConfigError(f"{setting}: timm has no {backbone.name}; {_wanted(backbone, setting)}")
    elif not Storage(init).exists():
        raise ConfigError(f"{setting}: {init} is not there. {_wanted(backbone, setting)}")


def load_pretrained(system: System, init: str, *, setting: str) -> set[str]:
    """Give `system` the weights that `init` names; returns the names of what it was given.

    random: nothing. timm or a file: the backbone's. A run or checkpoint: every tensor of the same name, but for the
    leading `encoder` or `head`, since the same module may stand on either side of the cut; of a module that both have,
    all of it but prompts.

    Raises:
        ConfigError: weights that do not fit.
    """
    if init == "random":
        return set()
    if init == "timm" or init.endswith(SUFFIXES):
        backbone = _backbone(system, f"{setting}: {init}")
        tensors = _download(backbone.name) if init == "timm" else weights.read(init)
        _load_backbone(backbone, tensors, f"{setting}: {init}")
        names = {name for name in system.state_dict() if name.startswith("encoder.backbone.")}
        return {name for name in names if not name.endswith(backbone.added)}
    trained, _ = checkpoint.load(checkpoint_folder(init))
    given = {_inner(name): tensor for name, tensor in trained.state_dict().items()}
    own = system.state_dict()
    found = {name: given[_inner(name)] for name in own if _inner(name) in given}
    wrong = [name for name, tensor in found.items() if tensor.shape != own[name].shape]
    parts = {_part(name) for name in found}
    half = [n for n in own if _part(n) in parts and n not in found and not n.endswith(".prompts")]
    if half and not wrong:
        raise CheckpointError(
            f"{setting}: {init} has only a part of {_part(half[0])}: no {half[0]} and {len(half) - 1} others; "
            "give a run of the same sizes"
        )
    if wrong or not found:
        what = f"{wrong[0]} is {tuple(found[wrong[0]].shape)}" if wrong else "no tensor has the name of one here"
        raise CheckpointError(f"{setting}: {init} does not fit this model: {what}; give a run of the same sizes")
    system.load_state_dict(found, strict=False)
    return set(found)


def check_learnt(learner: nn.Module, given: set[str], *, setting: str) -> None:
    """Refuse frozen parameters that come from nowhere. `given`: as `load_pretrained` returns it.

    Raises:
        ConfigError: naming one.
    """
    idle = [name for name, parameter in learner.named_parameters() if not parameter.requires_grad and name not in given]
    if idle:
        raise ConfigError(
            f"{setting} leaves {len(idle)} frozen parameters random, as {idle[0]}: "
            "start from weights that have them, or let optimizer.groups name them"
        )


def checkpoint_folder(init: str) -> str:
    """The checkpoint that a run's folder, or a checkpoint's own, stands for."""
    return f"{init}/best" if Storage(init).exists(f"best/{checkpoint.CARD}") else init


def _inner(name: str) -> str:
    return name.partition(".")[2]


def _part(name: str) -> str:
    """The module that a tensor belongs to, as backbone or spatial, on whichever side of the cut it stands."""
    return name.split(".")[1]


def _backbone(system: System, where: str) -> Backbone:
    backbone = getattr(system.encoder, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError(f"{where}: this model has no backbone by name")
    return backbone


def _wanted(backbone: Backbone, setting: str) -> str:
    elsewhere = f"in that place or name another with --set {setting}=FILE"
    if isinstance(backbone, FaceBackbone):
        files = ".pth, or .safetensors made of it by convert.py"
        return f"Put InsightFace's state dict of {backbone.name} ({files}) {elsewhere}"
    return (
        f"Put timm's state dict of {backbone.name} (keys as in timm.create_model({backbone.name!r}).state_dict(), "
        f"classifier optional; safetensors, or .pth without other objects) {elsewhere}; "
        f"--set {setting}=timm downloads it"
    )


def _download(name: str) -> dict[str, Tensor]:
    import timm

    return timm.create_model(name, pretrained=True).state_dict()


def _load_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load strictly, but for what the cut took off the network: its classifier and auxiliary heads."""
    own = {key: tensor for key, tensor in backbone.network.state_dict().items() if key not in backbone.added}
    missing = [key for key in own if key not in tensors or tensors[key].shape != own[key].shape]
    if missing:
        raise CheckpointError(f"{where}: no tensor of the right shape for {missing[0]!r} and {len(missing) - 1} others")
    heads = tuple(f"{top}." for top in (*backbone.cut, "AuxLogits"))
    foreign = [key for key in tensors if key not in own and not key.startswith(heads)]
    if foreign:
        raise CheckpointError(f"{where}: tensors of another network: {', '.join(foreign[:3])} …")
    backbone.network.load_state_dict({key: tensors[key] for key in own}, strict=False)  # all but what was added
