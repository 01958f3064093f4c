"""IR-SE50: the residual unit of face recognition with squeeze-and-excitation; state dicts have the published keys.

Layers, order and keys are those of TreB1eN/InsightFace_Pytorch, model.py, whose network Jin et al. (ABAW2, 2021) used
for their sequence model. Differences to IResNet: no middle batch norm, and a shortcut without weights if widths agree.
"""

from __future__ import annotations

from torch import Tensor, nn

DEPTHS = (3, 4, 14, 3)
WIDTHS = (64, 128, 256, 512)
EMBEDDING = 512
REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Each channel times a gate in (0, 1) computed from the means of all channels (Hu et al., CVPR 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // REDUCTION, kernel_size=1, bias=False)
        self.fc2 = nn.Conv2d(width // REDUCTION, width, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(-2, -1), keepdim=True)
        return x * self.fc2(self.fc1(mean).relu()).sigmoid()


class Block(nn.Module):
    """BN, conv 3×3, PReLU, conv 3×3 (stride), BN, squeeze-and-excitation, plus the shortcut."""

    def __init__(self, *, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # takes every stride-th pixel
        if inner != width:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inner, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, width, kernel_size=3, padding=1, bias=False),
            nn.PReLU(width),
            nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            SqueezeExcitation(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class IRSE50(nn.Module):
    """Crops (B, 3, size, size) → map (B, 512, g, g), g = ⌈size / 16⌉; map → embedding (B, 512). As `IResNet`."""

    CUT = ("output_layer.3", "output_layer.4")  # the layers that `map_only` leaves out

    def __init__(self, *, size_px: int, dropout: float, map_only: bool) -> None:
        super().__init__()
        self.channels, self.width = WIDTHS[-1], EMBEDDING
        self.grid = (-(-size_px // 16),) * 2
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.PReLU(WIDTHS[0]),
        )
        self.body = nn.Sequential(
            *(
                Block(inner=inner if number == 0 else width, width=width, stride=2 if number == 0 else 1)
                for inner, width, depth in zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, DEPTHS, strict=True)
                for number in range(depth)
            )
        )
        self.output_layer = nn.Sequential(nn.BatchNorm2d(self.channels))
        if not map_only:
            flat = self.channels * self.grid[0] * self.grid[1]
            layers = (nn.Dropout(dropout), nn.Flatten(), nn.Linear(flat, self.width), nn.BatchNorm1d(self.width))
            self.output_layer.extend(layers)

    def forward(self, frames: Tensor) -> Tensor:
        out: Tensor = self.output_layer[0](self.body(self.input_layer(frames)))
        return out

    def embed(self, features: Tensor) -> Tensor:
        """Return the embedding (B, 512) of a map (B, 512, g, g), not normalized to length 1."""
        out: Tensor = self.output_layer[1:](features)
        return out
