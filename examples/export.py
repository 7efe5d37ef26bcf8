"""Saves a TorchScript module with what its code does not say: datatypes and shapes.

    from export import save
    save(module, "model.pt", inputs={"image": ("FP32", [-1, 64])}, outputs={"scores": ("FP32", [-1, 10])},
         batching="rows", labels={"scores": ["zero", "one", ...]})

Names of inputs are those of `forward`'s arguments, -1 is a dimension of variable size.
`batching="rows"` says that dimension 0 counts rows which do not depend on one another, so that a sidecar may
run those of several requests as one batch. Leave it out where that is not so, as with a batch norm that is
still in training mode, or where dimension 0 is something else, such as time.
`labels` are what the classes of an output are called, for who asks for classes (the protocol's classification).
The description goes into the archive as `extra/sconce.json`.
"""

import json

import torch


def save(module, path, inputs, outputs, batching=None, labels=None):
    def fields(described):
        return [{"name": name, "datatype": datatype, "shape": shape} for name, (datatype, shape) in described.items()]

    description = {"inputs": fields(inputs), "outputs": fields(outputs)}
    for output in description["outputs"]:
        if labels and output["name"] in labels:
            output["labels"] = list(labels[output["name"]])
    if batching:
        description["batching"] = batching
    torch.jit.save(module, str(path), _extra_files={"sconce.json": json.dumps(description)})
