"""The figures of "Training Large Language Models to Reason in a Continuous Latent Space", arXiv 2412.06769.

GPT-2 small, all training data, the test sets. A thought counts as a token.
"""

from dataclasses import dataclass

CITATION = "Hao et al., arXiv 2412.06769"
SETTING = "GPT-2 small, trained on all of the data, on the test set"


@dataclass(frozen=True)
class Published:
    """Accuracy and its standard deviation over runs, in percent; tokens an answer."""

    accuracy: float
    spread: float | None
    tokens: float


# By task and method, in the order of the paper's table.
FIGURES: dict[str, dict[str, Published]] = {
    "gsm8k": {
        "cot": Published(42.9, 0.2, 25.0),
        "no_cot": Published(16.5, 0.5, 2.2),
        "icot": Published(30.0, None, 2.2),
        "pause": Published(16.4, 1.8, 2.2),
        "coconut": Published(34.1, 1.5, 8.2),
        "no_curriculum": Published(14.4, 0.8, 8.2),
        "no_thoughts": Published(21.6, 0.5, 2.3),
        "pause_as_thought": Published(24.1, 0.7, 2.2),
    },
    "prontoqa": {
        "cot": Published(98.8, 0.8, 92.5),
        "no_cot": Published(93.8, 0.7, 3.0),
        "icot": Published(99.8, 0.3, 3.0),
        "pause": Published(77.7, 21.0, 3.0),
        "coconut": Published(99.8, 0.2, 9.0),
        "no_curriculum": Published(52.4, 0.4, 9.0),
        "no_thoughts": Published(99.9, 0.1, 3.0),
        "pause_as_thought": Published(100.0, 0.1, 3.0),
    },
    "prosqa": {
        "cot": Published(77.5, 1.9, 49.4),
        "no_cot": Published(76.7, 1.0, 8.2),
        "icot": Published(98.2, 0.3, 8.2),
        "pause": Published(75.9, 0.7, 8.2),
        "coconut": Published(97.0, 0.3, 14.2),
        "no_curriculum": Published(76.1, 0.2, 14.2),
        "no_thoughts": Published(95.5, 1.1, 8.2),
        "pause_as_thought": Published(96.6, 0.8, 8.2),
    },
}

NAMES = {
    "cot": "CoT",
    "no_cot": "No CoT",
    "icot": "iCoT",
    "pause": "Pause token",
    "coconut": "Coconut",
    "no_curriculum": "Coconut without curriculum",
    "no_thoughts": "Coconut without thoughts",
    "pause_as_thought": "Pause as thought",
}
