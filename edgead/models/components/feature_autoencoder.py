"""The autoencoder of EfficientAD: it reconstructs descriptors of patches from a code of the whole image.

Batzner, Heckler & König, "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
table 7. The encoder halves the resolution five times by 4x4 convolutions, and a convolution of the size of what remains
gives the code, one vector. The paper's decoder enlarges the code by steps that fit images of 256 pixels only, up to a
resolution finer than its output. Here a transposed convolution mirrors the one that gave the code, and three times the
resolution is doubled, for images of any size. A dropout of a fifth follows each rectifier of the decoder, as published.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgead.imaging.preprocess import ModelSize

DROPOUT = 0.2


class FeatureAutoencoder(nn.Module):
    """Convolutions from an image to its code, and from the code to descriptors at stride 4.

    Args:
        size: Size of the images.
        fine: Number of channels at strides 2 and 4.
        coarse: Number of channels at coarser strides, of the code and of the decoder.
        descriptor: Number of output channels.
    """

    def __init__(self, size: ModelSize, fine: int, coarse: int, descriptor: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (fine, fine, coarse, coarse, coarse):
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU(inplace=True)]
            channels = width
        remaining = (size.height_px // 32, size.width_px // 32)
        self.encoder = nn.Sequential(*layers, nn.Conv2d(coarse, coarse, remaining))
        layers = [nn.ConvTranspose2d(coarse, coarse, remaining), nn.ReLU(inplace=True), nn.Dropout(DROPOUT)]
        for _ in range(3):
            layers += [
                nn.Upsample(scale_factor=2.0, mode="bilinear"),
                nn.Conv2d(coarse, coarse, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Dropout(DROPOUT),
            ]
        self.decoder = nn.Sequential(*layers, nn.Conv2d(coarse, descriptor, 3, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Reconstruct descriptors.

        Args:
            pixels: (N, 3, H, W).

        Returns:
            (N, descriptor, H / 4, W / 4).
        """
        descriptors: Tensor = self.decoder(self.encoder(pixels))
        return descriptors
