"""The three studies as their commands would leave them in a run's folder, with made-up figures."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coconut_lm.history import History, Study
from coconut_lm.statistics import wilson

# Where accuracy has fallen halfway, and how steeply it falls: in noise over thought.
SLOPES = {
    "gaussian": (0.05, 1.3),
    "gaussian_scaled": (0.9, 2.2),
    "snr": (0.8, 2.0),
    "uniform": (0.09, 1.4),
    "orthogonal": (0.7, 2.4),
    "targeted_same": (40.0, 1.0),
    "targeted_opposite": (0.95, 6.0),
    "dropout": (0.4, 3.0),
}
SCALES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
FLOORS = {"far_from_farthest_entity": 0.727, "no_entity_within_2_hops": 0.653, "guess": 0.5}
ARMS = (("no noise", None, 0.0), ("gaussian_scaled 0.2", 0.2, 0.012), ("gaussian_scaled 0.5", 0.5, -0.02))
ARMS += (("self-consistency", None, -0.08), ("no markers", None, -0.31))
ROWS = (
    ("dropped", "no thoughts", 0.32),
    ("number", "1 thought of 3", 0.21),
    ("number", "2 thoughts of 3", 0.06),
    ("number", "5 thoughts, where 3 were trained", 0.03),
    ("replaced", "every thought is zero", 0.40),
    ("replaced", "every thought is the mean of all", 0.33),
    ("replaced", "every thought is Gaussian, of its norm", 0.36),
    ("replaced", "every thought is the pause embedding", 0.31),
    ("moved", "every thought is another example's", 0.42),
    ("moved", "the thoughts in another order", 0.08),
    ("moved", "halfway to another example's", 0.17),
    ("interchanged", "another example's thoughts in the cache alone", 0.41),
    ("interchanged", "all but the thoughts in the cache from another", 0.02),
    ("asked", "the question asks about the other entity", 0.015),
)


def rate(share: float, n: int) -> dict[str, Any]:
    right = round(min(max(share, 0.0), 1.0) * n)
    low, high = wilson(right, n)
    return {"rate": right / n, "right": right, "n": n, "low": low, "high": high}


def gap(share: float, clean: float, n: int) -> dict[str, float]:
    half = 1.4 / math.sqrt(n)
    lost = share - clean
    p = 0.0002 if abs(lost) > half else 0.31
    return {"difference": lost, "low": lost - half, "high": lost + half, "p": p}


def head(kind: str, n: int, **more: Any) -> dict[str, Any]:
    found = {"kind": kind, "checkpoint": "runs/demo/checkpoints/checkpoint_4", "weights": "w" * 64}
    found |= {"data": "demo/data/test.json", "data_sha256": "d" * 64, "task": "prosqa", "method": "coconut"}
    found |= {"stage": 3, "thoughts": 3, "n": n, "seed": 0, "failed": {"n": 2, "of": 65 * n}}
    found |= {"floors": {name: rate(share, n) for name, share in FLOORS.items()}, "seconds": 71.5}
    return (
        found
        | {"command": f"coconut-lm {kind} runs/demo/checkpoints/checkpoint_4 demo/data/test.json"}
        | more
    )


def robustness(
    kinds: Sequence[str] = tuple(SLOPES), *, clean: float = 0.962, n: int = 300, **more: Any
) -> dict[str, Any]:
    """Sigmoids in log scale that fall from clean to a coin's rate."""
    rng = np.random.default_rng(7)
    curves = []
    for kind in kinds:
        scales = [1 / scale for scale in SCALES] if kind == "snr" else SCALES
        curves.append(
            curve(kind, [scale for scale in scales if kind != "dropout" or scale <= 1], clean, n, rng)
        )
    baselines = {"without thoughts": rate(0.61, n), "clean": rate(clean, n)}
    where = {"where": "all", "layer": -1, "schedule": "constant", "decay": 0.5}
    return head("robustness", n) | where | {"baselines": baselines, "curves": curves} | more


def curve(
    kind: str, scales: Sequence[float], clean: float, n: int, rng: np.random.Generator
) -> dict[str, Any]:
    middle, steep = SLOPES[kind]
    points = []
    for scale in scales:
        noise = 1 / scale if kind == "snr" else scale
        share = 0.42 + (clean - 0.42) / (1 + (noise / middle) ** steep) + 0.008 * rng.normal()
        point = {"scale": scale, "accuracy": rate(share, n), "difference": gap(share, clean, n)}
        point |= {"changed": rate(1.2 * (clean - share) + 0.01, n), "failed": 0}
        norms = {
            "original_norm": 71.0,
            "noise_norm": 71.0 * noise,
            "perturbed_norm": 75.0,
            "norm_change_ratio": 1.1,
        }
        points.append(point | {"diagnostics": norms})
    below = [point["scale"] for point in points if point["accuracy"]["rate"] < 0.5]
    return {
        "noise": kind,
        "points": points,
        "fits": fits(middle),
        "first_below_half": below[0] if below else None,
    }


