"""Feature maps to descriptors."""

from ._codebooks._bow import BoWPooler
from ._codebooks._fisher import FisherVectorPooler
from ._codebooks._netvlad import NetVLADPooler
from ._codebooks._t_embedding import TEmbeddingPooler
from ._codebooks._vlad import VLADPooler
from ._combine._class_activation import ClassActivationMask
from ._combine._fusion import PoolerFusion
from ._combine._layerwise import LayerwisePooler
from ._engine._base import BasePooler
from ._engine._signs import keep_signs
from ._grammar import _channel as channel
from ._grammar import _reductions as reductions
from ._grammar import _regions as regions
from ._grammar import _spatial as spatial
from ._grammar._region_set import RegionSetPooler
from ._grammar._weighted import WeightedPooler
from ._presets._adaptive_gaussian import AdaptiveGaussianPooler
from ._presets._crow import CroWPooler
from ._presets._entropy import EntropyPooler
from ._presets._gem import GeMPooler
from ._presets._grmac import GRMACPooler
from ._presets._mac import MACPooler
from ._presets._part_weighted import PartWeightedPooler
from ._presets._region_integration import RegionIntegrationPooler
from ._presets._rmac import RMACPooler
from ._presets._sjw import SJWPooler
from ._presets._spoc import SPoCPooler
from ._presets._square_sum_rmac import SquareSumRMACPooler
from ._presets._sum import SumPooler
from ._second_order._regional_second_order import RegionalSecondOrderPooler

__all__ = [
    "AdaptiveGaussianPooler",
    "BasePooler",
    "BoWPooler",
    "ClassActivationMask",
    "CroWPooler",
    "EntropyPooler",
    "FisherVectorPooler",
    "GRMACPooler",
    "GeMPooler",
    "LayerwisePooler",
    "MACPooler",
    "NetVLADPooler",
    "PartWeightedPooler",
    "PoolerFusion",
    "RMACPooler",
    "RegionIntegrationPooler",
    "RegionSetPooler",
    "RegionalSecondOrderPooler",
    "SJWPooler",
    "SPoCPooler",
    "SquareSumRMACPooler",
    "SumPooler",
    "TEmbeddingPooler",
    "VLADPooler",
    "WeightedPooler",
    "channel",
    "keep_signs",
    "reductions",
    "regions",
    "spatial",
]
