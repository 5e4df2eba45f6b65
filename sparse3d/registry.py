"""Registries of sparse3d: children of mmengine's, so that components of either can be named in one config."""

import mmengine.registry as _roots
from mmengine.registry import DATA_SAMPLERS as _DATA_SAMPLERS
from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import LOOPS as _LOOPS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import OPTIM_WRAPPERS as _OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry("model", parent=_MODELS, scope="sparse3d", locations=["sparse3d.models"])
DATASETS = Registry("dataset", parent=_DATASETS, scope="sparse3d", locations=["sparse3d.datasets"])
DATA_SAMPLERS = Registry("data sampler", parent=_DATA_SAMPLERS, scope="sparse3d", locations=["sparse3d.datasets"])
TRANSFORMS = Registry("transform", parent=_TRANSFORMS, scope="sparse3d", locations=["sparse3d.datasets.transforms"])
METRICS = Registry("metric", parent=_METRICS, scope="sparse3d", locations=["sparse3d.evaluation"])
HOOKS = Registry(
    "hook",
    parent=_HOOKS,
    scope="sparse3d",
    locations=["sparse3d.engine", "sparse3d.clock", "sparse3d.datasets", "sparse3d.progress", "sparse3d.visualization"],
)
LOOPS = Registry("loop", parent=_LOOPS, scope="sparse3d", locations=["sparse3d.clock"])
OPTIM_WRAPPERS = Registry("optim_wrapper", parent=_OPTIM_WRAPPERS, scope="sparse3d", locations=["sparse3d.engine"])

# mmengine logs a warning each time it looks into a registry that has no child in the config's scope.
for _name in ("OPTIMIZERS", "OPTIM_WRAPPER_CONSTRUCTORS", "PARAM_SCHEDULERS", "VISUALIZERS", "VISBACKENDS",
              "LOG_PROCESSORS", "MODEL_WRAPPERS", "WEIGHT_INITIALIZERS", "EVALUATOR", "FUNCTIONS"):  # fmt: skip
    _root = getattr(_roots, _name)
    Registry(_root.name, parent=_root, scope="sparse3d")
