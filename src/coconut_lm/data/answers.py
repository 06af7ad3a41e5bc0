"""Answers in words: which answer a text ends with, and whether it is the right one."""

from dataclasses import dataclass

from coconut_lm.data.example import Example, Verdict
from coconut_lm.errors import UserError


def after_mark(text: str) -> str:
    """The published rule: the text after the last "#", commas removed, stripped; nothing without a "#"."""
    return text.rpartition("#")[2].replace(",", "").strip() if "#" in text else ""


def last_words(text: str) -> str:
    """The text after the last "#", else its last line that is not empty; blanks, case and the final period
    do not count."""
    lines = [line for line in text.rpartition("#")[2].splitlines() if line.strip()]
    return " ".join(lines[-1].replace(",", "").split()).rstrip(" .").casefold() if lines else ""


SCORINGS = {"tolerant": last_words, "reference": after_mark}


@dataclass
class WordedTask:
    """A Task whose answer is a word or a sentence."""

    name: str
    max_new_tokens: int = 128
    scoring: str = "tolerant"

    def __post_init__(self) -> None:
        if self.scoring not in SCORINGS:
            raise UserError("unknown scoring", given=self.scoring, expected=", ".join(SCORINGS))

    def score(self, output: str, example: Example) -> Verdict:
        """Judges the text that was written after the prompt."""
        read = SCORINGS[self.scoring]
        extracted, gold = read(output), read(f"#{example.answer}")
        return Verdict(correct=extracted == gold, extracted=extracted, gold=gold)
