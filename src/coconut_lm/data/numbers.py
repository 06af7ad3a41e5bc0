"""Numbers in text: 18, -$1,234.50, 3/4, 1 1/2, .5, 12 %, as exact fractions."""

import re
from collections.abc import Iterator
from fractions import Fraction

# Minus signs, fraction bars and vulgar fractions as they are typeset, then the ways LaTeX dresses a number.
_TYPESET = {ord(sign): "-" for sign in "\u2212\u2013\u2012\ufe63\uff0d"} | {
    0x2044: "/",
    0x2215: "/",
    0xD7: "*",
}
_TYPESET |= {0xBD: " 1/2", 0xBC: " 1/4", 0xBE: " 3/4", 0x2009: "", 0x202F: ""}
_DRESSING = [
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r" \1/\2"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!;: ]|\\(?=[$%])"), ""),
    (re.compile(r"\\(?:text|textbf|mbox|mathrm)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\*\*|__"), " "),
]

_WHOLE = r"\d{1,3}(?:,\d{3})+(?![\d,])|\d+"
_NUMBER = re.compile(
    rf"""(?P<sign>(?<![\w)\].])[-+]\s?)?(?:[$€£¥₹]\s?(?P<late_sign>-)?)?
    (?:(?:(?P<whole>\d+)\s+)?(?P<top>{_WHOLE})\s?/\s?(?P<bottom>{_WHOLE})(?!\.?\d)
      |(?P<digits>(?:{_WHOLE})(?:\.\d+)?|\.\d+)(?:[eE](?P<power>[-+]?\d{{1,2}})(?!\d))?)""",
    re.VERBOSE,
)
# Words behind a number are its unit. One letter is a variable, and so is what clings to the digits.
_UNIT = re.compile(r"\s*(?:%|°|[$€£¥₹]|(?:percent|degrees?)\b)?(?:\s+(?!pi\b)[^\W\d_]{2,}\.?)*\s*\.?\s*")
_LONGEST = 200


def plain(text: str) -> str:
    """The text with typeset and LaTeX numbers written out in ASCII."""
    text = text.translate(_TYPESET)
    for pattern, replacement in _DRESSING:
        text = pattern.sub(replacement, text)
    return text


def numbers(text: str) -> list[Fraction]:
    """Every number in the text, in order; a minus sign between two numbers is a subtraction."""
    return [value for _, value in _found(plain(text))]


def as_number(text: str) -> Fraction | None:
    """The number that the text is, with at most a currency or a unit around it; None if it says more."""
    text = plain(text).strip()
    for match, value in _found(text):
        alone = match.start() == 0 and _UNIT.fullmatch(text, match.end())
        return value if alone else None
    return None


def show(number: Fraction) -> str:
    """The one way to write a number: 18, 0.5, 1/3."""
    if number.denominator == 1:
        return str(number.numerator)
    decimal = f"{float(number):.12f}".rstrip("0")
    return decimal if Fraction(decimal) == number else f"{number.numerator}/{number.denominator}"


def _found(text: str) -> Iterator[tuple[re.Match[str], Fraction]]:
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            yield match, value


def _value(match: re.Match[str]) -> Fraction | None:
    if match.end() - match.start() > _LONGEST:
        return None
    part = {name: (found or "").replace(",", "") for name, found in match.groupdict().items()}
    if part["digits"]:
        size = Fraction(part["digits"]) * Fraction(10) ** int(part["power"] or 0)
    elif int(part["bottom"]):
        size = int(part["whole"] or 0) + Fraction(int(part["top"]), int(part["bottom"]))
    else:
        return None
    return -size if "-" in part["sign"] + part["late_sign"] else size
