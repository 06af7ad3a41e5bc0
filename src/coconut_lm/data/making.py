"""Made data: how its settings are read, and how many processes make the same examples as one."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context

from coconut_lm.data.example import Example
from coconut_lm.errors import UserError

CHUNK = 250


def path_lengths(hops: int | str | Sequence[int] | None) -> tuple[int, ...]:
    """3, "3", "1-3" and [1, 2, 3] as path lengths; nothing for None."""
    if hops is None:
        return ()
    try:
        if isinstance(hops, str):
            low, _, high = hops.partition("-")
            lengths = tuple(range(int(low), int(high or low) + 1))
        else:
            lengths = (hops,) if isinstance(hops, int) else tuple(int(length) for length in hops)
    except (TypeError, ValueError):
        lengths = ()
    if not lengths or min(lengths) < 1 or len(set(lengths)) < len(lengths):
        raise UserError("hops are path lengths", given=repr(hops), expected="3, or a range such as 1-3")
    return lengths


def length_weights(given: str | Sequence[float] | None, lengths: tuple[int, ...]) -> tuple[float, ...]:
    """The odds of the path lengths: "1,1,4" or numbers, one a length; equal for None."""
    if given is None:
        return (1.0,) * len(lengths)
    try:
        weights = tuple(float(w) for w in (given.split(",") if isinstance(given, str) else given))
    except (TypeError, ValueError):
        weights = ()
    if len(weights) != len(lengths) or not all(0 <= w < math.inf for w in weights) or not sum(weights):
        raise UserError(
            "hop_weights are the odds of the path lengths",
            given=repr(given),
            expected=f"{len(lengths)} numbers, none negative, not all zero, for hops {list(lengths)}",
        )
    return weights


def spread(make: Callable[[int], list[Example]], count: int, processes: int) -> Iterator[Example]:
    """make(0), make(1), ... in order, whatever the number of processes; `make` must pickle."""
    if count < 0 or processes < 1:
        raise UserError(
            "no such number of examples or processes",
            given=f"{count} examples, {processes} processes",
            expected="0 examples or more, 1 process or more",
        )
    return chain.from_iterable(_made(make, count, min(processes, -(-count // CHUNK))))


def _made(make: Callable[[int], list[Example]], count: int, processes: int) -> Iterator[list[Example]]:
    if processes <= 1:
        yield from map(make, range(count))
    else:
        # spawn: the fork of a process that has threads (torch) may hang
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            yield from pool.map(make, range(count), chunksize=CHUNK)
