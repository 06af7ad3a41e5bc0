"""Encoding: pieces, their traps, the cache, and word-level tokenizers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from coconut_lm import tokens as room
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.tokens import (
    LATENT,
    EncodedSet,
    add_latent_tokens,
    encode,
    latent_tokens,
    seed_token,
    word_tokenizer,
)

ASSETS = Path(__file__).parents[1] / "assets"
EXAMPLES = [
    Example("Tom has 2 cats.", ("<<2*2=4>>", "<<4+1=5>>"), "5"),
    Example("¿Qué?", (), "nothing"),
    Example("", ("",), ""),
]


def gpt2() -> Any:
    return AutoTokenizer.from_pretrained(ASSETS / "gpt2-tokenizer")


def small(template: str = "$A") -> Any:
    """A fast word-level tokenizer whose encoding with specials follows the template."""
    from tokenizers import processors

    tokenizer = word_tokenizer(["a b c ?"])
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<bos>", "<eos>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=ids
    )
    return tokenizer


def words_of(tokenizer: Any, encoded: EncodedSet, index: int) -> list[list[str]]:
    piece = encoded[index]
    return [
        tokenizer.convert_ids_to_tokens(ids.tolist()) for ids in (piece.question, *piece.steps, piece.answer)
    ]


def same(a: EncodedSet, b: EncodedSet) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("ids", "pieces", "firsts"))


def test_pieces_are_what_the_tokenizer_says_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = gpt2()
    monkeypatch.setattr(room, "CHUNK", 2)
    encoded = encode(EXAMPLES, tokenizer)
    assert len(encoded) == 3 and encoded.ids.dtype == np.int32
    for example, pieces in zip(EXAMPLES, encoded, strict=True):
        assert pieces.question.tolist() == tokenizer.encode(example.question + "\n")
        assert [s.tolist() for s in pieces.steps] == [tokenizer.encode(s + "\n") for s in example.steps]
        assert pieces.answer.tolist() == [*tokenizer.encode("### " + example.answer), 50256]
    totals = [len(p.question) + sum(map(len, p.steps)) + len(p.answer) for p in encoded]
    assert encoded.lengths().tolist() == totals


def test_pieces_joined_are_the_text() -> None:
    tokenizer = gpt2()
    pieces = encode(EXAMPLES[:1], tokenizer)[0]
    whole = np.concatenate([pieces.question, *pieces.steps, pieces.answer[:-1]]).tolist()
    assert whole == tokenizer.encode("Tom has 2 cats.\n<<2*2=4>>\n<<4+1=5>>\n### 5")


@pytest.mark.parametrize("template", ["<bos> $A", "<bos> $A <eos>", "$A <eos>"])
def test_specials_open_the_question_and_never_close_it(template: str) -> None:
    tokenizer = small(template)
    words = words_of(tokenizer, encode([Example("a", ("b",), "c")], tokenizer), 0)
    begin = ["<bos>"] if template.startswith("<bos>") else []
    assert words == [[*begin, "a", "\n"], ["b", "\n"], ["###", "c", "<eos>"]]


def test_padding_and_truncation_left_on_do_no_harm() -> None:
    tokenizer = gpt2()
    clean = encode(EXAMPLES, tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert same(encode(EXAMPLES, tokenizer), clean)


def test_a_tokenizer_that_is_not_fast(tmp_path: Path) -> None:
    tokenizer = ByT5Tokenizer()
    pieces = encode([Example("q", ("s",), "a")], tokenizer, cache_dir=tmp_path)[0]
    assert not tokenizer.is_fast
    assert pieces.question.tolist() == [ord(c) + 3 for c in "q\n"]
    assert pieces.answer.tolist() == [*(ord(c) + 3 for c in "### a"), tokenizer.eos_token_id]


def test_no_example_at_all() -> None:
    assert len(encode([], gpt2())) == 0


def test_an_index_out_of_range() -> None:
    encoded = encode(EXAMPLES, gpt2())
    for index in (-1, 3):
        with pytest.raises(IndexError):
            encoded[index]


@pytest.mark.parametrize(("question", "step"), [("a", f"b {LATENT}"), (LATENT, "b")])
def test_a_latent_token_written_in_a_text_is_refused(question: str, step: str) -> None:
    tokenizer = gpt2()
    examples = [*EXAMPLES, Example(question, (step,), "c")]
    encode(examples, tokenizer)
    add_latent_tokens(tokenizer)
    with pytest.raises(UserError, match=r"<\|latent\|> in example 4 of 4"):
        encode(examples, tokenizer)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every time the texts are really encoded."""
    calls: list[int] = []
    real = room._encode

    def counted(examples: Sequence[Example], tokenizer: Any) -> EncodedSet:
        calls.append(len(examples))
        return real(examples, tokenizer)

    monkeypatch.setattr(room, "_encode", counted)
    return calls


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, calls = gpt2(), counting(monkeypatch)
    first = encode(EXAMPLES, tokenizer, cache_dir=tmp_path)
    assert same(encode(EXAMPLES, tokenizer, cache_dir=tmp_path), first) and calls == [3]
    encode(EXAMPLES[:2], tokenizer, cache_dir=tmp_path)
    add_latent_tokens(tokenizer)
    encode(EXAMPLES, tokenizer, cache_dir=tmp_path)
    assert calls == [3, 2, 3] and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    tokenizer, calls = gpt2(), counting(monkeypatch)
    first = encode(EXAMPLES, tokenizer, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    at = data.index(first.ids.tobytes())
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    path.write_bytes({"cut": data[: len(data) // 2], "flip": flipped, "empty": b"", "other": b"text"}[damage])
    assert same(encode(EXAMPLES, tokenizer, cache_dir=tmp_path), first) and calls == [3, 3]
    assert path.read_bytes()[:4] == b"PK\x03\x04"


def test_latent_tokens_are_kept_by_decoding_and_saving(tmp_path: Path) -> None:
    tokenizer = gpt2()
    with pytest.raises(UserError, match="latent"):
        latent_tokens(tokenizer)
    ids = add_latent_tokens(tokenizer, pause=True)
    assert (ids.start, ids.end, ids.latent, ids.pause) == (50257, 50258, 50259, 50260)
    assert add_latent_tokens(tokenizer, pause=True) == ids and len(tokenizer) == 50261
    assert tokenizer.decode([ids.start, ids.latent, ids.end], skip_special_tokens=True).count("<|") == 3
    tokenizer.save_pretrained(tmp_path)
    assert latent_tokens(AutoTokenizer.from_pretrained(tmp_path)) == ids


def test_padding_of_its_own_is_kept() -> None:
    tokenizer = small()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    ids = add_latent_tokens(tokenizer)
    assert ids.pad == tokenizer.convert_tokens_to_ids("<pad>") != ids.eos and ids.pause is None


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=small().backend_tokenizer)
    with pytest.raises(UserError, match="end-of-text"):
        encode(EXAMPLES, tokenizer)


def test_seed_token() -> None:
    assert gpt2().decode([seed_token(gpt2())]) == "<<"
    with pytest.raises(UserError, match="no token"):
        seed_token(gpt2(), "")


TEXTS = [
    "Every shumpus is a rempus. Tom is a lempus.\n",
    "Is Tom a lempus or a rempus?\n",
    "### Tom is a lempus.",
    "<<4-2.5=1.5>>\nIt costs $1,000, .5 at 3:00: no.\n### 1.5",
]


def test_word_tokens_come_back_as_text(tmp_path: Path) -> None:
    word_tokenizer(TEXTS).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "".join(TEXTS[:3])]:
        ids = tokenizer.encode(text)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text
    assert tokenizer.tokenize("Tom is a wug.\n### 2.5") == [
        "Tom",
        "is",
        "a",
        "<unk>",
        ".",
        "\n",
        "###",
        "<unk>",
    ]


def test_without_breaks_steps_follow_each_other_and_the_answer_has_its_line(tmp_path: Path) -> None:
    word_tokenizer(["1 2 | [R] 3\n4\n5\n### 5"], breaks=False).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("[R] 3\n4\n5\n### 5") == ["[R]", "3", "4", "5", "###", "5"]
    for text, back in (("4\n5\n### 5", "4 5\n### 5"), ("### 5", "### 5"), ("4\n", "4")):
        assert tokenizer.decode(tokenizer.encode(text)) == back


def test_word_pieces_encode_alike_apart_and_together() -> None:
    tokenizer = word_tokenizer(["Tom is a lempus."])
    apart = [tokenizer.encode(t) for t in ("Tom is\n", "a lempus.\n", "### Tom")]
    assert sum(apart, []) == tokenizer.encode("Tom is\na lempus.\n### Tom")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["Tom", "lempus", "12", "<<1+1=2>>", "|", ".", "?", ",", "###", "\n"])))
def test_any_words_come_back_up_to_spacing(words: list[str]) -> None:
    text = " ".join(words)
    tokenizer = word_tokenizer([text])
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert "".join(decoded.split()) == "".join(text.split())
    assert decoded.count("\n") == text.count("\n")


def test_the_same_texts_give_the_same_vocabulary() -> None:
    assert word_tokenizer(TEXTS).get_vocab() == word_tokenizer(TEXTS[::-1]).get_vocab()
