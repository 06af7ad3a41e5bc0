"""What is fed back: windows by recency, masks, projections, lengths, noise on top."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import END, LATENT, START, tiny
from torch import Tensor, nn

from coconut_lm import Config, UserError
from coconut_lm.feedback import FixedWindow, LastHidden, LearnedWindow, MatchEmbedding, Noisy, build
from coconut_lm.feedback import settings as settings_of

H = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
ALL = torch.ones(2, 3, dtype=torch.long)
FIRST, SECOND = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)


def test_coconut_feeds_the_last_state() -> None:
    assert torch.equal(LastHidden()(H, ALL, FIRST), H[:, -1])


def test_fixed_weights_go_by_recency() -> None:
    window = FixedWindow((0.6, 0.3, 0.1)).double()
    expected = 0.6 * H[:, 2] + 0.3 * H[:, 1] + 0.1 * H[:, 0]
    torch.testing.assert_close(window(H, ALL, FIRST), expected, rtol=1e-6, atol=1e-6)


def test_a_short_history_renormalises_the_newest_weights() -> None:
    thought = FixedWindow((0.6, 0.3, 0.1))(H[:, :2], ALL[:, :2], FIRST)
    expected = (0.6 * H[:, 1] + 0.3 * H[:, 0]) / 0.9
    torch.testing.assert_close(thought, expected, rtol=1e-6, atol=1e-6)


def test_padding_is_never_mixed_in() -> None:
    mask = torch.tensor([[0, 0, 1], [0, 1, 1]])
    thought = LearnedWindow(3).double()(H, mask, FIRST)
    torch.testing.assert_close(thought[0], H[0, 2])
    torch.testing.assert_close(thought[1], H[1, 1:].mean(0))


def test_learned_weights_begin_uniform_and_are_a_softmax() -> None:
    window = LearnedWindow(3).double()
    torch.testing.assert_close(window(H, ALL, FIRST), H.mean(1))
    nn.init.constant_(window.latent_weights, 0)
    window.latent_weights.data[0] = 50
    torch.testing.assert_close(window(H, ALL, FIRST), H[:, -1])


def test_scope_pass_gives_a_window_to_the_first_thought_alone() -> None:
    window = LearnedWindow(3, scope="pass").double()
    torch.testing.assert_close(window(H, ALL, FIRST), H.mean(1))
    torch.testing.assert_close(window(H, ALL, SECOND), H[:, -1])
    mixed = window(H, ALL, torch.tensor([0, 1]))
    torch.testing.assert_close(mixed, torch.stack([H[0].mean(0), H[1, -1]]))


def test_a_row_of_padding_gives_zeros_and_finite_gradients() -> None:
    states = H.clone().requires_grad_()
    thought = LearnedWindow(3).double()(states, torch.tensor([[0, 0, 0], [1, 1, 1]]), FIRST)
    thought.sum().backward()
    assert not thought[0].any() and states.grad is not None and states.grad.isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["history", "pass"]))
def test_window_weights_always_sum_to_one(window: int, seen: int, scope: str) -> None:
    learned = LearnedWindow(window, scope).double()
    nn.init.normal_(learned.latent_weights)
    ones = torch.ones(1, min(window, seen), 4, dtype=torch.float64)
    thought = learned(ones, torch.ones(1, min(window, seen)), torch.tensor([0]))
    torch.testing.assert_close(thought, torch.ones(1, 4, dtype=torch.float64))


def test_matching_gives_the_length_of_embeddings_and_keeps_the_direction() -> None:
    thought = MatchEmbedding(LastHidden(), 2.5)(H, ALL, FIRST)
    torch.testing.assert_close(thought.norm(dim=-1), torch.full((2,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(thought / 2.5, H[:, -1] / H[:, -1].norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
def test_the_matched_length_is_measured_on_what_the_first_block_sees(family: str) -> None:
    model = tiny(family, feedback={"latent_norm": "match_embedding"})
    seen = model.get_input_embeddings()(torch.arange(67)).norm(dim=-1).mean().item()
    assert model.feedback.embedding_norm.item() == pytest.approx(seen, rel=1e-5)


def test_a_projection_is_linear_gelu_linear_norm() -> None:
    projected = build("coconut", hidden_size=4, projection=7).double()
    first, act, second, norm = projected.layers
    expected = norm(second(act(first(H[:, -1]))))
    assert (first.out_features, second.out_features) == (7, 4)
    torch.testing.assert_close(projected(H, ALL, FIRST), expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "nothing"}, "unknown feedback"),
        ({"kind": "learnable_weights", "window": 0}, "at least one state"),
        ({"kind": "fixed_window", "weights": (0.0, 1.0)}, "positive for the newest"),
        ({"kind": "fixed_window", "weights": (0.5, -0.1)}, "never negative"),
        ({"kind": "learnable_weights", "scope": "always"}, "unknown window scope"),
        ({"latent_norm": "both"}, "unknown latent_norm"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(**settings, hidden_size=4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "kind", "window"),
    [
        ({}, LastHidden, 1),
        ({"latent_variant": "basic"}, LastHidden, 1),
        ({"latent_variant": "fixed_window"}, FixedWindow, 3),
        (
            {"latent_variant": "fixed_window", "latent_window_size": 2, "latent_window_weights": [0.5, 0.5]},
            FixedWindow,
            2,
        ),
        ({"latent_variant": "learnable_weights", "latent_window_size": 4}, LearnedWindow, 4),
        ({"latent_variant": "learnable_weights_lora"}, LearnedWindow, 3),
    ],
)
def test_a_configuration_names_its_feedback(keys: dict[str, object], kind: type, window: int) -> None:
    config = Config(method="coconut", model_id="org/model", **keys)
    feedback = build(**settings_of(config), hidden_size=4)
    assert type(feedback) is kind and feedback.window == window
    both = Config(
        method="coconut", model_id="org/model", latent_projection=6, latent_norm="match_embedding", **keys
    )
    matched = build(**settings_of(both), hidden_size=4)
    assert isinstance(matched, MatchEmbedding) and type(matched.inner.inner) is kind  # type: ignore[union-attr]


# -- noise around a feedback --

IDS = torch.tensor([[3, START, LATENT, LATENT, LATENT, END], [9, START, LATENT, LATENT, LATENT, END]])


def traced(noisy: dict[str, object] | None, ids: Tensor = IDS, keys: list[int] | None = None) -> Tensor:
    """The thoughts of a model under noise."""
    model = tiny("gpt2")
    if noisy is not None:
        model.feedback = Noisy(model.feedback, **noisy)  # type: ignore[arg-type]
        model.feedback.keys = keys
    thoughts: Tensor = model(ids, return_thoughts=True).thoughts.fed_BKD
    return thoughts


def test_scale_zero_is_the_clean_run_exactly() -> None:
    for kind in ("gaussian", "gaussian_scaled", "snr", "orthogonal", "dropout"):
        assert torch.equal(traced({"kind": kind, "scale": 0.0}), traced(None))


def test_an_example_meets_the_same_noise_in_every_batch_and_order() -> None:
    noisy: dict[str, object] = {"kind": "gaussian_scaled", "scale": 0.5, "seed": 3}
    both = traced(noisy, keys=[11, 12])
    torch.testing.assert_close(traced(noisy, IDS[1:], keys=[12]), both[1:])
    torch.testing.assert_close(traced(noisy, IDS.flip(0), keys=[12, 11]), both.flip(0))
    assert not torch.allclose(traced(noisy, keys=[1, 2]), both)


def test_noise_falls_where_it_is_told_to() -> None:
    clean = traced(None)
    first = traced({"kind": "gaussian", "scale": 1.0, "where": "first"})
    third = traced({"kind": "gaussian", "scale": 1.0, "where": 2})
    assert not torch.allclose(first[:, 0], clean[:, 0])
    assert torch.equal(third[:, :2], clean[:, :2]) and not torch.allclose(third[:, 2], clean[:, 2])


def test_copies_of_an_example_draw_noise_of_their_own() -> None:
    model = tiny("gpt2")
    noisy = Noisy(model.feedback, "gaussian", 1.0)
    noisy.keys = [5]
    states = torch.ones(3, 1, 32, dtype=torch.float64)
    thoughts = noisy(states, torch.ones(3, 1), torch.zeros(3, dtype=torch.long))
    assert len({tuple(row.tolist()) for row in thoughts}) == 3
    noisy.keys = [5, 6]
    with pytest.raises(UserError, match="keys do not fit"):
        noisy(states, torch.ones(3, 1), torch.zeros(3, dtype=torch.long))


def test_a_schedule_fades_and_the_adaptive_one_follows_the_norm() -> None:
    faded = {"kind": "gaussian_scaled", "scale": 1.0, "schedule": "linear", "steps": 3}
    model = tiny("gpt2").eval()
    model.feedback = Noisy(model.feedback, **faded).eval()  # type: ignore[arg-type]
    model(IDS)
    ratios = [(noisy - clean).norm() / clean.norm() for clean, noisy, _ in model.feedback.calls]  # type: ignore[union-attr, operator]
    assert [ratio.item() for ratio in ratios] == pytest.approx([1, 2 / 3, 1 / 3], rel=1e-4)
    told = model.feedback.diagnostics(torch.tensor([[True, True, False]] * 2))  # type: ignore[operator]
    assert [each["scale_ratio"] for each in told if each] == pytest.approx([5 / 6] * 2, rel=1e-4)
    adaptive = Noisy(LastHidden(), "targeted_same", 1.0, schedule="adaptive", decay=0.0)
    ones = torch.ones(1, 1, 4, dtype=torch.float64)
    mask = torch.ones(1, 1)
    first = adaptive(ones, mask, torch.tensor([0]))
    louder = adaptive(10 * ones, mask, torch.tensor([1]))
    assert first[0, 0].item() == pytest.approx(2.0)
    assert louder[0, 0].item() == pytest.approx(10 * (1 + 10 / 1.9), rel=1e-5)  # mean = .9 * 1 + .1 * 10


@pytest.mark.parametrize("bad", [{"kind": "gausian"}, {"schedule": "never"}, {"where": "last"}])
def test_unknown_noise_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(UserError, match="unknown"):
        Noisy(LastHidden(), **({"kind": "gaussian", "scale": 1.0} | bad))  # type: ignore[arg-type]
