"""Fashion-MNIST from its four packed files, their MD5 checked before anything is parsed.

Xiao et al., Fashion-MNIST, 2017, arXiv:1708.07747: 60,000 training and 10,000 test images in
MNIST's format, read from DIR/FashionMNIST/raw (torchvision's layout) or DIR/fashion-mnist.
The checksums are those that torchvision 0.28 lists. They are of the packed files, so only those are
read; no copy of the files was available to compute SHA-256 from.
"""

from __future__ import annotations

from benchmark.data.idx import FILES, IdxFiles

__all__ = ["FILES", "MD5", "fetch", "fingerprint", "read", "verify"]

MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_FILES = IdxFiles("fashion-mnist", "FashionMNIST", ("FashionMNIST/raw", "fashion-mnist"), "MD5", MD5)
read, fetch, verify, fingerprint = _FILES.read, _FILES.fetch, _FILES.verify, _FILES.fingerprint
