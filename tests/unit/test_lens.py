"""What thoughts say, against plain computation one row at a time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAMILIES, base_model

from coconut_lm import CoconutForCausalLM, Curriculum, UserError, add_latent_tokens, add_lora, word_tokenizer
from coconut_lm import base as bases
from coconut_lm.assembly import Loaded
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.evaluate import Setting
from coconut_lm.lens import ask, decode, write_thoughts
from coconut_lm.methods import Row
from coconut_lm.runfolder import Progress
from coconut_lm.tokens import encode

EXAMPLES = list(prosqa.make(6, seed=1, nodes=8, edges=6, hops=3, shape="sized"))
CURRICULUM = Curriculum(c_thought=2, max_latent_stage=3)


def loaded(family: str = "gpt2", method: str = "coconut", dtype: Any = torch.float64, **more: Any) -> Loaded:
    tokenizer = word_tokenizer(" ".join([e.question, *e.steps, e.answer]) for e in EXAMPLES)
    tokens = add_latent_tokens(tokenizer, pause=True)
    places = {"n_positions": 256} if family == "gpt2" else {"max_position_embeddings": 256}
    ends = dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"], tokens.eos)
    base = base_model(family, dtype, vocab_size=len(tokenizer), **places, **ends)
    init = "random" if method not in ("cot", "no_cot") else None
    model = CoconutForCausalLM.from_base(base, tokenizer, new_token_init=init, **more).eval()
    return Loaded(model, tokenizer, tokens, method, CURRICULUM)


def prompts(of: Loaded, *thoughts: int) -> list[Row]:
    rows = of.rows(encode(EXAMPLES, of.tokenizer))
    return [rows.prompt(index, 1, count) for index, count in enumerate(thoughts)]


@torch.no_grad()
def plainly(of: Loaded, row: Row) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each thought and its logits: the row is read anew for each, without a cache, by the base alone."""
    base = of.model.base_causallm
    ids = torch.from_numpy(row.input_ids.astype("int64"))[None]
    embeds = base.get_input_embeddings()(ids).clone()
    found = []
    scale = bases.input_scale(base.config)
    for column in range(row.first, row.first + row.thoughts):
        output = base(inputs_embeds=embeds[:, :column], output_hidden_states=True, use_cache=False)
        thought = output.hidden_states[-1][:, -1]
        embeds[:, column] = thought / scale
        found.append((thought[0], output.logits[0, -1]))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_thought_is_what_the_base_would_write_in_its_place(family: str) -> None:
    of = loaded(family)
    (row,) = prompts(of, 3)
    table = of.model.get_input_embeddings()
    unit = table(torch.arange(table.weight.shape[0])).norm(dim=-1).mean().item()
    unit *= bases.input_scale(of.model.base_causallm.config)
    (thoughts,) = decode(of, [row], top=4)
    assert len(thoughts) == 3
    for thought, (vector, logits) in zip(thoughts, plainly(of, row), strict=True):
        p = logits.double().softmax(-1)
        assert thought.norm == pytest.approx(vector.norm().item(), rel=1e-5)
        assert thought.norm_ratio == pytest.approx(vector.norm().item() / unit, rel=1e-4)
        assert thought.entropy == pytest.approx(torch.special.entr(p).sum().item(), abs=1e-4)
        values, ids = p.topk(4)
        assert [text for text, _ in thought.tokens] == [of.tokenizer.decode([i]) for i in ids.tolist()]
        assert [share for _, share in thought.tokens] == pytest.approx(values.tolist(), abs=1e-5)


def test_a_batch_says_what_its_rows_say_alone() -> None:
    of = loaded("llama")
    rows = prompts(of, 3, 0, 5, 1, 2, 2)
    together, alone = decode(of, rows), [decode(of, [row])[0] for row in rows]
    assert [len(thoughts) for thoughts in together] == [3, 0, 5, 1, 2, 2]
    for a, b in zip(sum(together, []), sum(alone, []), strict=True):
        assert [text for text, _ in a.tokens] == [text for text, _ in b.tokens]
        assert (a.norm, a.entropy) == pytest.approx((b.norm, b.entropy), rel=1e-5)


def test_many_rows_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    of = loaded()
    rows = prompts(of, 1, 2, 0, 3, 1)
    whole = decode(of, rows)
    monkeypatch.setattr("coconut_lm.lens.BATCH", 2)
    parts = decode(of, rows)
    assert [len(each) for each in parts] == [1, 2, 0, 3, 1]
    for a, b in zip(sum(parts, []), sum(whole, []), strict=True):
        assert a.entropy == pytest.approx(b.entropy, rel=1e-5)


