"""Small networks with a classifier for tests, importable in worker processes."""

import torch
from torch import nn


class LinearClassifier(nn.Module):
    """Nothing but the classifier of averaged maps."""

    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.fc = nn.Linear(n_channels, n_classes)


class _LinearClassifierFactory:
    """A function by all appearances, but with a name alike in every process: names of tests are made of it."""

    def __call__(self, n_channels=5, n_classes=4, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LinearClassifier(n_channels, n_classes)

    def __repr__(self):
        return "linear_classifier"

    def __reduce__(self):  # copies and pickles refer to the one below, as they do for functions
        return "linear_classifier"


#: Returns a LinearClassifier with fixed weights; functools.partial makes it a factory for other channel counts.
linear_classifier = _LinearClassifierFactory()


class TinyResNet(nn.Module):
    """Two last layers named and arranged as those of a ResNet, and its classifier of averages."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=4, padding=3)
        self.layer3 = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(16, 7)

    def forward(self, images):
        maps = self.layer4(self.layer3(torch.relu(self.stem(images))))
        return self.fc(maps.mean(dim=(2, 3)))


def tiny_resnet():
    """Return a TinyResNet with fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return TinyResNet()
