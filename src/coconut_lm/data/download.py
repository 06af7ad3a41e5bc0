"""The public files: fetched from pinned revisions, checked, converted; whole or not at all."""

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coconut_lm.data import gsm8k, math
from coconut_lm.data.example import Example, read_examples, write_examples
from coconut_lm.errors import UserError
from coconut_lm.files import refuse_overwrite

Progress = Callable[[str, int, int | None], None]  # a file's name, its bytes so far and in all, if known
Splits = Mapping[str, list[Example]]


@dataclass(frozen=True)
class PublicFile:
    """Without a sha256, its length and what it holds are all there is to check."""

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """Public files by split, how they become examples by split, and how many there are of them.

    Without `convert`, the files hold examples already and are kept byte for byte.
    """

    prefix: str
    files: Mapping[str, PublicFile]
    examples: Mapping[str, int]
    convert: Callable[[Mapping[str, Path]], Splits] | None = None


def _gsm8k(paths: Mapping[str, Path]) -> Splits:
    return {split: gsm8k.convert(path).examples for split, path in paths.items()}


def _math(paths: Mapping[str, Path]) -> Splits:
    return math.convert(*paths.values()).splits


_ICOT = "da03/Internalize_CoT_Step_by_Step/e06a32ee5e4cd117171daeb4755d2a97ece62761/data/gsm8k"
_PROSQA = "facebookresearch/coconut/27273cb8cca4bb763c041a63b036d0c3b7cbbb48/data"
((_MATH_HUB, _MATH_REVISION),) = math.REVISIONS.items()
_RAW, _LFS = "https://raw.githubusercontent.com", "https://media.githubusercontent.com/media"
_MATH = f"https://huggingface.co/datasets/{_MATH_HUB}/resolve/{_MATH_REVISION}/data"

DATA_SETS = {
    "gsm8k": DataSet(
        "gsm",
        {
            "train": PublicFile(
                f"{_LFS}/{_ICOT}/train.txt",
                87805358,
                "0a3909a9e7d8d2f7ad6b8c7b5608aa744988d835f9bf874d4cf06ca77df6bf8c",
            ),
            "valid": PublicFile(
                f"{_RAW}/{_ICOT}/valid.txt",
                143419,
                "04f9bddfe8ac4846571b1e2b612b289c95770b5012fdb34cc36a597b041afb87",
            ),
            "test": PublicFile(f"{_RAW}/{_ICOT}/test.txt"),
        },
        {"train": 385620, "valid": 500, "test": 1319},
        _gsm8k,
    ),
    "prosqa": DataSet(
        "prosqa",
        {
            "train": PublicFile(
                f"{_RAW}/{_PROSQA}/prosqa_train.json",
                30872695,
                "99e40ce7e9107fd02e35bcd78a7a4479bd57f415bab0a6efd37cc11a72e594f6",
            ),
            "valid": PublicFile(
                f"{_RAW}/{_PROSQA}/prosqa_valid.json",
                518208,
                "c74e0de24f1e90ec48b1a993e6458a7be4caeef3928f5104e3c2e45d689a5249",
            ),
            "test": PublicFile(
                f"{_RAW}/{_PROSQA}/prosqa_test.json",
                856611,
                "82ddc0afe6ee30eb31bb16fa208e293e55278a20fa987098d48519cae7e12680",
            ),
        },
        {"train": 17886, "valid": 300, "test": 500},
    ),
    "math": DataSet(
        "math",
        {
            "train": PublicFile(
                f"{_MATH}/train-00000-of-00001-48a8135a22c541f2.parquet",
                2991536,
                "c0cb0bb1c60d04e9f38e65059a1fd93685efb1b4602912a761257cab09d476e2",
            ),
            "test": PublicFile(
                f"{_MATH}/test-00000-of-00001-8381d31b2d187522.parquet",
                1855255,
                "79f372afea6bedd226750eab23ba54dddede047670446d85178e3e5d0627c191",
            ),
        },
        {"train": 6750, "valid": 750, "test": 5000},
        _math,
    ),
}

NOT_PUBLIC = {
    "prontoqa": "make it: coconut-lm data make prontoqa; or run the original generator (five hops, relevant "
    "distractors, seed 62471893) and convert what it writes: coconut-lm data convert prontoqa FILE"
}


@dataclass(frozen=True)
class Got:
    """What a download left: files and counts by split, and the sha256 of every file that was fetched."""

    paths: dict[str, Path]
    examples: dict[str, int]
    sha256: dict[str, str]
    unpinned: tuple[str, ...]  # fetched without a sha256 to compare with


def get(
    name: str,
    folder: str | os.PathLike[str],
    *,
    url: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **how: Any,
) -> Got:
    """Fetches a data set into `folder` as PREFIX_SPLIT.json; `limit` shortens train.

    `url` names another place (https, file) that holds the same files under the same names. Until all files
    are there, what has come waits in a hidden folder, and the next call goes on from it. `how` goes to fetch.
    """
    data = _known(name)
    folder = Path(folder)
    paths = {split: folder / f"{data.prefix}_{split}.json" for split in data.examples}
    for path in paths.values():
        refuse_overwrite(path, force)
    waiting = folder / f".{name}.partial"
    waiting.mkdir(parents=True, exist_ok=True)
    raw = {split: waiting / file.name for split, file in data.files.items()}
    sha256 = {}
    for split, file in data.files.items():
        place = file if url is None else replace(file, url=f"{url.rstrip('/')}/{file.name}")
        with _by_hand(name, data):
            sha256[file.name] = fetch(place, raw[split], progress=progress, **how)
    try:
        counts = _install(data, raw, paths, limit)
    except UserError:  # what waits is of no use
        shutil.rmtree(waiting)
        raise
    shutil.rmtree(waiting)
    unpinned = tuple(file.name for file in data.files.values() if file.sha256 is None)
    return Got(paths, counts, sha256, unpinned)


