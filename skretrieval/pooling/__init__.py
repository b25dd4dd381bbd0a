"""Feature maps to descriptors."""

from . import _channel as channel
from . import _reductions as reductions
from . import _regions as regions
from . import _spatial as spatial
from ._crow import CroWPooler
from ._fusion import PoolerFusion
from ._gem import GeMPooler
from ._grmac import GRMACPooler
from ._layerwise import LayerwisePooler
from ._mac import MACPooler
from ._rmac import RMACPooler
from ._sjw import SJWPooler
from ._spoc import SPoCPooler
from ._sum import SumPooler
from ._weighted import WeightedPooler

__all__ = [
    "CroWPooler",
    "GRMACPooler",
    "GeMPooler",
    "LayerwisePooler",
    "MACPooler",
    "PoolerFusion",
    "RMACPooler",
    "SJWPooler",
    "SPoCPooler",
    "SumPooler",
    "WeightedPooler",
    "channel",
    "reductions",
    "regions",
    "spatial",
]
