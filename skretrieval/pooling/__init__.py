"""Feature maps to descriptors."""

from . import _channel as channel
from . import _reductions as reductions
from . import _regions as regions
from . import _spatial as spatial
from ._adaptive_gaussian import AdaptiveGaussianPooler
from ._bow import BoWPooler
from ._class_activation import ClassActivationMask
from ._crow import CroWPooler
from ._entropy import EntropyPooler
from ._fisher import FisherVectorPooler
from ._fusion import PoolerFusion
from ._gem import GeMPooler
from ._grmac import GRMACPooler
from ._layerwise import LayerwisePooler
from ._mac import MACPooler
from ._netvlad import NetVLADPooler
from ._part_weighted import PartWeightedPooler
from ._region_integration import RegionIntegrationPooler
from ._regional_second_order import RegionalSecondOrderPooler
from ._rmac import RMACPooler
from ._sjw import SJWPooler
from ._spoc import SPoCPooler
from ._square_sum_rmac import SquareSumRMACPooler
from ._sum import SumPooler
from ._t_embedding import TEmbeddingPooler
from ._vlad import VLADPooler
from ._weighted import WeightedPooler

__all__ = [
    "AdaptiveGaussianPooler",
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
    "RegionalSecondOrderPooler",
    "SJWPooler",
    "SPoCPooler",
    "SquareSumRMACPooler",
    "SumPooler",
    "TEmbeddingPooler",
    "VLADPooler",
    "WeightedPooler",
    "channel",
    "reductions",
    "regions",
    "spatial",
]