def fits(middle: float) -> list[dict[str, Any]]:
    return [
        {
            "name": "exponential",
            "formula": "a exp(-b x)",
            "parameters": {"a": 0.95, "b": 0.5 / middle},
            "r2": 0.84,
        },
        {"name": "linear", "formula": "a - b x", "parameters": {"a": 0.88, "b": 0.06 / middle}, "r2": 0.61},
        {
            "name": "logistic_log",
            "formula": "L / (1 + exp(-k (log10 x - x0))) + b",
            "parameters": {"L": 0.54, "k": -5.0, "x0": math.log10(middle), "b": 0.42},
            "r2": 0.991,
        },
    ]


def branches(*, clean: float = 0.962, n: int = 300, most: int = 9, **more: Any) -> dict[str, Any]:
    noise = {
        "type": "gaussian_scaled",
        "step": 1,
        "where": "all",
        "schedule": "constant",
        "decay": 0.5,
        "layer": -1,
    }
    found = head("branches", n) | {"noise": noise, "temperature": 0.7, "top_p": 0.9, "branches": most}
    found["baselines"] = {"clean": rate(clean, n), "without thoughts": rate(0.61, n)}
    found["arms"] = [arm(name, scale, clean + shift, clean, n, most) for name, scale, shift in ARMS]
    return found | more


def arm(name: str, scale: float | None, best: float, clean: float, n: int, most: int) -> dict[str, Any]:
    ks = [k for k in (1, 3, 5, 9) if k <= most]
    by_k = {str(k): rate(best - 0.09 / k, n) for k in ks}
    voted = by_k[str(ks[-1])]["rate"]
    votes = {"majority": rate(voted, n), "noise_weighted": rate(voted, n)}
    votes |= {"confidence_weighted": rate(voted + 0.004, n), "probability_mass": rate(voted - 0.01, n)}
    wrong = 1 - voted
    curve = [
        {"coverage": each, "risk": wrong * each**3, "threshold": 1 - 0.7 * each}
        for each in (0.3, 0.5, 0.7, 0.85, 1)
    ]
    levels = [(most, "unanimous", 0.7, 0.99), (most - 2, "strong", 0.2, 0.83), (most // 2, "split", 0.1, 0.5)]
    latent = name not in ("self-consistency", "no markers")
    return {
        "name": name,
        "scale": scale,
        "control": scale is None,
        "single": by_k["1"],
        "mean_single": best - 0.1,
        "votes": votes,
        "difference": {vote: gap(each["rate"], clean, n) for vote, each in votes.items()},
        "against_no_noise": None if name == "no noise" else gap(voted, clean - 0.01, n),
        "by_k": by_k,
        "pass_at": {str(k): min(1.0, best - 0.09 / k + 0.01 * k) for k in ks},
        "agreement": [
            {"votes": v, "of": most, "name": told, **rate(right, round(share * n))}
            for v, told, share, right in levels
        ],
        "risk_coverage": curve,
        "aurc": wrong / 4,
        "abstention": {
            "threshold": 0.7,
            "coverage": rate(0.8, n),
            "accuracy": rate(voted + 0.03, round(0.8 * n)),
        },
        "no_answer": 0.012,
        "diversity": {
            "answers": 0.21 + (scale or 0) / 5,
            "texts": 0.4,
            "d_k": 12.1 * (scale or 0) if latent else None,
            "d_k_late": 15.9 * (scale or 0) if latent else None,
            "d_k_relative": 0.2 * (scale or 0) if latent else None,
        },
    }


def battery(
    *, clean: float = 0.962, n: int = 300, used: str = "yes", lost: float = 1.0, **more: Any
) -> dict[str, Any]:
    rows = []
    for number, (group, title, each) in enumerate(ROWS):
        share = clean - lost * each
        row = {"name": f"row {number}", "group": group, "title": title, "accuracy": rate(share, n)}
        row |= {"difference": gap(share, clean, n), "changed": rate(lost * each * 1.1, n)}
        followed = group in ("moved", "interchanged")
        rows.append(row | {"follows": rate(0.4, n) if followed else None})
        rows[-1]["follows_by_chance"] = rate(0.1, n) if followed else None
    sentences = [
        "Zero thoughts cost 40.0 points [31.9, 48.1].",
        "Another example's thoughts cost 42.0 points.",
    ]
    found = head("battery", n) | {
        "clean": rate(clean, n),
        "rows": rows,
        "verdict": {"used": used, "sentences": sentences},
    }
    return found | {"swaps": {"n": n, "accuracy": rate(0.94, n), "consistency": rate(0.91, n)}} | more


def history(*figures: dict[str, Any], name: str = "a") -> History:
    """A run of nothing but these studies."""
    studies = [Study(each["kind"], f"test-{place}", each) for place, each in enumerate(figures)]
    return History(name, Path(name), studies=studies)


def put(run: Path, figures: dict[str, Any], name: str = "test-0123abcd") -> Path:
    """As a finished study of a run; the file is returned."""
    folder = run / figures["kind"] / name
    folder.mkdir(parents=True)
    file = folder / f"{figures['kind']}.json"
    file.write_text(json.dumps(figures), encoding="utf-8")
    return file


def all_three(run: Path, **given: Any) -> None:
    """One study of each kind."""
    for make in (robustness, branches, battery):
        put(run, make(**given))
