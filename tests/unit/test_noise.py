"""The defining equation of every noise kind and schedule, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coconut_lm import noise

seeds, scales = st.integers(0, 1000), st.floats(0.01, 5.0)
quick = settings(deadline=None, max_examples=30)


def thought(seed: int, rows: int = 3) -> Tensor:
    return torch.randn(rows, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def perturbed(kind: str, h_BD: Tensor, scale: float, seed: int = 0) -> Tensor:
    g_BD = noise.draw(kind, [(seed, row) for row in range(len(h_BD))], h_BD)
    return noise.perturb(kind, h_BD, torch.full((len(h_BD), 1), scale, dtype=h_BD.dtype), g_BD)


def norms(x_BD: Tensor) -> Tensor:
    return x_BD.norm(dim=-1)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_scale_zero_changes_nothing_and_any_other_does(kind: str) -> None:
    h = thought(1)
    assert torch.equal(perturbed(kind, h, 0.0), h)
    assert not torch.allclose(perturbed(kind, h, 0.7), h)


@quick
@given(seeds, scales)
def test_the_length_of_the_noise(seed: int, scale: float) -> None:
    h = thought(seed)
    for kind in ("gaussian_scaled", "orthogonal"):
        torch.testing.assert_close(
            norms(perturbed(kind, h, scale) - h), scale * norms(h), rtol=1e-6, atol=1e-6
        )
    torch.testing.assert_close(
        norms(h) / norms(perturbed("snr", h, scale) - h),
        torch.full((3,), scale).double(),
        rtol=1e-6,
        atol=1e-6,
    )


@quick
@given(seeds, scales)
def test_orthogonal_noise_stands_upright(seed: int, scale: float) -> None:
    h = thought(seed)
    added = perturbed("orthogonal", h, scale) - h
    cosine = (h * added).sum(-1) / (norms(h) * norms(added))
    assert cosine.abs().max() < 1e-6


@quick
@given(seeds, scales)
def test_targeted_noise_keeps_the_direction(seed: int, scale: float) -> None:
    h = thought(seed)
    torch.testing.assert_close(perturbed("targeted_same", h, scale), h * (1 + scale))
    torch.testing.assert_close(perturbed("targeted_opposite", h, scale), h * (1 - scale))


def test_gaussian_uniform_and_dropout_have_their_distributions() -> None:
    h = torch.ones(400, 500, dtype=torch.float64)
    gauss = perturbed("gaussian", h, 0.5) - h
    assert gauss.mean().abs() < 0.01 and gauss.std().item() == pytest.approx(0.5, rel=0.01)
    flat = perturbed("uniform", h, 2.0) - h
    assert (
        flat.min() >= -2
        and flat.max() < 2
        and flat.std().item() == pytest.approx(4 / math.sqrt(12), rel=0.01)
    )
    dropped = perturbed("dropout", h, 0.3)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert dropped.mean().item() == pytest.approx(0.7, abs=0.01)
    assert not perturbed("dropout", h[:2], 1.7).any()


@quick
@given(seeds, scales)
def test_each_row_has_its_own_scale(seed: int, scale: float) -> None:
    h, scale_B1 = thought(seed), torch.tensor([[0.0], [scale], [2 * scale]], dtype=torch.float64)
    for kind in noise.KINDS:
        g = noise.draw(kind, [(seed, row) for row in range(3)], h)
        mixed = noise.perturb(kind, h, scale_B1, g)
        assert torch.equal(mixed[0], h[0])
        for row in (1, 2):
            alone = noise.perturb(kind, h[row : row + 1], scale_B1[row : row + 1], g[row : row + 1])
            torch.testing.assert_close(mixed[row], alone[0], rtol=1e-12, atol=1e-12)


def test_scales_that_differ_at_all_have_keys_that_differ() -> None:
    tried = [0.0, 5e-324, 0.1, 0.1 + 1e-16, 0.2, 1.0, 1e9, math.inf]
    assert len({noise.scale_key(scale) for scale in tried}) == len(set(tried))


def test_a_key_is_a_draw() -> None:
    h = thought(0, rows=2)
    one = noise.draw("gaussian", [(1, 2, 3), (1, 2, 4)], h)
    assert torch.equal(one, noise.draw("gaussian", [(1, 2, 3), (1, 2, 4)], h))
    assert torch.equal(one.flip(0), noise.draw("gaussian", [(1, 2, 4), (1, 2, 3)], h))
    assert not torch.equal(one[0], one[1])
    assert torch.allclose(noise.draw("gaussian", [(1, 2, 3)], h.float()).double(), one[:1])


def test_schedules_follow_their_formulas() -> None:
    at = {name: [rule(2.0, t, 4, 0.5) for t in range(4)] for name, rule in noise.SCHEDULES.items()}
    assert at["none"] == [0, 0, 0, 0]
    assert at["constant"] == [2, 2, 2, 2]
    assert at["linear"] == pytest.approx([2, 1.5, 1, 0.5])
    assert at["cosine"] == pytest.approx([1 + math.cos(math.pi * t / 4) for t in range(4)])
    assert at["exponential"] == at["adaptive"] == pytest.approx([2 * math.exp(-0.5 * t) for t in range(4)])


@pytest.mark.parametrize("kind", noise.KINDS)
def test_diagnostics_say_what_happened(kind: str) -> None:
    h = thought(5)
    noisy = perturbed(kind, h, 0.4)
    report = noise.diagnostics(kind, 0.4, h, noisy)
    assert report["noise_type"] == kind and report["noise_scale"] == 0.4
    assert report["original_norm"] == pytest.approx(norms(h).mean().item())
    assert report["noise_norm"] == pytest.approx(norms(noisy - h).mean().item())
    assert report["perturbed_norm"] == pytest.approx(norms(noisy).mean().item())
    if kind == "snr":
        assert report["actual_snr"] == pytest.approx(0.4)
    if kind == "gaussian_scaled":
        assert report["scale_ratio"] == pytest.approx(0.4)
    if kind == "orthogonal":
        assert report["orthogonality"] == pytest.approx(0, abs=1e-6)
