"""Small real networks for tests, importable in worker processes."""

import os

import torch
from torch import nn


class CountingNetwork(nn.Module):
    """Two strided convolutions; appends a line to a file, the one given or SKRETRIEVAL_TEST_LOG, for every image."""

    def __init__(self, log=None):
        super().__init__()
        self.log = log
        self.first = nn.Conv2d(3, 6, 5, stride=4, padding=2)
        self.second = nn.Conv2d(6, 10, 3, stride=2, padding=1)

    def forward(self, images):
        log = self.log or os.environ.get("SKRETRIEVAL_TEST_LOG")
        if log:
            with open(log, "a") as file:
                file.write("image\n" * len(images))
        return torch.relu(self.second(torch.relu(self.first(images))))


def counting_network(log=None):
    """Return a CountingNetwork with fixed weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return CountingNetwork(log)


def two_layer_network():
    """Return a network whose forward gives a tuple of two maps."""
    return TwoMaps(counting_network())


class TwoMaps(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        first = torch.relu(self.network.first(images))
        return first, torch.relu(self.network.second(first))


def flat_network():
    """Return a network that gives no maps."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def no_network():
    """Return what is no network."""
    return "nothing"
