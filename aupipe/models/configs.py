"""The configuration of each system: plain settings, so that a checkpoint's card can be read without torch.

The comment beside a field is also its line in `--list-settings`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from aupipe import facs
from aupipe.config import Section

Output = Literal["au", "expr"]
N_AUS = len(facs.AUS)


class OutputsConfig(Section):
    """The outputs of a system, in order."""

    outputs: tuple[Output, ...] = Field(default=("au",), min_length=1)  # Outputs of the model, in this order.
    expressions: int = Field(default=8, ge=2)  # classes

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        if len(set(outputs)) < len(outputs):
            raise ValueError("an output is listed twice")
        return outputs

    @property
    def sizes(self) -> dict[str, int]:
        """Name → number of logits."""
        return {name: N_AUS if name == "au" else self.expressions for name in self.outputs}


class PromptConfig(Section):
    """Number and dropout of prompts."""

    length: int = Field(default=10, ge=0)  # prompts per layer; 0: none
    dropout: float = Field(default=0.1, ge=0, lt=1)  # Dropout probability of the prompts.


class ExpressionTransferConfig(OutputsConfig):
    name: Literal["expression_transfer"] = "expression_transfer"
    backbone: str = "resnet50"  # any name of `backbone.make`
    hidden: tuple[PositiveInt, ...] = (512, 256)  # of the AU head
    dropout: float = Field(default=0.5, ge=0, lt=1)  # of the AU head
    mirrored: bool = False  # mean of the logits of a frame and its mirror image; takes twice as long


class ImageTransformerConfig(OutputsConfig):
    name: Literal["image_transformer"] = "image_transformer"
    backbone: str = "vit_base_patch16_224_miil"  # any VisionTransformer of timm
    # A CNN, any name of `backbone.make`, whose map is the input of the ViT instead of the frame: a hybrid. Initial
    # weights that a stage names are then those of the CNN.
    cnn: str | None = None
    prompts: PromptConfig | None = None


class MultilabelTransformerConfig(Section):
    name: Literal["multilabel_transformer"] = "multilabel_transformer"
    backbone: str = "inception_v3"  # any name of `backbone.make`
    width: int = Field(default=128, ge=8)  # d
    heads: int = Field(default=8, ge=1)  # Attention heads.
    mlp_width: int = Field(default=512, ge=8)  # Width of the MLP in each layer.
    dropout: float = Field(default=0.1, ge=0, lt=1)  # Dropout probability of the layers.
    decoder_layers: int = Field(default=2, ge=1)  # Layers in which the label tokens cross-attend to the image tokens.
    decoder_style: Literal["paper", "authors"] = "paper"  # authors: a second MLP after the label self-attention

    @model_validator(mode="after")
    def _heads_divide_width(self) -> MultilabelTransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """Name → number of logits."""
        return {"au": N_AUS}


class AudioConfig(Section):
    tdnn: Literal["tdnn", "ftdnn"] = "tdnn"  # ftdnn: the authors' code
    width: int = Field(default=512, ge=8)  # Channels of the time-delay network.
    # time: the vector of a frame is the one at its time. interp: the authors' code, which stretches the spectrogram of
    # a window to 100 columns, and their vectors to the frames, as if frames were evenly spaced.
    align: Literal["time", "interp"] = "time"


class SequenceConfig(Section):
    frames: int = Field(default=30, ge=1)  # S
    heads: int = Field(default=8, ge=1)  # Attention heads.
    head_width: int = Field(default=64, ge=1)  # Width of each attention head.
    mlp_width: int = Field(default=2048, ge=8)  # Width of the MLP in each layer.
    hidden: int = Field(default=512, ge=8)  # between the transformer and the outputs
    dropout: float = Field(default=0.1, ge=0, lt=1)  # Dropout probability of the layers.


class MultimodalConfig(OutputsConfig):
    name: Literal["multimodal"] = "multimodal"
    # The part of the system that is built and trained; each stage starts from the one before.
    stage: Literal["visual", "audio", "sequence"] = "sequence"
    backbone: str = "iresnet100"  # any name of `backbone.make`; the authors' last model has ir_se50
    dropout: float = Field(default=0.6, ge=0, lt=1)  # before the backbone's embedding
    outputs: tuple[Output, ...] = ("au", "expr")  # none: only an encoder, to train on identities
    expressions: int = Field(default=7, ge=2)  # classes
    uses_video: bool = True  # false: the audio step uses only audio
    audio: AudioConfig = AudioConfig()
    sequence: SequenceConfig = SequenceConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> MultimodalConfig:
        if not self.outputs and self.stage != "visual":
            raise ValueError(f"stage={self.stage} without outputs trains nothing; only stage=visual may have none")
        if not self.uses_video and self.stage != "audio":
            raise ValueError("uses_video=false goes with stage=audio")
        return self


class RegionRelationConfig(Section):
    name: Literal["region_relation"] = "region_relation"
    backbone: str = "iresnet100"  # any name of `backbone.make`
    dropout_fc: float = Field(default=0.6, ge=0, lt=1)  # before the backbone's embedding
    lrp: bool = True  # Use local region perception (LRP); requires arl.
    branches: int = Field(default=4, ge=1)  # Branches of LRP.
    reduction: int = Field(default=16, ge=1)  # Factor by which LRP reduces the channels.
    arl: bool = True  # Use the AU relation branch (ARL).
    neighbors: int = Field(default=4, ge=1, le=N_AUS)  # K
    count_self: bool = True  # an AU counts among its own K
    # shared: one linear layer over the features of all AUs (paper); per_node: each AU from its own features.
    output: Literal["shared", "per_node"] = "shared"
    fusion: Literal["none", "fixed", "attention"] = "attention"  # Combination of the AU branch and the global branch.
    fixed_weight: float = Field(default=0.5, ge=0, le=1)  # of the AU branch
    fusion_layers: int = Field(default=2, ge=1)  # Transformer layers of fusion=attention.
    fusion_heads: int = Field(default=8, ge=1)  # Attention heads of fusion=attention.
    fusion_mlp_width: int = Field(default=2048, ge=8)  # Width of the MLP of fusion=attention.
    fusion_dropout: float = Field(default=0.1, ge=0, lt=1)  # Dropout probability of fusion=attention.
    # pair: one pair of branch weights per frame; per_au: one pair per AU.
    fusion_weight: Literal["pair", "per_au"] = "pair"

    @model_validator(mode="after")
    def _branches_exist(self) -> RegionRelationConfig:
        if self.lrp and not self.arl:
            raise ValueError("lrp=true without arl=true: nothing would use the regions; set arl=true or lrp=false")
        if self.fusion != "none" and not self.arl:
            raise ValueError(
                f"fusion={self.fusion} without arl=true: there is one branch only; set arl=true or fusion=none"
            )
        if self.neighbors == N_AUS and not self.count_self:
            raise ValueError(f"neighbors={N_AUS} without count_self=true: there are {N_AUS - 1} others")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """Name → number of logits."""
        return {"au": N_AUS}


class GeometryConfig(Section):
    name: Literal["geometry"] = "geometry"
    backbone: str = "regnety_002"  # any of timm with feature maps
    points: int = Field(default=99, ge=3)  # of the face
    hidden: tuple[PositiveInt, ...] = (256, 128)  # of the layers from points to AUs
    dropout: float = Field(default=0.1, ge=0, lt=1)  # of these layers

    @property
    def sizes(self) -> dict[str, int]:
        """Name → number of logits."""
        return {"au": N_AUS}


class VideoPromptConfig(PromptConfig):
    """Prompts and the layers that have them."""

    spatial: bool = True  # in the layers within a frame
    temporal: bool = True  # in the layers over frames


class VideoTransformerConfig(Section):
    name: Literal["video_transformer"] = "video_transformer"
    backbone: str = "regnety_004"  # any name of `backbone.make`
    token_grid: tuple[int, int] = (2, 2)  # the map, averaged to rows × columns of tokens: (4, 1) = rows, (1, 1) = one
    width: int = Field(default=440, ge=8)  # d
    heads: int = Field(default=10, ge=1)  # Attention heads.
    mlp_width: int = Field(default=1760, ge=8)  # Width of the MLP in each layer.
    dropout: float = Field(default=0.1, ge=0, lt=1)  # Dropout probability of the layers.
    init_std: float = Field(default=0.01, gt=0)  # of the linear layers' weights
    spatial_layers: int = Field(default=4, ge=0)  # 0: the mean over a frame's tokens
    temporal_layers: int = Field(default=4, ge=1)  # Layers over the frames of a clip.
    clip_frames: int = Field(default=256, ge=1)  # S
    head: Literal["with_cls", "frame_only"] = (
        "with_cls"  # logits from a frame's token and the clip's, or only the frame's
    )
    prompts: VideoPromptConfig | None = None
    cut: Literal["cnn", "spatial"] = "cnn"  # end of the encoder: after the CNN, or after the layers within a frame

    @model_validator(mode="after")
    def _parts_fit(self) -> VideoTransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if min(self.token_grid) < 1:
            raise ValueError(f"token_grid {self.token_grid} has no tokens")
        if self.cut == "spatial" and self.prompts and self.prompts.spatial and self.spatial_layers:
            raise ValueError(
                "cut=spatial encodes frames before prompts are trained; set prompts.spatial=false or cut=cnn"
            )
        return self


# Systems whose encoder ends in its logits, so that each frame is predicted independently
SingleFrameConfig = (
    MultilabelTransformerConfig
    | ExpressionTransferConfig
    | RegionRelationConfig
    | ImageTransformerConfig
    | GeometryConfig
)

ModelConfig = Annotated[
    SingleFrameConfig | VideoTransformerConfig | MultimodalConfig,
    Field(discriminator="name"),
]
