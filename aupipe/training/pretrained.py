"""Initial weights of a stage. They are always named explicitly, and a missing file is an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn

from aupipe.errors import CheckpointError, ConfigError
from aupipe.models import checkpoint, default_models, weights
from aupipe.models.backbone import Backbone, FaceBackbone
from aupipe.models.interfaces import System
from aupipe.storage import Storage, folder_and_name

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
STARTER = "starter"  # the starter model of a single network


def content_hash(init: str) -> str | None:
    """Return a hash of the weights in a file or checkpoint; None for other initial weights, and if there are none."""
    if init in ("random", "timm"):
        return None
    if init.endswith(SUFFIXES):
        storage, name = folder_and_name(init)
        if not storage.exists(name):
            return None
        with storage.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    folder = checkpoint_folder(init)
    return checkpoint.load_card(folder).sha256 if Storage(folder).exists(checkpoint.CARD) else None


def check(init: str, *, setting: str, system: System) -> None:
    """Check that the weights of `init` exist, and that a checkpoint is intact, before anything is started.

    Raises:
        ConfigError: they do not; the message names the setting and the expected file.
        CheckpointError: the checkpoint is damaged.
    """
    if init == "random":
        return
    if init != "timm" and not init.endswith(SUFFIXES):
        checkpoint.load(checkpoint_folder(init))
        return
    backbone = _backbone(system, f"{setting}: {init}")
    if init == "timm":
        if isinstance(backbone, FaceBackbone):
            raise ConfigError(f"{setting}: timm has no {backbone.name}; {_hint(backbone, setting)}")
    elif not Storage(init).exists():
        raise ConfigError(f"{setting}: {init} does not exist. {_hint(backbone, setting)}")


def load_pretrained(system: System, init: str, *, setting: str) -> set[str]:
    """Load the weights named by `init` into `system`; return the names of the loaded tensors.

    `random` loads nothing. `timm` or a file loads the backbone. `starter`, a run or a checkpoint loads every tensor of
    the same name, ignoring the leading `encoder` or `head`, because the cut may put a module on either side. A module
    that both systems have is loaded completely, except for prompts.

    Raises:
        ConfigError: the weights do not fit.
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
    incomplete = [n for n in own if _part(n) in parts and n not in found and not n.endswith(".prompts")]
    if incomplete and not wrong:
        raise CheckpointError(
            f"{setting}: {init} has only a part of {_part(incomplete[0])}: no {incomplete[0]} and "
            f"{len(incomplete) - 1} others; give a run of the same sizes"
        )
    if wrong or not found:
        what = f"{wrong[0]} is {tuple(found[wrong[0]].shape)}" if wrong else "no tensor name matches"
        raise CheckpointError(f"{setting}: {init} does not fit this model: {what}; give a run of the same sizes")
    system.load_state_dict(found, strict=False)
    return set(found)


def check_frozen(learner: nn.Module, loaded: set[str], *, setting: str) -> None:
    """Check that all frozen parameters are among the `loaded` ones (see `load_pretrained`), not random.

    Raises:
        ConfigError: a frozen parameter is random; the message names one.
    """
    random = [
        name for name, parameter in learner.named_parameters() if not parameter.requires_grad and name not in loaded
    ]
    if random:
        raise ConfigError(
            f"{setting} leaves {len(random)} frozen parameters random, e.g. {random[0]}: "
            "start from weights that contain them, or add them to optimizer.groups"
        )


def checkpoint_folder(init: str) -> str:
    """Return the checkpoint folder for `starter`, a run's folder or a checkpoint's own folder."""
    if init == STARTER:
        return default_models.SINGLE_NETWORK
    return f"{init}/best" if Storage(init).exists(f"best/{checkpoint.CARD}") else init


def _inner(name: str) -> str:
    return name.partition(".")[2]


def _part(name: str) -> str:
    """Return the module of a tensor, e.g. backbone or spatial, without the side of the cut."""
    return name.split(".")[1]


def _backbone(system: System, where: str) -> Backbone:
    backbone = getattr(system.encoder, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError(f"{where}: this model has no named backbone")
    return backbone


def _hint(backbone: Backbone, setting: str) -> str:
    """Return how to provide the weights of a backbone."""
    elsewhere = f"there, or name another file with --set {setting}=FILE"
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
    """Load strictly, except for layers that the cut removed from the network: its classifier and auxiliary heads."""
    own = {key: tensor for key, tensor in backbone.network.state_dict().items() if key not in backbone.added}
    missing = [key for key in own if key not in tensors or tensors[key].shape != own[key].shape]
    if missing:
        raise CheckpointError(f"{where}: no tensor of the right shape for {missing[0]!r} and {len(missing) - 1} others")
    heads = tuple(f"{top}." for top in (*backbone.cut, "AuxLogits"))
    foreign = [key for key in tensors if key not in own and not key.startswith(heads)]
    if foreign:
        raise CheckpointError(f"{where}: tensors of another network: {', '.join(foreign[:3])} …")
    backbone.network.load_state_dict({key: tensors[key] for key in own}, strict=False)  # all but the added prompts
