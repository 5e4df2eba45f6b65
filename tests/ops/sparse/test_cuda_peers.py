"""What spconv and spconv-triton are handed on CUDA: a stand-in for them computes what it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sparse3d_ops.sparse import Geometry
from sparse3d_ops.sparse.backends import spconv as peers
from sparse3d_ops.sparse.backends.reference import Reference

from .cases import sparse_tensor


class ImplicitGemm:
    """Multiplies under the taps whose bits are set, for rows in the order given."""

    @staticmethod
    def apply(features, weight, there, back, taps, taps_back, order, order_back, rows, masks, trains, is_subm, *rest):
        out = features.new_full((rows, len(weight)), torch.nan)
        for bits, row in zip(taps[0][:, 0].tolist(), order[0].tolist(), strict=True):
            used = [tap for tap in range(len(there)) if bits >> tap & 1]
            out[row] = sum(weight[:, tap] @ features[there[tap, row]] for tap in used)
        assert bool((taps[0][1:] >= taps[0][:-1]).all())
        assert bool((taps_back[0][1:] >= taps_back[0][:-1]).all())
        assert len(taps_back[0]) == len(order_back[0]) == len(features)
        for tap, row in (there >= 0).nonzero().tolist():
            assert back[tap, there[tap, row]] == row
        assert int((back >= 0).sum()) == int((there >= 0).sum())
        assert masks[0].tolist() == [2**32 - 1] and trains and not is_subm and rest[-1] is True
        return out


@pytest.mark.parametrize("kind", [peers.Spconv, peers.SpconvTriton])
@pytest.mark.parametrize("geometry", [Geometry.submanifold(3, 3), Geometry.of(3, 3, 2, 1)], ids=("subm", "strided"))
def test_maps_are_handed_over(kind, geometry: Geometry, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = kind()
    monkeypatch.setattr(kind, "functional", SimpleNamespace(SparseImplicitGemmFunction=ImplicitGemm))
    monkeypatch.setattr(peers, "import_module", lambda _: SimpleNamespace(CUDAKernelTimer=lambda _: None))
    monkeypatch.setattr(kind, "maps", Reference())
    x = sparse_tensor((4, 6, 5), 3, 2, 0.3, dtype=torch.float32)
    if geometry.stride == (1, 1, 1):
        kernel_map = backend.match(x.sites.keys, x.sites.volume, x.sites.coords, geometry, True)
    else:
        kernel_map = x.sites.coarsen(geometry).origin.kernel_map
    weight, bias = torch.randn(4, 27, 3), torch.randn(4)
    for part in (bias, None):
        expected = Reference().convolve(x.features, weight, part, kernel_map)
        torch.testing.assert_close(backend.convolve(x.features, weight, part, kernel_map), expected)


def test_what_they_do_not_take_is_an_error() -> None:
    backend = peers.Spconv()
    x = sparse_tensor((4, 6, 5), 3, 2, 0.3, dtype=torch.float32)
    wide = x.sites.submanifold_map(Geometry.submanifold(3, (3, 3, 5)))
    with pytest.raises(ValueError, match=r"at most 31 taps, got torch\.float32 and 45 taps"):
        backend.convolve(x.features, torch.randn(4, 45, 3), None, wide)
    usual = x.sites.submanifold_map(Geometry.submanifold(3, 3))
    with pytest.raises(ValueError, match="takes float16 or float32"):
        backend.convolve(x.features.bfloat16(), torch.randn(4, 27, 3).bfloat16(), None, usual)


def test_they_say_why_they_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert peers.Spconv().why_not(torch.device("cpu")) == "it runs on CUDA"
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    assert peers.SpconvTriton().why_not(cuda) == "spconv_triton is not installed"
    monkeypatch.setattr(peers, "find_spec", lambda _: object())
    for is_cpu_build, reason in ((True, "this build of spconv is for CPUs"), (False, None)):
        constants = SimpleNamespace(CPU_ONLY_BUILD=is_cpu_build)
        monkeypatch.setattr(peers, "import_module", lambda _, constants=constants: constants)
        assert peers.Spconv().why_not(cuda) == reason
