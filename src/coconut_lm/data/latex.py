"""LaTeX answers: the boxes that hold them, the answer an output ends with, and whether two say the same.

Equality is math-verify's, after a fast path for what spelling alone decides. It runs in a process of its own:
a tower of powers never ends, and math-verify's clock needs the main thread. That process is this file, run.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from coconut_lm.data.numbers import as_number

SECONDS = 5  # what one comparison may take; longer counts as different
_LONGEST = 400  # characters of an answer that are worth algebra
_BYTES = 2 << 30  # memory of the process that compares


@dataclass(frozen=True)
class Box:
    """A \\boxed or \\fbox in a text: where it stands and what it holds."""

    start: int
    end: int
    content: str


_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:(?P<open>\{)|(?P<bare>\\?[^\s\\$.,{}]+))")


def boxes(text: str) -> list[Box]:
    """The outermost boxes, in order; a box that is never closed is none."""
    return list(_boxes(text))


def _boxes(text: str) -> Iterator[Box]:
    at = 0
    while match := _BOX.search(text, at):
        at = match.end()
        if match["bare"]:
            yield Box(match.start(), at, match["bare"])
        elif (close := _closing(text, at)) is not None:
            yield Box(match.start(), close + 1, text[at:close].strip())
            at = close + 1


def _closing(text: str, at: int) -> int | None:
    """The brace that closes the one before `at`; \\{ and \\} are letters, not braces."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, at):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def unbox(text: str) -> str:
    """The text with every box replaced by what it holds."""
    for box in reversed(boxes(text)):
        text = text[: box.start] + unbox(box.content) + text[box.end :]
    return text


# Headings of steps ("### Step 3: ...", "### 2. Then ...") are not marks of an answer.
_HEADING = r"(?![ \t]*\**(?:(?:step|part|case)\b|\d+[.)]\**[ \t]+[^\W\d].*\n\s*\S))"
_MARK = re.compile(rf"(?<!\\)#+(?!#){_HEADING}|\banswer\s*(?:is|:|=)(?:\s*:)?", re.IGNORECASE)


def marked(text: str) -> str | None:
    """What follows the last mark of an answer: a #, "answer is", "answer:" or a box; None without any."""
    marks = list(_MARK.finditer(text))
    found = boxes(text)
    if found and (not marks or found[-1].end > marks[-1].end()):
        return unbox(found[-1].content)
    return text[marks[-1].end() :].strip() if marks else None


def final_answer(text: str) -> str:
    """The answer an output ends with: the first line after its last mark, else its last line."""
    after = marked(text)
    lines = [line.strip() for line in (text if after is None else after).splitlines() if line.strip()]
    return lines[0 if after is not None else -1] if lines else ""


_OUTER = [(r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$")]


def strip_math(text: str) -> str:
    """Without the $...$, \\(...\\) or \\[...\\] around the whole."""
    text = text.strip()
    for start, end in _OUTER:
        inner = text.removeprefix(start).removesuffix(end)
        if len(text) == len(start) + len(inner) + len(end) and "$" not in inner:
            return inner.strip()
    return text


_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])\.?", ""),
        (r"\\(?:[,!;: ]|q?quad(?![A-Za-z]))|~|\s+", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname)\s*\{", r"\\text{"),
        (r"(?<=.)\\text\{\s[^{}]*\}(?:\s*\^\s*\{?[23]\}?)?\s*$", ""),  # a unit; the blank sets it off
        (r"\\text\{([^{}]*)\}", r"\1"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|°|\s*\bdegrees?\b|\\?[$%]", ""),
        (r"\{,\}", ","),
        (r"(?<=\d),\s?(?=\d{3}(?!\d))", ""),
        (r"(?<!\d)\.(?=\d)", "0."),
        (r"\\(le|ge|ne)(?![A-Za-z])", r"\\\1q"),
        (r"\\(?:cdot|times)(?![A-Za-z])\s*", r"*"),
        (r"(?<=\d)\s*\*\s*(?=[A-Za-z\\(])", ""),
        (r"\\frac\s*(\w)", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})\s*(\w)", r"\1{\2}"),
        (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
        (r"([\^_])\s*\{\s*(\w)\s*\}", r"\1\2"),
        (r"(?<![A-Za-z])\s|\s(?![A-Za-z])", ""),
        (r"[.,;:]+$", ""),
        (r"^\(([A-Z])\)$", r"\1"),
    ]
]


def _bare(text: str) -> str:
    """Without boxes, the dollars around the whole, and the full stop behind it."""
    return strip_math(unbox(text).strip().rstrip(". "))


def normalise(text: str) -> str:
    """One spelling for answers that differ in layout only."""
    text = _bare(text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text.strip()


_COMMAND = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+")
_RELATION = re.compile(r"[=<>]|\\(?:in|leq?|geq?|neq?)(?![A-Za-z])")
_WORDS = re.compile(r"[^\W\d_]{3,}(?:[ ,'-]*[^\W\d_]+)*")


def equal(gold: str, answer: str) -> bool:
    """Whether an answer says the same as the right one."""
    one, other = normalise(gold), normalise(answer)
    if not one or not other:
        return False
    if one == other:
        return True
    # math-verify reads words as products of letters, and so east as seat.
    if _WORDS.fullmatch(one) or _WORDS.fullmatch(other):
        return one.casefold() == other.casefold()
    numbers = as_number(gold), as_number(answer)
    if None not in numbers and (numbers[0] == numbers[1] or "%" not in gold + answer):
        return numbers[0] == numbers[1]
    # math-verify takes the t of 4t for a unit. Only a relation (x = 5) may name letters that the other lacks.
    related = _RELATION.search(one) or _RELATION.search(other)
    if max(len(one), len(other)) > _LONGEST or not (related or _letters(one) == _letters(other)):
        return False
    return _CHECKER.equal(_bare(gold), _bare(answer))


def _letters(text: str) -> set[str]:
    return set(filter(str.isalpha, _COMMAND.sub("", text)))


class Checker:
    """math-verify in a process that may be lost: one question a line, one verdict a line."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def equal(self, gold: str, answer: str) -> bool:
        with self._lock:
            process = self._running()
            assert process.stdin and process.stdout
            try:
                process.stdin.write(json.dumps([gold, answer]) + "\n")
                process.stdin.flush()
                reply = process.stdout.readline()
            except BaseException:  # interrupted: the next reply would be this question's
                self.close()
                raise
            if not reply:  # out of time or memory
                self.close()
            return reply == "true\n"

    def _running(self) -> subprocess.Popen[str]:
        # A forked worker must not write into its parent's pipe.
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            self.close()
            self._process, self._owner = _start(self._seconds), os.getpid()
        return self._process

    def close(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


def _start(seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "coconut_lm.data.latex", str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        process.communicate()
        raise RuntimeError("math-verify does not start; try: python -m coconut_lm.data.latex 5")
    return process


_CHECKER = Checker()
atexit.register(_CHECKER.close)


def _serve(seconds: float) -> None:
    """Answers questions until they end; one that takes too long takes the process with it."""
    import faulthandler

    from math_verify import parse, verify

    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    print("ready", flush=True)
    for line in sys.stdin:
        faulthandler.dump_traceback_later(seconds, exit=True)
        gold, answer = (parse(f"${text}$", parsing_timeout=0) for text in json.loads(line))
        same = verify(gold, answer, timeout_seconds=0)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(same), flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