def test_the_model_is_left_as_it_was_and_read_without_dropout() -> None:
    of = loaded()
    rows = prompts(of, 2)
    calm = decode(of, rows)
    for module in of.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    of.model.train()
    assert decode(of, rows) == calm
    assert of.model.training and all(weight.grad is None for weight in of.model.parameters())


def test_adapters_are_read_through() -> None:
    of = loaded()
    plain = decode(of, prompts(of, 2))
    adapted = replace(of, model=add_lora(of.model, r=2).eval())
    assert decode(adapted, prompts(of, 2)) == plain  # a fresh adapter changes nothing
    for name, weight in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    assert decode(adapted, prompts(of, 2)) != plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_read_in_float32(dtype: torch.dtype) -> None:
    of = loaded("llama", dtype=dtype)
    for thought in decode(of, prompts(of, 4))[0]:
        assert 0 <= thought.entropy < 10 and sum(p for _, p in thought.tokens) <= 1.0001
        assert json.loads(json.dumps(thought.to_json()))["tokens"][0][1] > 0


def test_a_question_is_answered_with_each_number_of_thoughts() -> None:
    of = loaded()
    answers = ask(of, EXAMPLES[0].question, [0, 1, 3], stage=2, max_new_tokens=5)
    assert [each.slots for each in answers] == [len(each.thoughts) for each in answers] == [0, 1, 3]
    # What is thought first does not depend on what comes after it.
    assert answers[1].thoughts[0].norm == pytest.approx(answers[2].thoughts[0].norm)
    assert all(each.output for each in answers)


def test_the_number_of_thoughts_follows_from_the_stage() -> None:
    of = replace(loaded(), progress=Progress(stage=2))
    (answer,) = ask(of, "Is Tom a lempus or a gorpus?", max_new_tokens=2)
    assert answer.slots == 4  # two a step
    few = replace(of, curriculum=replace(CURRICULUM, pad_latent_to_max=False))
    assert ask(few, "Is Tom a lempus or a gorpus?", max_new_tokens=2)[0].slots == 4
    assert len(ask(of, "Is Tom?", stage=1, max_new_tokens=2)[0].thoughts) == 2


def test_pauses_are_no_thoughts() -> None:
    (answer,) = ask(loaded(method="pause"), "Is Tom?", [3], max_new_tokens=2)
    assert answer.slots == 3 and answer.thoughts == []


@pytest.mark.parametrize(
    ("method", "question", "counts", "problem"),
    [
        ("coconut", " \n", [1], "nothing is asked"),
        ("coconut", "Is Tom?", None, "does not say how many thoughts"),
        ("coconut", "Is Tom?", [400], "more thoughts than the model has positions"),
        ("coconut", "Is Tom <|latent|>?", [1], "stands for a thought"),
        ("cot", "Is Tom?", [1], "impossible thoughts for method cot"),
    ],
)
def test_what_cannot_be_asked(method: str, question: str, counts: list[int] | None, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        ask(loaded(method=method), question, counts)


def test_a_method_without_thoughts_needs_no_number() -> None:
    of = loaded(method="cot")
    assert of.stage() == 0
    assert ask(of, "Is Tom?", max_new_tokens=2)[0].thoughts == []


def setting(**changes: Any) -> Setting:
    plain = Setting("c", "w", "d", "s", "plain", "coconut", 2, None, "tolerant", 6)
    return replace(plain, **changes)


def test_thoughts_are_written_for_the_report(tmp_path: Path) -> None:
    of = loaded()
    write_thoughts(of, EXAMPLES[:3], setting(task="prosqa"), tmp_path / "thoughts.json")
    found = json.loads((tmp_path / "thoughts.json").read_text())
    assert [each["question"] for each in found] == [each.question for each in EXAMPLES[:3]]
    rows = of.rows(encode(EXAMPLES[:3], of.tokenizer))
    decoded = decode(of, [rows.prompt(index, 2) for index in range(3)])
    assert [each["thoughts"] for each in found] == [[t.to_json() for t in row] for row in decoded]
    assert all(len(each["thoughts"]) == 4 and each["output"] and each["correct"] is False for each in found)


def test_right_answers_are_told(tmp_path: Path) -> None:
    of = loaded()
    output = ask(of, "Nine?", [1], stage=1, max_new_tokens=4)[0].output
    asked = [Example("Nine?", ("x",), output.strip())]
    write_thoughts(of, asked, setting(stage=1, thoughts=1, max_new_tokens=4), tmp_path / "t.json")
    (found,) = json.loads((tmp_path / "t.json").read_text())
    assert found["correct"] and found["output"] == output and len(found["thoughts"]) == 1