def _known(name: str) -> DataSet:
    if name in NOT_PUBLIC:
        raise UserError(f"{name} has no public file", do=NOT_PUBLIC[name])
    if name not in DATA_SETS:
        raise UserError("unknown data set", given=name, expected=", ".join([*DATA_SETS, *NOT_PUBLIC]))
    return DATA_SETS[name]


@contextmanager
def _by_hand(name: str, data: DataSet) -> Iterator[None]:
    """Adds to a failed fetch what to do without a network."""
    try:
        yield
    except UserError as error:
        urls = "\n    ".join(file.url for file in data.files.values())
        raise UserError(
            str(error),
            do="try again later (it goes on where it stopped), or fetch these by hand into a folder:"
            f"\n    {urls}\n  and then: coconut-lm data get {name} --url file:///THAT/FOLDER",
        ) from None


def _install(
    data: DataSet, raw: Mapping[str, Path], paths: Mapping[str, Path], limit: int | None
) -> dict[str, int]:
    """Checks and converts every split before it writes the first."""
    convert = data.convert or (lambda raw: {split: read_examples(path) for split, path in raw.items()})
    splits = convert(raw)
    counts = {split: len(examples) for split, examples in splits.items()}
    if counts != dict(data.examples):
        raise UserError("the files do not hold what they should", given=counts, expected=data.examples)
    for split, path in paths.items():
        kept = splits[split][: limit if split == "train" else None]
        if data.convert is None and len(kept) == counts[split]:
            os.replace(raw[split], path)
        else:
            write_examples(path, kept, force=True)
        counts[split] = len(kept)
    return counts


class _Again(Exception):
    """A failure that another try may mend."""


def fetch(
    file: PublicFile,
    path: Path,
    *,
    progress: Progress | None = None,
    tries: int = 4,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> str:
    """Brings a file to `path`, whole and checked, and returns its sha256; goes on from an earlier attempt."""
    if urllib.parse.urlsplit(file.url).scheme not in ("http", "https", "file"):
        raise UserError("cannot fetch this", given=file.url, expected="an http, https or file URL")
    if path.exists():
        return _checked(file, path)
    partial = path.with_name(path.name + ".partial")
    failure = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            resumed = _receive(file, partial, progress, timeout)
            digest = _checked(file, partial, resumed)
            os.replace(partial, path)
            return digest
        except _Again as again:
            failure = str(again)
    raise UserError(f"cannot fetch {file.url}", given=failure, expected=f"an answer in {tries} tries")


def _receive(file: PublicFile, partial: Path, progress: Progress | None, timeout: float) -> bool:
    """Adds to the partial file what it lacks; says whether there was something to add to."""
    have = partial.stat().st_size if partial.exists() else 0
    if have and have == file.size:
        return True
    headers = {"User-Agent": "coconut-lm"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        request = urllib.request.Request(file.url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return _copy(response, file, partial, have, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server's file ends before our part of it does
            partial.unlink()
        elif error.code not in (408, 425, 429) and error.code < 500:
            raise UserError(f"cannot fetch {file.url}", given=f"{error.code} {error.reason}") from None
        raise _Again(f"{error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _copy(response: Any, file: PublicFile, partial: Path, have: int, progress: Progress | None) -> bool:
    """Writes the answer down: behind what is there if the server goes on from there, else anew."""
    resumed = have > 0 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
    done = have if resumed else 0
    length = response.headers.get("Content-Length")
    total = done + int(length) if length else file.size
    with open(partial, "ab" if resumed else "wb") as out:
        while block := response.read(1 << 16):
            out.write(block)
            done += len(block)
            if progress is not None:
                progress(file.name, done, total)
    if total is not None and done < total:
        raise _Again(f"the connection ended after {done} of {total} bytes")
    return resumed


def _checked(file: PublicFile, path: Path, resumed: bool = False) -> str:
    """The file's sha256. A file that is not what it should be goes, so that the next try starts anew."""
    with open(path, "rb") as whole:
        start = whole.read(64)
        whole.seek(0)
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    size = path.stat().st_size
    if file.sha256 in (None, digest) and file.size in (None, size) and not start.startswith(_POINTER):
        return digest
    path.unlink()
    if resumed:
        raise _Again("the part from an earlier attempt did not fit")
    if start.startswith(_POINTER):
        raise UserError(f"{file.url} is a Git LFS pointer", expected="the file it points to")
    raise UserError(
        f"{file.url} is not the file it should be",
        given=f"{size} bytes, sha256 {digest}",
        expected=f"{file.size or 'any number of'} bytes, sha256 {file.sha256 or 'any'}",
    )


_POINTER = b"version https://git-lfs"
