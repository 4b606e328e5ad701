"""ResNet-50, torchvision's, with random weights.

He et al., arXiv:1512.03385. torchvision's is the common variant with the stride in the 3x3
convolution of a bottleneck. The authors of the paper published no ImageNet code.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import SpecError


def resnet50(in_shape: tuple[int, ...], classes: int) -> nn.Module:
    """ResNet-50: [b, 3, h, w] to [b, classes], images of any size.

    Layers have torchvision's names, conv1 to fc. Initial weights are torchvision's: convolutions
    kaiming-normal by fan-out, the classifier torch's own, and the same for dense and sparse. Raises
    SpecError for other than 3 channels.
    """
    if in_shape[0] != 3:
        raise SpecError(f"resnet50 takes images of 3 channels, not {in_shape[0]}")
    return cast(nn.Module, import_torchvision().models.resnet50(weights=None, num_classes=classes))
