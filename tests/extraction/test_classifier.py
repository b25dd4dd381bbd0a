"""The classifier of an extractor's network, which no map depends on."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from references.classifiers import linear_classifier, tiny_resnet
from references.networks import counting_network
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor


def test_it_is_the_last_linear_layer():
    network = tiny_resnet()
    for backbone in (network, tiny_resnet):
        weights, bias = ConvFeatureExtractor(backbone, weights=None).classifier()
        assert_array_equal(weights, network.fc.weight.detach())
        assert_array_equal(bias, network.fc.bias.detach())
        assert weights.dtype == bias.dtype == np.float32


def test_a_convolution_of_one_cell_without_a_bias():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1, bias=False))
    weights, bias = ConvFeatureExtractor(network, weights=None).classifier(8)
    assert_array_equal(weights, network[1].weight.detach().flatten(1))
    assert_array_equal(bias, np.zeros(5))


def test_the_network_and_the_random_state_are_left_alone():
    network, random_state = linear_classifier(), np.random.RandomState(3)
    before = network.fc.weight.detach().clone()
    ConvFeatureExtractor(network, weights=None).classifier().weights[:] = 0
    assert torch.equal(network.fc.weight, before)
    ConvFeatureExtractor("squeezenet1_1", weights=None, random_state=random_state).classifier()
    assert random_state.randint(1000) == np.random.RandomState(3).randint(1000)


@pytest.mark.parametrize(
    ("backbone", "n_channels", "message"),
    [
        (tiny_resnet, 12, "takes 16 values, but the first map has 12 channels"),
        (nn.Sequential(nn.ReLU()), None, "takes none values"),
        (counting_network, 5, "takes 54 values"),
        ("resnet19", None, "no torchvision classification network"),
    ],
)
def test_what_has_no_fitting_classifier(backbone, n_channels, message):
    with pytest.raises(ValueError, match=message):
        ConvFeatureExtractor(backbone, weights=None).classifier(n_channels)
