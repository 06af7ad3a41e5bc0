"""MMLU (arXiv 2009.03300): questions with lettered options; which letter a text settles on.

A record has `question`, `choices` and `answer`, an index or a letter, often `subject`. The question of an
example ends in its options, one a line: "A. Paris".
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coconut_lm.data import latex
from coconut_lm.data.answers import WordedTask
from coconut_lm.data.example import Example, Verdict, write_examples
from coconut_lm.data.records import BadRecord, Parsed, parse, read_records, with_text

EXPECTED = '{"question": "...", "choices": ["...", "...", "...", "..."], "answer": 0, 1, 2, 3 or a letter}'
LETTERS = "ABCDEFGHIJ"
Options = Mapping[str, str]  # letter: text

_OPTION = re.compile(r"([A-J])[.):]\s+(\S.*)")


def options(question: str) -> dict[str, str]:
    """The lettered lines that a question ends in, two or more from A on; else none."""
    found: dict[str, str] = {}
    for line in reversed(question.rstrip().splitlines()):
        match = _OPTION.fullmatch(line.strip())
        if not match or (found and LETTERS.index(match[1]) + 1 != LETTERS.index(next(iter(found)))):
            break
        found = {match[1]: match[2].strip()} | found
        if match[1] == "A":
            return found if len(found) > 1 else {}
    return {}


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    force: bool = False,
) -> Parsed:
    """The first `limit` examples of .json, .jsonl or .parquet files, a folder of them, or a data set on the
    hub, of which `name` is the part."""
    rows = read_records(source, name=name)
    kept = ((where, row) for where, row in rows if split is None or row.get("split") == split)
    parsed = parse(
        kept, lambda row: [example_of(row)], skip_bad=skip_bad, source=str(source), expected=EXPECTED
    )
    parsed = Parsed(parsed.examples[:limit], parsed.skipped)
    if out is not None:
        write_examples(out, parsed.examples, force=force)
    return parsed


def example_of(record: Any) -> Example:
    """One record; options that its question spells out already stay as they are."""
    record = with_text(record, "question")
    question, choices = record["question"].strip(), record.get("choices")
    if choices is None:
        choices = list(options(question).values())
    elif not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() for c in choices):
        raise BadRecord("'choices' is no list of texts")
    if not 2 <= len(choices) <= len(LETTERS):
        raise BadRecord(f"{len(choices)} options, not 2 to {len(LETTERS)}")
    if not options(question):
        # A text of several lines would end the list of options.
        lines = [
            f"{letter}. {' '.join(text.split())}" for letter, text in zip(LETTERS, choices, strict=False)
        ]
        question = "\n".join([question, "", *lines])
    extra = {key: record[key] for key in ("id", "subject") if record.get(key) is not None}
    return Example(question, (), _gold(record.get("answer"), len(choices)), extra | {"choices": choices})


def _gold(answer: Any, count: int) -> str:
    """The letter of an index, or the letter itself, "#### B" among its spellings."""
    text = str(answer).rpartition("#")[2].strip().upper()
    letter = LETTERS[int(text)] if text.isdecimal() and int(text) < count else text
    if len(letter) != 1 or letter not in LETTERS[:count]:
        raise BadRecord(f"the answer is {answer!r}, none of the {count} options")
    return letter


# -- which letter a text settles on --

_GAP = r"[\s*_:\"'(\[`$]*"  # what may stand between a mark and its letter
_BEHIND = r"[\s*_.):\]\"'`$]*"
# "A" is an article and a lower-case letter a word, unless what follows shows that the statement is over.
_ENDS = r"[*_\"'`$]*(?:\s*[.,;:)\]\n]|\s*$)"
_GOES_ON = r"\s+(?:[-\u2013\u2014(=]|(?:because|since|as|for|which|and|but|so)\b)"
_EITHER = rf"(?!{_BEHIND}\s*(?:or|and|/)\s*{_GAP}[A-J]\b)"  # "A or B" settles nothing
_FILL = r"(?:(?:the|probably|likely|clearly|therefore|thus|indeed|option|choice|letter|answer)\b[\s*_:]*)*"
_SAID = re.compile(
    r"(?:\banswer\b(?:\s+(?!(?:is|not|would|must|should|choices|options)\b)[\w'?,]+){0,5}?"
    r"|\b(?:correct|right|best|final)\s+(?:option|choice|one|response|statement)\b)"
    rf"[\s*_]*(?:\b(?:is|would be|must be|should be)\b(?!\s+not\b)|[:=])[\s*_:]*{_FILL}",
    re.IGNORECASE,
)
_CHOSEN = re.compile(rf"\b(?:choose|chose|pick|select|go(?:ing)? with)\s+{_FILL}", re.IGNORECASE)
_HASH = re.compile(r"^[ \t]*#+[ \t]*", re.MULTILINE)
_ALONE = re.compile(r"^[\s*_>(\[-]*([A-J])[\s*_.)\]]*$", re.MULTILINE)
_BOLD = re.compile(
    r"(?<=[^\s*>-])[ \t]+\*\*\s*\(?([A-J])\)?\.?\s*\*\*(?!\s*(?:[:,/]|(?:is|are|was|and|or)\b))"
)
_IS_RIGHT = re.compile(
    rf"\b([A-J]){_BEHIND}\bis\s+(?:(?:the|therefore|thus|clearly|most)\s+)*"
    r"(?:correct|right|(?:best\s+)?(?:answer|option|choice))\b"
)
_LEAD = re.compile(r"^[\s*_>(\[-]*([A-J])[.):\]][*_\s]*\S", re.MULTILINE)
_NAMED = re.compile(r"(?:\(|\b[Oo]ption\s+\**|\b[Cc]hoice\s+\**)([A-J])\b")
_DRESSING = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}|\\[()\[\]]|(?<!\w)\$|\$(?!\w)")


def letter_in(text: str, choices: Options) -> str:
    """The letter, or "": the last decisive statement, else the only letter that the text speaks of, else the
    only option whose words its last line has."""
    text = _plain(text)
    decisive = sorted(_decisive(text, choices))
    if decisive:
        return decisive[-1][1]
    for pattern in (_LEAD, _NAMED):
        spoken = set(pattern.findall(text))
        if len(spoken) == 1 and (letter := spoken.pop()) in choices:
            return letter
    return _only_text(text, choices)


def _plain(text: str) -> str:
    """Boxes made statements, and LaTeX its words."""
    for box in reversed(latex.boxes(text)):
        text = f"{text[: box.start]}\nAnswer: {latex.unbox(box.content)}\n{text[box.end :]}"
    return _DRESSING.sub(lambda match: match[1] or "", text)


def _decisive(text: str, choices: Options) -> Iterator[tuple[int, str]]:
    """Where a letter is settled on, and which."""
    for pattern in (_SAID, _CHOSEN):
        for mark in pattern.finditer(text):
            if letter := _after(text[mark.end() :], choices):
                yield mark.start(), letter
    for mark in _HASH.finditer(text):
        line = text[mark.end() :].partition("\n")[0].strip(" *_.()[]`")
        if line.upper() in choices:
            yield mark.start(), line.upper()
    for pattern in (_ALONE, _BOLD, _IS_RIGHT):
        for match in pattern.finditer(text):
            if match[1] in choices:
                yield match.start(1), match[1]


def _after(rest: str, choices: Options) -> str:
    """What a mark is followed by: a letter, or the words of an option."""
    letters = "".join(choices)
    sure, small = re.sub("[AI]", "", letters), letters.lower()
    upper = rf"[{sure}](?![\w'+#])|[{letters}](?={_ENDS}|{_GOES_ON})"
    letter = re.match(rf"{_GAP}({upper}|[{small}](?={_ENDS})){_EITHER}", rest)
    if letter:
        return letter[1].upper()
    for named, words in choices.items():  # "A Paris"
        if words and re.match(rf"{_GAP}{named}{_BEHIND}{re.escape(words)}", rest):
            return named
    said = _words(rest.partition("\n")[0])
    return _longest({named: words for named, words in choices.items() if _has(said, words, start=True)})


def _only_text(text: str, choices: Options) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    last = _words(lines[-1]) if lines else ""
    found = {named: words for named, words in choices.items() if _has(last, words)}
    longest = _longest(found)
    # Paris is also in "Paris and Rome": options that are part of the longest do not count.
    parts = [named for named, words in found.items() if _has(_words(found[longest]), words)]
    return longest if len(parts) == len(found) else ""


def _words(text: str) -> str:
    """In lower case, without articles and the marks around words; signs stay."""
    words = (word.lstrip("\"'(*_[`").rstrip(".,;:!?\"')*_]`") for word in text.casefold().split())
    return " ".join(word for word in words if word not in ("", "a", "an", "the"))


def _has(text: str, words: str, *, start: bool = False) -> bool:
    """Whether words stand in a text of words, or at its start."""
    wanted = _words(words)
    return bool(wanted) and (f"{text} ".startswith(f"{wanted} ") if start else f" {wanted} " in f" {text} ")


def _longest(choices: Options) -> str:
    return max(choices, key=lambda letter: len(choices[letter]), default="")


class LetterTask(WordedTask):
    """A Task whose answer is the letter of an option."""

    def score(self, output: str, example: Example) -> Verdict:
        """Compares the letter that the output settles on."""
        if self.scoring == "reference":
            return super().score(output, example)
        found = letter_in(output, options(example.question) or dict.fromkeys("ABCD", ""))
        gold = example.answer.strip().upper()
        return Verdict(found == gold, found, gold)


TASK = LetterTask("mmlu", max_new_tokens=64)


def shortcuts(examples: Sequence[Example]) -> dict[str, float]:
    """How often rules are right that know nothing of the subject."""
    commonest = Counter(example.answer for example in examples).most_common(1)
    return {
        "commonest_letter": sum(count for _, count in commonest) / len(examples),
        "longest_option": sum(_longest(options(e.question)) == e.answer for e in examples) / len(examples),
    }


def statistics(examples: Sequence[Example]) -> dict[str, Any]:
    """Subjects, right letters, and how many options there are."""
    answers = Counter(example.answer for example in examples)
    counts = Counter(len(options(example.question)) for example in examples)
    return {
        "examples": len(examples),
        "distinct_questions": len({example.question for example in examples}),
        "subjects": len({example.extra.get("subject") for example in examples}),
        "answers": {letter: answers[letter] for letter in sorted(answers)},
        "options": {str(count): counts[count] for count in sorted(counts)},
    }
