"""The compact networks that the sparse patterns of dst suggest, and even ones of as many weights.

Written by `python -m analysis build` from the measured layers: compact-networks.md has the rule.
"""

# ruff: noqa
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "dense training of the compact networks that the sparse patterns suggest, and of even ones"
EXHIBITS = ("compact-networks",)
SEEDS = range(3)
NETWORKS = [
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(17, 24)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(18, 6)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(12, 11)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(12, 4)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(10, 7)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(10, 3)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(7, 3)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(7, 2)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(5, 2)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(4, 1)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-300-100', widths=(3, 1)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(15, 26, 6)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(3, 8, 85)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(8, 5, 6)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(1, 3, 28)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(6, 3, 5)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(1, 2, 19)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(5, 2, 5)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(1, 2, 15)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(4, 1, 6)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
    (Data(name='mnist', standardize=False), Model(name='lenet-5-caffe', widths=(1, 1, 12)), Optimizer(batch_size=64, epochs=20, lr=0.01, momentum=0.9, name='sgd', nesterov=False, schedule='constant', weight_decay=0.0)),
]


def suite() -> list[RunSpec]:
    return [
        cell("dense", data=data, model=model, optimizer=optimizer, seed=seed, protocol=())
        for seed in SEEDS
        for data, model, optimizer in NETWORKS
    ]
