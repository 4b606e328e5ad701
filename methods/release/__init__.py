"""A finalized network as a folder of files that can be published, and read back by others.

`save` writes the folder, `load` and `load_masks` read it:

    model.safetensors           the network: every tensor of its state_dict, pruned weights as zeros
    model-csr.safetensors       the same; weights of less than 20 % as CSR arrays (`csr_and_bits`)
    model-compact.safetensors   the network without the units that cannot affect the output
    masks.safetensors           the masks, one bit per weight (`csr_and_bits`)
    model.onnx                  the compact network, or the whole one where nothing is cut
    network.py                  the network as plain PyTorch
    release.json                sizes and SHA-256 of the files above, shapes, how the network is built
    README.md                   a model card

A file that cannot be made for a network is left out. Nothing is pickled. Reading runs no code of
the folder.
"""
