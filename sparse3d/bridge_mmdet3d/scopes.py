"""Building components of one side while a config of the other one is built.

mmengine looks a bare name up in the registry of the default scope, whoever asks: inside of an mmdetection3d config
`MODELS.build(dict(type="SparseEncoder"))` of ours would give theirs. So each side's parts are built in its own scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import ConfigDict


def ours(config: Mapping[str, Any]) -> ConfigDict:
    """Return a config whose bare names are sparse3d's; others say their scope (``mmdet3d.SECOND``)."""
    return ConfigDict(config, _scope_="sparse3d")


def theirs(config: Mapping[str, Any]) -> ConfigDict:
    """Return a config whose bare names are mmdetection3d's."""
    return ConfigDict(config, _scope_="mmdet3d")
