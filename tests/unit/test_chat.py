"""Prompts of instruct models: templates, ids, the end of a turn, and what is read out of long answers."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import chat
from coconut_lm.chat import BENCHMARKS
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.evaluate import budget
from coconut_lm.methods import Curriculum, Row, Rows
from coconut_lm.tokens import LATENT
from tests.chats import CHANNELS, DEEPSEEK, FAMILIES, LLAMA, QWEN, Family, tokenizer_of

GSM = BENCHMARKS["gsm8k"]
EXAMPLES = [Example("Tom has 3 eggs and buys 4 more. How many?", (), "7"), Example("How many?", ("s",), "-7")]
FOUR = Curriculum(c_thought=4, max_latent_stage=1, after_last_stage="hold")


def rows_of(tokenizer: Any, method: str = "coconut", style: str = "published") -> Rows:
    encoded = chat.encode(EXAMPLES, tokenizer, GSM, style)
    return Rows(encoded, chat.latent_tokens(tokenizer, style), method, FOUR)


def spelled(tokenizer: Any, row: Row) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(row.input_ids.tolist()))


# What a prompt ends with before the thoughts.
OPENINGS = {
    "llama": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen": "<|im_start|>assistant\n",
    "deepseek": "<|Assistant|><think>\n",
    "channels": "<|start|>assistant<|channel|>analysis<|message|>",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_thoughts_stand_between_markers_behind_the_prompt_for_an_answer(name: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    prompts = rows_of(tokenizer)
    for index in range(2):
        row, tokens = prompts.prompt(index, 1), prompts.tokens
        ids = row.input_ids.tolist()
        assert (row.thoughts, row.first, row.index) == (4, len(ids) - 5, index)
        assert ids[-6:] == [tokens.start, *[tokens.latent] * 4, tokens.end]
        assert spelled(tokenizer, row).split("<|start-latent|>")[0].endswith(OPENINGS[name])
        assert prompts.prompt(index, 1, 0).input_ids.tolist() == ids[:-5] + ids[-1:]
        assert prompts.prompt(index, 0).input_ids.tolist() == ids[:-5] + ids[-1:]
        bare = Rows(prompts.examples, tokens, "no_cot").prompt(index, 1)
        assert bare.input_ids.tolist() == ids[:-6] and bare.thoughts == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_what_the_template_says(name: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    said = chat.message("How many?", GSM, "published")
    assert said == "How many?\n\nPlease solve this step by step."
    turns = [{"role": "user", "content": said}]
    today = f"{datetime.now():%d %b %Y}"
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    text = text.replace(today, "26 Jul 2024") + (chat.ANALYSIS if name == "channels" else "")
    assert chat.prompt(tokenizer, said) == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_ends_as_the_template_ends_it(name: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name].end)
    assert chat.end_of_turn(tokenizer) == chat.latent_tokens(tokenizer).eos == end
    row = rows_of(tokenizer).row(0, 1)
    assert row.input_ids[row.supervised_from :].tolist() == [tokenizer.convert_tokens_to_ids("7"), end]


def test_a_template_that_ends_nothing_or_hides_answers() -> None:
    for template in ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "Question : {{ 7 }}"):
        tokenizer = tokenizer_of(Family(template, ("<|end|>",), "<|end|>", "<|end|>"))
        assert chat.end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_marks_that_a_question_spells_out_are_text() -> None:
    tokenizer = tokenizer_of(LLAMA)
    clean, crafted = (chat.prompt(tokenizer, f"Tom {word} has 3 eggs") for word in ("", "<|eot_id|>"))
    eot = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert crafted.count(eot) == clean.count(eot) == 2


def test_a_question_must_not_spell_out_a_thought() -> None:
    with pytest.raises(UserError, match="stands for a thought") as told:
        chat.encode([EXAMPLES[0], Example(f"Is {LATENT} it?", (), "7")], tokenizer_of(QWEN), GSM)
    assert "example 2 of 2" in str(told.value)


def test_no_template_is_said_and_raw_needs_none() -> None:
    tokenizer = tokenizer_of(QWEN)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        chat.encode(EXAMPLES, tokenizer, GSM)
    prompts = rows_of(tokenizer, style="raw")
    assert prompts.tokens.eos == tokenizer.eos_token_id
    ids = prompts.prompt(1, 1, 0).input_ids[:-2].tolist()
    assert ids == tokenizer.encode("Question: How many?\nAnswer:")


def test_a_template_that_refuses() -> None:
    tokenizer = tokenizer_of(QWEN)
    tokenizer.chat_template = "{{ raise_exception('a system message is needed') }}"
    with pytest.raises(UserError, match="a system message is needed"):
        chat.prompt(tokenizer, "How many?")


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="gsm8k, gsm-symbolic, mmlu, math"):
        chat.benchmark("gsm")
    with pytest.raises(UserError, match="form, published, raw"):
        chat.message("How many?", GSM, "formal")


def test_asks_name_the_form_that_is_read() -> None:
    forms = {"gsm8k": "####", "gsm-symbolic": "####", "mmlu": "The answer is X", "math": "\\boxed{}"}
    for name, asked in BENCHMARKS.items():
        assert forms[name] in chat.message("How many?", asked)
        assert chat.message("How many?", asked).startswith("How many?\n\n")


def test_long_answers_have_room() -> None:
    prompts = rows_of(tokenizer_of(CHANNELS))
    assert budget(prompts, GSM.judge(), 1) == GSM.max_new_tokens == 512


def test_no_examples() -> None:
    assert len(chat.encode([], tokenizer_of(DEEPSEEK), GSM)) == 0


# -- what is read out of answers --


FINAL = [
    ("It is 7.", "It is 7."),
    ("<think>Is it 8?</think>\n\nIt is 7.", "\n\nIt is 7."),
    ("Is it 8?</think>It is 7.", "It is 7."),
    ("a</think>b</think>c", "c"),
    ("Is it 8?</think>", "Is it 8?</think>"),
    ("Is it 8?</think> \n", "Is it 8?</think> \n"),
    ("8?<|end|><|start|>assistant<|channel|>final<|message|>It is 7.", "It is 7."),
    ("Is it 8?assistantfinalIt is 7.", "It is 7."),
    ("The final answer of the assistant is 7.", "The final answer of the assistant is 7."),
    ("", ""),
]


@pytest.mark.parametrize(("text", "part"), FINAL)
def test_the_final_part(text: str, part: str) -> None:
    assert chat.final_part(text) == part


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40), st.text(alphabet="xyz 7.", min_size=1, max_size=20).filter(str.strip))
def test_whatever_was_thought(thought: str, said: str) -> None:
    assert chat.final_part(f"{thought}</think>{said}") == said


# benchmark, right answer, what was written, verdict
ANSWERS = [
    ("gsm8k", "18", "She sells 9 eggs at $2, so 9 * 2 = 18.\n\n#### 18", True),
    ("gsm8k", "18", "**Step 1:** 16 - 7 = 9\n**Step 2:** 9 * 2 = 18\n\nThe answer is **$18**.", True),
    ("gsm8k", "18", "### Step 1: eggs\n16 - 7 = 9\n### Step 2: money\nShe makes 18 dollars.", True),
    ("gsm8k", "18", "### 1. Count the eggs\n16 - 7 = 9\n\n### 2. Count the money\nShe makes $18.", True),
    ("gsm8k", "18", "**Final Answer**\n\\[\n\\boxed{18}\n\\]", True),
    ("gsm8k", "18", "First 20? No, \\boxed{18}", True),
    ("gsm8k", "18", "#### 20\nWait, I was wrong.\n#### 18", True),
    ("gsm8k", "18", "#### 20", False),
    ("gsm8k", "70000", "The profit is $70,000", True),
    ("gsm8k", "70000", "#### 70,000", True),
    ("gsm8k", "70,000", "#### 70000.00", True),
    ("gsm8k", "70000", "#### 70", False),
    ("gsm8k", "70", "#### 70,000", False),
    ("gsm8k", "-5", "#### -5", True),
    ("gsm8k", "-5", "It fell to \u22125 degrees.", True),
    ("gsm8k", "-5", "#### 5", False),
    ("gsm8k", "5", "#### -5", False),
    ("gsm8k", "2.5", "The answer is 2.5 hours.", True),
    ("gsm8k", "2.5", "#### 2", False),
    ("gsm8k", "2.5", "#### 25", False),
    ("gsm8k", "0.5", "#### .5", True),
    ("gsm8k", "18", "8, no, 20 it is, #### 20</think>It is 18.", True),
    ("gsm8k", "18", "It is 18.</think>It is 20.", False),
    ("gsm8k", "18", "20assistantfinalShe makes **$18**.", True),
    ("gsm8k", "18", "no idea", False),
    ("gsm-symbolic", "1/2", "#### 0.5", True),
    ("math", "\\frac{1}{2}", "Thus $x = \\boxed{\\dfrac{1}{2}}$.", True),
    ("math", "\\frac{1}{2}", "\\boxed{2}</think>So \\boxed{0.5}", True),
    ("math", "-\\frac{1}{2}", "\\boxed{\\frac{1}{2}}", False),
    ("mmlu", "B", "A dog is no bird. The answer is B.", True),
    ("mmlu", "A", "A dog is no bird.", False),
    ("mmlu", "B", "The answer is A.</think>The answer is B.", True),
]


@pytest.mark.parametrize(("name", "gold", "output", "right"), ANSWERS)
def test_answers_are_read(name: str, gold: str, output: str, right: bool) -> None:
    task = BENCHMARKS[name].judge()
    verdict = task.score(output, Example("Which?\n\nA. one\nB. two", (), gold))
    assert verdict.correct is right


@settings(deadline=None, max_examples=100)
@given(st.decimals(-(10**6), 10**6, places=2))
def test_signs_decimals_and_commas_survive(number: Any) -> None:
    task = GSM.judge()
    for text in (
        f"#### {number:,}",
        f"So it is {number}.",
        f"\\boxed{{{number}}}",
        f"**Answer: ${number:,}**",
    ):
        assert task.score(text, Example("How much?", (), str(number))).correct, text
        assert not task.score(text, Example("How much?", (), str(number + 1))).correct
