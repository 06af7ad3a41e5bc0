"""`coconut-lm ask` as a user types it, on saved tiny checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import base_model
from typer.testing import CliRunner, Result

from coconut_lm import CoconutForCausalLM, add_latent_tokens, word_tokenizer
from coconut_lm.cli import app
from coconut_lm.config import Config, dump
from coconut_lm.runfolder import Progress

QUESTION = "Every wumpus is a lempus. Tom is a wumpus. Is Tom a lempus or a gorpus?"


def save(place: str, method: str) -> None:
    """A checkpoint with its run.yaml; the last epoch was at stage 2."""
    tokenizer = word_tokenizer([QUESTION])
    size = len(tokenizer)
    add_latent_tokens(tokenizer)
    base = base_model("gpt2", vocab_size=size, bos_token_id=0, eos_token_id=0)
    thinks = "random" if method == "coconut" else None
    CoconutForCausalLM.from_base(base, tokenizer, new_token_init=thinks).save_pretrained(place)
    tokenizer.save_pretrained(place)
    run: dict[str, Any] = {"model_id": place, "max_latent_stage": 3, "pad_latent_to_max": True}
    run |= {"train_path": "train.json", "val_path": "valid.json"}
    dump(Config(method=method, c_thought=1, **run), Path(place) / "run.yaml")
    Progress(epoch=4, step=40, stage=2 if method == "coconut" else 0).write(Path(place))


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("ask"))
        for method in ("coconut", "cot"):
            save(method, method)
        yield


def ask(*words: object, stdin: str = "") -> Result:
    most = () if "--help" in words else ("--max-new-tokens", 6)
    return CliRunner().invoke(app, ["ask", *map(str, [*words, *most])], input=stdin, env={"COLUMNS": "100"})


def well(*words: object, stdin: str = "") -> Result:
    done = ask(*words, stdin=stdin)
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    return done


def objects(*words: object, stdin: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in well(*words, "--json", stdin=stdin).stdout.splitlines()]


def wrongly(*words: object, stdin: str = "") -> str:
    done = ask(*words, stdin=stdin)
    assert done.exit_code == 2 and done.stdout == "", done.output or repr(done.exception)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_answer_and_a_table_of_thoughts() -> None:
    shown = well("coconut", QUESTION).stdout
    assert shown.startswith("2 thoughts: ")
    head, *rows = shown.split("\n\n")[1].splitlines()
    assert head.split()[0] == "thought" and "entropy" in head
    assert [row.split()[0] for row in rows if row.strip()[:1].isdigit()] == ["1", "2"]
    assert "%" in rows[-1]


def test_each_number_of_thoughts_in_turn() -> None:
    shown = well("coconut", QUESTION, "--thoughts", "0-3", "--top", 2).stdout
    for line in ("0 thoughts: ", "1 thought: ", "2 thoughts: ", "3 thoughts: "):
        assert f"\n{line}" in f"\n{shown}"
    assert shown.count("%") == 6  # two tokens of each of the three thoughts of the longest


def test_json() -> None:
    (found,) = objects("coconut", QUESTION, "--thoughts", "1-2", "--stage", 1, "--top", 3)
    assert found["question"] == QUESTION and found["method"] == "coconut"
    assert [each["slots"] for each in found["answers"]] == [1, 2]
    (thought,) = found["answers"][0]["thoughts"]
    assert set(thought) == {"tokens", "norm", "norm_ratio", "entropy"} and len(thought["tokens"]) == 3


def test_a_method_without_thoughts() -> None:
    shown = well("cot", QUESTION).stdout
    assert shown.startswith("0 thoughts: ") and "entropy" not in shown
    assert "impossible thoughts for method cot" in wrongly("cot", QUESTION, "--thoughts", 1)


def test_a_question_from_a_pipe_is_the_question() -> None:
    assert objects("coconut", "-", stdin=QUESTION + "\n") == objects("coconut", QUESTION)


def test_a_conversation() -> None:
    lines = ["/thoughts 3", QUESTION, "", "/thoughts 0-1", "Is Tom a wumpus?", "/thoughts", "Is Tom?"]
    found = objects("coconut", "--interactive", stdin="\n".join(lines))
    assert [each["question"] for each in found] == [QUESTION, "Is Tom a wumpus?", "Is Tom?"]
    assert [[a["slots"] for a in each["answers"]] for each in found] == [[3], [0, 1], [2]]


def test_a_mistake_does_not_end_a_conversation() -> None:
    lines = ["/thoughts many", "/quit", "Is <|latent|>?", QUESTION]
    done = well("coconut", "-i", "--json", stdin="\n".join(lines) + "\n")
    assert len(done.stdout.splitlines()) == 1
    for problem in ("impossible number", "unknown command", "stands for a thought"):
        assert problem in done.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["coconut"], "no question"),
        (["coconut", "--interactive", QUESTION], "a question and --interactive"),
        (["coconut", "  "], "nothing is asked"),
        (["coconut", "-"], "nothing is asked"),
        (["coconut", QUESTION, "--thoughts", "3-1"], "impossible number of thoughts"),
        (["coconut", QUESTION, "--thoughts", "-1"], "impossible number of thoughts"),
        (["coconut", QUESTION, "--thoughts", "0-99"], "impossible number of thoughts"),
        (["coconut", QUESTION, "--thoughts", 500], "positions"),
        (["coconut", "Tom " * 300], "positions"),
        (["nowhere/at/all", QUESTION], "nowhere/at/all"),
    ],
)
def test_mistakes_are_told(words: list[object], problem: str) -> None:
    assert problem in wrongly(*words)


def test_help_has_an_example() -> None:
    assert "coconut-lm ask runs/" in well("--help").stdout
