"""The latent tokens and their ids; encoding of question, steps and answer; word-level tokenizers.

Tokenizers come in as the caller made them: any of transformers', the fast ones quickly.
"""

import hashlib
import os
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.files import atomic_write

START, END, LATENT, PAUSE = "<|start-latent|>", "<|end-latent|>", "<|latent|>", "<|pause|>"
CHUNK = 4096  # examples encoded at a time: bounds the memory of Python lists

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class LatentTokens:
    """The ids that rows and batches are made with; `pause` only where it was asked for."""

    start: int
    end: int
    latent: int
    pause: int | None
    eos: int
    pad: int

    @property
    def before(self) -> int:
        """How many tokens the tokenizer has without them."""
        return min(self.start, self.end, self.latent)


def add_latent_tokens(tokenizer: Any, pause: bool = False) -> LatentTokens:
    """Gives a tokenizer the tokens it lacks, as ordinary ones that decoding keeps, and padding."""
    tokenizer.add_tokens([START, END, LATENT, *([PAUSE] if pause else [])])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return latent_tokens(tokenizer)


def load_tokenizer(source: str | os.PathLike[str], pause: bool = False) -> Any:
    """A hub id's or folder's tokenizer, with the latent tokens."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            "no tokenizer could be loaded",
            given=source if os.path.isdir(source) else f"{source}, which is no folder here",
            expected="a hub id, or a folder with tokenizer.json",
            do=f"({str(error).splitlines()[0]})",
        ) from error
    add_latent_tokens(tokenizer, pause)
    return tokenizer


def latent_tokens(tokenizer: Any) -> LatentTokens:
    """The ids of a tokenizer that already has them."""
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (START, END, LATENT) if token not in vocabulary]
    if missing:
        raise UserError(
            "the tokenizer lacks the latent tokens",
            given=f"no {', '.join(missing)}",
            do="load the tokenizer saved with the checkpoint, or call add_latent_tokens",
        )
    eos, pad = _eos(tokenizer), tokenizer.pad_token_id
    return LatentTokens(
        start=vocabulary[START],
        end=vocabulary[END],
        latent=vocabulary[LATENT],
        pause=vocabulary.get(PAUSE),
        eos=eos,
        pad=eos if pad is None else pad,
    )


def seed_token(tokenizer: Any, text: str = "<<") -> int:
    """The token whose embedding new tokens start from: the first that `text` is written with."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise UserError("the tokenizer writes this text with no token", given=repr(text))
    return ids[0]


