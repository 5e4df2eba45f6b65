"""From a head's raw output to boxes, on plain tensors: what training's validation and a deployed model share.

Nothing here imports mmengine, so that `sparse3d.deploy.Runtime` needs none.
"""

from .center import Candidates, CenterDecoder
from .keypoints import People, decode_people
from .transfusion import Queries, TransFusionDecoder

__all__ = ["Candidates", "CenterDecoder", "People", "Queries", "TransFusionDecoder", "decode_people"]
