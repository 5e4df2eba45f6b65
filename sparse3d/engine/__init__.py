"""The engine: what mmengine 0.10 needs on current PyTorch and on a CPU, and nowhere else.

* `runner.py`: mmengine's Runner, at home on current PyTorch; building one from a config
* `loops.py`: training loops that resume in the middle of an epoch without loading what was seen
* `files.py`: checkpoints as files, written whole or not at all, verified, found again, read safely
* `saving.py`: when checkpoints are saved and removed, and what they hold
* `amp.py`: mixed precision on any device
* `sharding.py`: FSDP
* `non_finite.py`: stops at the first NaN or infinity and says where it came from
* `provenance.py`: what a run was made of: versions, git state, data
"""

from .amp import AmpOptimWrapper
from .files import CheckpointError, newest_checkpoint, read_checkpoint, verify_checkpoint
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .non_finite import NonFiniteError, NonFiniteHook
from .runner import Runner, build_runner
from .saving import CheckpointHook, PlainCheckpointHook

__all__ = [
    "AmpOptimWrapper",
    "CheckpointError",
    "CheckpointHook",
    "EpochBasedTrainLoop",
    "IterBasedTrainLoop",
    "NonFiniteError",
    "NonFiniteHook",
    "PlainCheckpointHook",
    "Runner",
    "build_runner",
    "newest_checkpoint",
    "read_checkpoint",
    "verify_checkpoint",
]
