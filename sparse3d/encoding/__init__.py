"""From inputs to what networks are told about them, on plain tensors: deployed models use it too."""

from .calibration import NUM_CODES, calibration_codes
from .ring_ray import CELLS, RingRay

__all__ = ["CELLS", "NUM_CODES", "RingRay", "calibration_codes"]
