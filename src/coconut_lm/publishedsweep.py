"""A sweep in the JSON of the published noise scripts, for programs that read theirs.

One file a kind of noise. There the clean answer without thoughts is made twice for every scale; greedy
answers are one, so both baselines are the same text here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from coconut_lm.files import read_text
from coconut_lm.runfolder import write_json
from coconut_lm.trials import Found

DIRECTIONS = {"targeted_same": ("targeted", "same"), "targeted_opposite": ("targeted", "opposite")}
_BASELINE = {"text": "output", "answer": "extracted", "correct": "correct"}


def write(folder: Path, summary: Mapping[str, Any], by_kind: Mapping[str, Any], device: str) -> list[Path]:
    """A file for each kind, named by the time; none where the newest says the same."""
    written = []
    for curve in summary["curves"]:
        content = of_curve(summary, curve, by_kind, device)
        before = sorted(folder.glob(f"robustness_{curve['noise']}_2*.json"))
        if before and _same(json.loads(read_text(before[-1])), content):
            continue
        now = datetime.now()
        content["experiment_info"] = {"timestamp": now.isoformat(), **content["experiment_info"]}
        path = folder / f"robustness_{curve['noise']}_{now:%Y%m%d_%H%M%S}.json"
        write_json(path, content)
        written.append(path)
    return written


def _same(before: Any, content: Mapping[str, Any]) -> bool:
    before.get("experiment_info", {}).pop("timestamp", None)
    return bool(before == json.loads(json.dumps(content)))


def of_curve(
    summary: Mapping[str, Any], curve: Mapping[str, Any], found: Mapping[Any, Sequence[Found]], device: str
) -> dict[str, Any]:
    """`found` has the rows of (kind, scale), and of "clean" and "without thoughts"."""
    kind, scales = curve["noise"], [point["scale"] for point in curve["points"]]
    named, direction = DIRECTIONS.get(kind, (kind, None))
    bare = {row["index"]: row for row in found["without thoughts"]}
    by_scale = {scale: {row["index"]: row for row in found[kind, scale]} for scale in scales}
    return {
        "experiment_info": {
            "num_questions": summary["n"],
            "noise_scales": scales,
            "noise_type": named,
            "noise_direction": direction,
            "max_new_tokens": summary["max_new_tokens"],
            "device": device,
            "model": summary["checkpoint"],
            "latent_passes": summary["thoughts"],
        },
        "questions": list(_questions(found["clean"], bare, by_scale)),
        "accuracy_by_noise": {str(point["scale"]): _accuracy(point["accuracy"]) for point in curve["points"]},
    }


def _accuracy(rate: Mapping[str, Any]) -> dict[str, Any]:
    percent = None if rate["rate"] is None else 100 * rate["rate"]
    return {"correct": rate["right"], "total": rate["n"], "accuracy": percent}


def _questions(
    clean: Sequence[Found], bare: Mapping[int, Found], by_scale: Mapping[float, Mapping[int, Found]]
) -> Iterator[dict[str, Any]]:
    for row in clean:
        tests = [
            _test(scale, rows.get(row["index"]), bare.get(row["index"], {}))
            for scale, rows in by_scale.items()
        ]
        yield {
            "question_id": row["index"],
            "question": row["question"],
            "expected_answer": row["gold"],
            "noise_tests": tests,
        }


def _test(scale: float, row: Found | None, bare: Mapping[str, Any]) -> dict[str, Any]:
    row = row or {"success": False, "error": "not asked"}
    told: dict[str, Any] = {"noise_scale": scale}
    for name, source in (("baseline1", bare), ("baseline2", bare), ("coconut", row)):
        told |= {f"{name}_{key}": source.get(ours) for key, ours in _BASELINE.items()}
    written = row.get("written")
    return told | {
        "expected_answer": row.get("gold"),
        "num_tokens": None if written is None else row["read"] + written,
        "num_new_tokens": written,
        "success": row["success"],
        "error": row["error"],
    }