def _eos(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-text token", do="set tokenizer.eos_token")
    return int(tokenizer.eos_token_id)


@dataclass(frozen=True)
class Encoded:
    """One example in ids: question with its newline, steps with theirs, "### " answer end-of-text."""

    question: Ids
    steps: tuple[Ids, ...]
    answer: Ids


@dataclass(frozen=True)
class EncodedSet:
    """Many examples in one array; an example is views into it.

    Piece p is `ids[pieces[p] : pieces[p + 1]]`; example i owns pieces `firsts[i]` (its question) to
    `firsts[i + 1] - 1` (its answer).
    """

    ids: Ids
    pieces: NDArray[np.int64]
    firsts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def __getitem__(self, index: int) -> Encoded:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        bounds = self.pieces[self.firsts[index] : self.firsts[index + 1] + 1].tolist()
        question, *steps, answer = (self.ids[begin:end] for begin, end in pairwise(bounds))
        return Encoded(question, tuple(steps), answer)

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every example: question, all steps and answer."""
        return np.diff(self.pieces[self.firsts])


def encode(
    examples: Sequence[Example], tokenizer: Any, *, cache_dir: str | os.PathLike[str] | None = None
) -> EncodedSet:
    """Encodes once; with a `cache_dir`, once for these texts and this tokenizer."""
    if cache_dir is None:
        return _encode(examples, tokenizer)
    path = Path(cache_dir) / f"encoded-{_fingerprint(examples, tokenizer)}.npz"
    cached = _read_cache(path)
    if cached is None:
        cached = _encode(examples, tokenizer)
        with atomic_write(path) as file:
            np.savez(file.buffer, ids=cached.ids, pieces=cached.pieces, firsts=cached.firsts)
    return cached


def _read_cache(path: Path) -> EncodedSet | None:
    """None where there is no cache or a damaged one (npz files carry checksums)."""
    try:
        with open(path, "rb") as opened, np.load(opened) as file:  # np.load alone leaves a damaged file open
            return EncodedSet(file["ids"], file["pieces"], file["firsts"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _fingerprint(examples: Sequence[Example], tokenizer: Any) -> str:
    if tokenizer.is_fast:
        model = _backend(tokenizer).to_str()
    else:
        model = f"{tokenizer!r} {sorted(tokenizer.get_vocab().items())}"
    digest = hashlib.sha256(f"1 {_eos(tokenizer)} {model}".encode())
    for example in examples:
        digest.update(repr((example.question, example.steps, example.answer)).encode())
    return digest.hexdigest()[:32]


def _encode(examples: Sequence[Example], tokenizer: Any) -> EncodedSet:
    ids, pieces, firsts, eos = array("i"), array("q", [0]), array("q", [0]), _eos(tokenizer)
    for begin in range(0, len(examples), CHUNK):
        chunk = examples[begin : begin + CHUNK]
        questions = _token_ids(tokenizer, [e.question + "\n" for e in chunk], special=True)
        rest = _token_ids(tokenizer, [text for e in chunk for text in _reasoning(e)], special=False)
        for example, question in zip(chunk, questions, strict=True):
            # A tokenizer that closes every text with end-of-text must not close the question.
            ids.extend(question[:-1] if question[-1] == eos else question)
            for piece in islice(rest, len(example.steps) + 1):
                pieces.append(len(ids))
                ids.extend(piece)
            ids.append(eos)
            pieces.append(len(ids))
            firsts.append(len(pieces) - 1)
    encoded = EncodedSet(np.array(ids, np.int32), np.array(pieces), np.array(firsts))
    refuse_markers(encoded, tokenizer)
    return encoded


def _reasoning(example: Example) -> Iterator[str]:
    yield from (step + "\n" for step in example.steps)
    yield "### " + example.answer


def _token_ids(tokenizer: Any, texts: list[str], special: bool) -> Iterator[list[int]]:
    if tokenizer.is_fast:  # twice as fast as calling the tokenizer, with the same ids
        return (e.ids for e in _backend(tokenizer).encode_batch_fast(texts, add_special_tokens=special))
    encoded: list[list[int]] = tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    return iter(encoded)


def _backend(tokenizer: Any) -> Any:
    """The tokenizer's own engine, rid of truncation and padding that a file or an earlier call left on."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return backend


def refuse_markers(encoded: EncodedSet, tokenizer: Any) -> None:
    """A latent token written out in a text would be taken for a thought."""
    added = tokenizer.get_added_vocab()
    markers = {added[token]: token for token in (START, END, LATENT, PAUSE) if token in added}
    (found,) = np.nonzero(np.isin(encoded.ids, list(markers)))
    if len(found):
        nth = np.searchsorted(encoded.pieces[encoded.firsts], found[0], side="right")
        raise UserError(
            "an example spells out a token that stands for a thought",
            given=f"{markers[int(encoded.ids[found[0]])]} in example {nth} of {len(encoded)}",
            do="remove it from the text",
        )


def word_tokenizer(texts: Iterable[str], *, breaks: bool = True) -> Any:
    """A tokenizer whose tokens are the words of these texts, punctuation and newlines.

    For models trained from scratch. Decoding gives the text back, but for runs of spaces and spaces before
    punctuation. Numbers such as 2.5 or 1,000 are one word; words not in the texts become <unk>. Without
    `breaks`, newlines are no tokens: steps follow each other, and only the answer has a line of its own.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    # A mark inside a word belongs to it: only one with nothing after it stands alone.
    word = r"\n|#+|(?:[^\s.?,:#]|[.?,:](?=[^\s.?,:#]))+|[.?,:]"
    words.pre_tokenizer = pre_tokenizers.Split(Regex(word), behavior="removed", invert=True)
    # WordPiece joins with spaces; its prefix is one that no word has. Fuse lets Replace see across tokens.
    joined = [
        decoders.WordPiece(prefix="\0", cleanup=False),
        decoders.Fuse(),
        decoders.Replace(Regex(r" (?=[.?,:](\s|$))| (?=\n)|(?<=\n) "), ""),
    ]
    if not breaks:
        words.normalizer = normalizers.Replace("\n", " ")
        joined.append(decoders.Replace(Regex(r"(?<!^) (?=### )"), "\n"))
    words.decoder = decoders.Sequence(joined)
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31, special_tokens=["<eos>", "<unk>"], show_progress=False
    )
    words.train_from_iterator(chain(texts, ["\n###"]), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
