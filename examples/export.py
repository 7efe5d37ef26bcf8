"""Saves a TorchScript module with what its code does not say: datatypes and shapes.

    from export import save
    save(module, "model.pt", inputs={"image": ("FP32", [-1, 64])}, outputs={"scores": ("FP32", [-1, 10])})

Names of inputs are those of `forward`'s arguments, -1 is a dimension of variable size.
The description goes into the archive as `extra/sconce.json`.
"""

import json

import torch


def save(module, path, inputs, outputs):
    def fields(described):
        return [{"name": name, "datatype": datatype, "shape": shape} for name, (datatype, shape) in described.items()]

    description = json.dumps({"inputs": fields(inputs), "outputs": fields(outputs)})
    torch.jit.save(module, str(path), _extra_files={"sconce.json": description})
