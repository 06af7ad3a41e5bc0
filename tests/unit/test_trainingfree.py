"""Latents in an instruct model that was never trained to think."""

from pathlib import Path
from typing import Any

import pytest
import torch

from coconut_lm.answer import Answerer
from coconut_lm.assembly import open_checkpoint
from coconut_lm.data.example import Example, write_examples
from coconut_lm.errors import UserError
from coconut_lm.exam import Exam, Examiner
from coconut_lm.methods import Rows
from coconut_lm.study import Study
from coconut_lm.trainingfree import Instruct, open_instruct
from tests.chats import LLAMA, tokenizer_of
from tests.tiny import base_model

EXAMPLES = [
    Example("Tom has 3 eggs and buys 4 more. How many?", (), "7"),
    Example("How many eggs?", (), "-7"),
    Example("Tom has 4 eggs", (), "2.5"),
]


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instruct model's folder, without latent tokens."""
    place = tmp_path_factory.mktemp("models") / "tiny-instruct"
    tokenizer = tokenizer_of(LLAMA, latent=False)
    ends = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], tokenizer.eos_token_id)
    base_model("llama", torch.float32, vocab_size=len(tokenizer), **ends).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def embedding(loaded: Instruct) -> torch.Tensor:
    weight: Any = loaded.model.get_input_embeddings().weight
    return weight.detach()


def latent_rows(loaded: Instruct) -> torch.Tensor:
    return embedding(loaded)[[loaded.tokens.start, loaded.tokens.end, loaded.tokens.latent]]


def test_it_answers_with_thoughts_and_without(instruct: Path) -> None:
    loaded = open_instruct(instruct, "gsm8k")
    prompts, stage = loaded.prompts(EXAMPLES), loaded.stage()
    answerer = Answerer(loaded.model, loaded.tokens, 12)
    rows = [prompts.prompt(index, stage) for index in range(3)]
    assert [row.thoughts for row in rows] == [8, 8, 8]
    together = answerer(rows)
    assert [len(reply.thought_norms) for reply in together] == [8, 8, 8]
    assert [answerer([row])[0].ids for row in rows] == [reply.ids for reply in together]
    without = answerer([prompts.prompt(index, stage, 0) for index in range(3)])
    bare = Rows(prompts.examples, loaded.tokens, "no_cot")
    plain = answerer([bare.prompt(index, stage) for index in range(3)])
    assert len({tuple(reply.ids for reply in replies) for replies in (together, without, plain)}) == 3


def test_without_markers_it_writes_as_the_model_itself(instruct: Path) -> None:
    """The controls must be what they are called: the plain model's own greedy answers."""
    loaded = open_instruct(instruct, "gsm8k", markers=False)
    row = loaded.prompts(EXAMPLES).prompt(0, loaded.stage())
    (reply,) = Answerer(loaded.model, loaded.tokens, 12)([row])
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(instruct)
    ids = torch.tensor([row.input_ids.tolist()])
    end = loaded.tokens.eos
    written = plain.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=end, pad_token_id=end)
    new = written[0, ids.shape[1] :].tolist()
    assert list(reply.ids) == (new[: new.index(end)] if end in new else new)
    with pytest.raises(UserError, match="impossible thoughts"):
        loaded.prompts(EXAMPLES).prompt(0, loaded.stage(), 2)


def test_an_answer_ends_with_its_turn(instruct: Path) -> None:
    loaded = open_instruct(instruct, "gsm8k")
    assert loaded.tokenizer.convert_ids_to_tokens(loaded.tokens.eos) == "<|eot_id|>"
    assert loaded.tokenizer.eos_token == "<|end_of_text|>"


def test_new_rows_are_those_of_the_seed(instruct: Path) -> None:
    torch.manual_seed(1)
    first = open_instruct(instruct, "gsm8k", seed=5)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == drawn, "opening a model must leave the caller's random numbers alone"
    assert torch.equal(embedding(open_instruct(instruct, "gsm8k", seed=5)), embedding(first))
    other = open_instruct(instruct, "gsm8k", seed=6)
    assert not torch.equal(latent_rows(other), latent_rows(first))
    before = first.tokens.before
    assert torch.equal(embedding(other)[:before], embedding(first)[:before])


def test_rows_by_mean_and_by_a_text(instruct: Path) -> None:
    mean = open_instruct(instruct, "gsm8k", new_token_init="mean")
    assert torch.allclose(latent_rows(mean), embedding(mean)[: mean.tokens.before].mean(0).expand(3, -1))
    text = open_instruct(instruct, "gsm8k", new_token_init="<<")
    assert len({tuple(row) for row in latent_rows(text).tolist()}) == 1
    with pytest.raises(UserError, match="new_token_init"):
        open_instruct(instruct, "gsm8k", new_token_init="zero")


def test_a_coconut_keeps_its_rows(instruct: Path, tmp_path: Path) -> None:
    first = open_instruct(instruct, "gsm8k", seed=9)
    first.model.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    again = open_instruct(tmp_path, "gsm8k", seed=1, thoughts=3)
    assert torch.equal(latent_rows(again), latent_rows(first))
    assert again.prompts(EXAMPLES).prompt(0, again.stage()).thoughts == 3


def test_what_it_is_opened_with_tells_it_apart(instruct: Path) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"thoughts": 2},
        {"markers": False},
        {"style": "published"},
        {"seed": 1},
    ]
    told = [str(open_instruct(instruct, "gsm8k", **way).told) for way in ways]
    assert len(set(told)) == len(ways)


def test_bad_input(instruct: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown benchmark"):
        open_instruct(instruct, "gsm9k")
    with pytest.raises(UserError, match="impossible thoughts"):
        open_instruct(instruct, "gsm8k", thoughts=-1)
    with pytest.raises(UserError, match="unknown style"):
        open_instruct(instruct, "gsm8k", style="formal")
    plain = open_checkpoint(instruct)
    plain.tokenizer.chat_template = None
    plain.model.save_pretrained(tmp_path)
    plain.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        open_instruct(tmp_path, "gsm8k")
    assert open_instruct(tmp_path, "gsm8k", style="raw").prompts(EXAMPLES).prompt(0, 1).thoughts == 8


def test_an_examiner_takes_it_in_place_of_a_checkpoint(instruct: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "some.json", EXAMPLES)
    loaded = open_instruct(instruct, "gsm8k", thoughts=2)
    exam = Exam(str(tmp_path / "some.json"), task=loaded.benchmark.task, samples=2)
    examiner = Examiner(loaded, exam)
    assert examiner.setting.max_new_tokens == 512 and examiner.setting.task == "gsm8k"
    assert examiner.task.score("20</think>It is 7.", EXAMPLES[0]).correct
    assert [examiner.prompts.prompt(i, examiner.setting.stage).thoughts for i in range(2)] == [2, 2]
    study = Study("branches", examiner, {"seed": 0})
    assert study.identity["training_free"] == "gsm8k" and study.identity["latents"] == 2
    assert study.questions.task is examiner.task
    assert "<|eot_id|>" in loaded.tokenizer.decode(examiner.prompts.prompt(0, 1).input_ids)
