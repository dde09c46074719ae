# SPDX-License-Identifier: MIT
"""Evaluate the model and the operator in a folder, with `spon` alone: python deployed.py FOLDER [absent modules]."""

import sys


def predict(folder: str) -> None:
    """Write outputs.pt for inputs.pt."""
    import torch

    import spon

    model, network = spon.load(folder + "/model.safetensors"), spon.load(folder + "/operator.safetensors")
    inputs = torch.load(folder + "/inputs.pt", weights_only=True)
    with torch.no_grad():
        found = {"stress by torch": model(inputs["strain"])[0], "output": network(inputs["f"])}
    stress, tangent = spon.Evaluator(model)(inputs["strain"].numpy())
    found |= {"stress": torch.as_tensor(stress), "tangent": torch.as_tensor(tangent)}
    torch.save(found, folder + "/outputs.pt")


if __name__ == "__main__":
    folder, *absent = sys.argv[1:]
    sys.modules.update(dict.fromkeys(absent))  # an import of these fails
    predict(folder)
