"""Predictions made by hand, and their files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coconut_lm.evaluate import Prediction
from coconut_lm.runfolder import write_lines


def predicted(
    verdicts: Iterable[bool], *, thoughts: int = 0, written: int = 20, seconds: float = 0.5
) -> list[Prediction]:
    """One for each verdict; the number of tokens varies a little from example to example."""
    return [prediction(i, right, thoughts, written + i % 3, seconds) for i, right in enumerate(verdicts)]


def prediction(
    index: int, right: bool, thoughts: int = 0, written: int = 20, seconds: float = 0.5
) -> Prediction:
    answer = f"{index}" if right else f"{index} too many"
    return Prediction(
        index=index,
        id=None,
        question=f"What is {index}?",
        prompt=f"What is {index}?\n",
        output=f"### {answer}",
        extracted=answer,
        gold=f"{index}",
        correct=right,
        cot_match=None,
        written=written,
        thoughts=thoughts,
        ended=True,
        thought_norms=(1.0,) * thoughts,
        seconds=seconds,
        read=6 + thoughts,
    )


def put(path: Path | str, predictions: Sequence[Prediction], **changes: Any) -> Path:
    """The file that `eval` would have written."""
    path = Path(path)
    write_lines(path, [each.to_json() | changes for each in predictions])
    return path
