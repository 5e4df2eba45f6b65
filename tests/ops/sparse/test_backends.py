"""The choice of a backend."""

from __future__ import annotations

import pytest
import torch

from sparse3d_ops.sparse import SubMConv3d, use_backend
from sparse3d_ops.sparse.backends import VARIABLE, backend_for

from .cases import sparse_tensor

CPU = torch.device("cpu")


def test_a_cpu_has_numba_and_other_devices_torch() -> None:
    assert backend_for(CPU).name == "numba"
    assert backend_for(torch.device("meta")).name == "reference"


def test_the_context_outranks_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "reference")
    assert backend_for(CPU).name == "reference"
    with use_backend("numba"):
        assert backend_for(CPU).name == "numba"
        with use_backend("auto"):
            assert backend_for(CPU).name == "numba"
        assert backend_for(CPU).name == "numba"
    assert backend_for(CPU).name == "reference"
    with pytest.raises(RuntimeError), use_backend("numba"):
        raise RuntimeError
    assert backend_for(CPU).name == "reference"


def test_impossible_choices_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown backend 'fast'; known are auto, reference"), use_backend("fast"):
        pass
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(ValueError, match=f"{VARIABLE}: unknown backend 'cuda'"):
        SubMConv3d(4, 4, 3)(sparse_tensor(dtype=torch.float32))
    with use_backend("numba"), pytest.raises(ValueError, match="'numba' cannot compute on meta: it runs on a CPU"):
        backend_for(torch.device("meta"))


def test_backends_give_the_same() -> None:
    module, x = SubMConv3d(4, 6, 3), sparse_tensor(dtype=torch.float32)
    with use_backend("reference"):
        expected = module(x.replace_features(x.features)).features
    torch.testing.assert_close(module(x).features, expected)
