"""torchvision is imported as the benchmark imports it, which works beside a CPU build of torch."""

from benchmark.data.torchvision_import import import_torchvision

import_torchvision()
