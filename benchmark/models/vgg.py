"""VGG-16 for small images as the paper has it: 13 convolutions and two fully connected layers.

Simonyan & Zisserman, arXiv:1409.1556, configuration D, in the variant of the authors' code
(junjieliu2910/DynamicSparseTraining 595c91e, cifar/models/vgg.py and masked_vgg.py): batch
normalisation after every convolution, which has no bias; 2x2 max-pooling after the first four
groups and 2x2 average-pooling after the last; one hidden layer of 512 with batch normalisation.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from benchmark.spec import SpecError

GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN = 512
WIDTHS = (*(width for group in GROUPS for width in group), HIDDEN)


class VGG16(nn.Sequential):
    """[b, c, h, w] to [b, classes]; h and w at least 32, and in training b at least 2.

    `conv1` to `conv13`, `fc1` and `fc2` are Conv 1 to Conv 13, FC 1 and FC 2 of the paper's
    figures 5 to 7. On 32x32 images `fc1` takes 512 values; the authors' takes no other size.

    initialization: None is torch's own, kaiming-uniform with a = sqrt 5, BatchNorm weights 1. The
    authors' code sets BatchNorm2d weights to 0.5 in both twins. "official-masked" has nothing
    else; "official-dense" draws convolutions from N(0, 2 / (9 c_out)), that being the variance,
    and fully connected weights from N(0, 0.01²), their biases 0. widths: channels of the 13
    convolutions, units of `fc1`. Raises SpecError for small images.
    """

    uncounted: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        in_shape: tuple[int, ...],
        classes: int,
        *,
        initialization: str | None = None,
        widths: tuple[int, ...] = WIDTHS,
    ) -> None:
        super().__init__()
        channels, *size = in_shape
        rows, columns = (length // 32 for length in size)
        if min(rows, columns) < 1:
            raise SpecError(f"vgg16 cannot take images of {size[0]}x{size[1]}: 32x32 are the smallest")
        number = 0
        for group, layers in enumerate(GROUPS, start=1):
            for _ in layers:
                width = widths[number]
                number += 1
                self.add_module(f"conv{number}", nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False))
                self.add_module(f"norm{number}", nn.BatchNorm2d(width))
                self.add_module(f"relu{number}", nn.ReLU(inplace=True))
                channels = width
            self.add_module(f"pool{group}", nn.AvgPool2d(2) if group == len(GROUPS) else nn.MaxPool2d(2))
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(channels * rows * columns, widths[-1])
        self.fc1_norm = nn.BatchNorm1d(widths[-1])
        self.fc1_relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(widths[-1], classes)
        if initialization is not None:
            self._initialize_officially(masked=initialization == "official-masked")

    def _initialize_officially(self, *, masked: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.5)
            elif isinstance(module, nn.Conv2d) and not masked:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear) and not masked:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
