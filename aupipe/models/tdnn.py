"""Time-delay networks: a log-mel spectrogram (B, 64, M) → one vector per column (B, E, M)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aupipe.media.mel import N_MELS


class TDNN(nn.Sequential):
    """The frame layers of Snyder et al.: X-vectors (ICASSP 2018), after Peddinti et al. (Interspeech 2015).

    Contexts and dilations 5·1, 3·2, 3·3, 1, 1, so the receptive field of a column is −7 to +7.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__(
            _unit(N_MELS, width, context=5, dilation=1),
            _unit(width, width, context=3, dilation=2),
            _unit(width, width, context=3, dilation=3),
            _unit(width, width, context=1, dilation=1),
            _unit(width, width, context=1, dilation=1),
        )


def _unit(inner: int, width: int, *, context: int, dilation: int) -> nn.Sequential:
    padding = dilation * (context - 1) // 2
    conv = nn.Conv1d(inner, width, context, dilation=dilation, padding=padding)
    return nn.Sequential(conv, nn.ReLU(), nn.BatchNorm1d(width))


class FTDNN(nn.Module):
    """Factorized TDNN with skips: Villalba et al. (Computer Speech & Language 2020), after Povey et al. (Interspeech
    2018); sizes, order and the last layer as in the code of Jin et al. (ABAW2, 2021). The receptive field of a
    column is −21 to +21.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.layer1 = _unit(N_MELS, 512, context=5, dilation=1)
        self.layer2 = FactorizedLayer(512, context=2, dilations=(2, 2, 2))
        self.layer3 = FactorizedLayer(1024, context=1)
        self.layer4 = FactorizedLayer(1024, context=2)
        self.layer5 = FactorizedLayer(2048, context=1)
        self.layer6 = FactorizedLayer(1024, context=2)
        self.layer7 = FactorizedLayer(3072, context=2)
        self.layer8 = FactorizedLayer(1024, context=2)
        self.layer9 = FactorizedLayer(3072, context=1)
        self.layer10 = _unit(1024, width, context=1, dilation=1)

    def forward(self, mel: Tensor) -> Tensor:
        x2 = self.layer2(self.layer1(mel))
        x3 = self.layer3(x2)
        x4 = self.layer4(x3)
        x6 = self.layer6(self.layer5(torch.cat([x4, x3], dim=1)))
        x8 = self.layer8(self.layer7(torch.cat([x6, x4, x2], dim=1)))
        out: Tensor = self.layer10(self.layer9(torch.cat([x8, x6, x4], dim=1)))
        return out


class FactorizedLayer(nn.Module):
    """Layer (B, inner, M) → (B, 1024, M) through two bottlenecks of 256, then ReLU and batch norm; no biases."""

    def __init__(self, inner: int, *, context: int, dilations: tuple[int, int, int] = (3, 3, 2)) -> None:
        super().__init__()
        widths = (inner, 256, 256, 1024)
        # With an even context an odd dilation pads one column too many in the first step, one too few in the second.
        paddings = (dilations[0] - dilations[0] // 2, dilations[1] // 2, dilations[2] // 2)
        if context == 1:
            dilations, paddings = (1, 1, 1), (0, 0, 0)
        steps = [
            nn.Conv1d(widths[i], widths[i + 1], context, dilation=dilations[i], padding=paddings[i], bias=False)
            for i in range(3)
        ]
        for step in steps[:2]:
            nn.init.normal_(step.weight, std=(step.in_channels * context) ** -0.5)  # near semi-orthogonal
        self.steps = nn.Sequential(*steps)
        self.norm = nn.BatchNorm1d(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.steps(x).relu())
        return out


# `audio.tdnn` of a configuration → its network
NETWORKS = {"tdnn": TDNN, "ftdnn": FTDNN}
