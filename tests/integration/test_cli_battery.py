"""`coconut-lm battery` as a user types it, on saved tiny checkpoints."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from chats import LLAMA, tokenizer_of
from saved import CHECKPOINT, EXAMPLES, RUN, Typed, rows, save, stand
from tiny import base_model

from coconut_lm import CoconutForCausalLM
from coconut_lm.answer import Answerer, read
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example, read_examples, write_examples
from coconut_lm.journal import Journal
from coconut_lm.methods import Row

WORDS = [CHECKPOINT, "prosqa.json", "--max-new-tokens", "4"]
ALL = {
    "dropped": ["dropped"],
    "number": ["stop_1", "plus_1", "plus_2"],  # twice two is two more
    "replaced": ["zero", "mean", "gaussian", "pause", "first", "between_0.25", "between_0.5", "between_0.75"],
    "moved": ["shuffled", "swap", "zero_1", "swap_1", "zero_2", "swap_2", "twin_swap"],
    "interchanged": ["kv_thoughts", "kv_question", "kv_twin", "kv_twin_question"],
    "asked": ["asked"],
}


battery = Typed("battery", WORDS)
well, wrongly = battery.well, battery.wrongly


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand(tmp_path, monkeypatch)


def said(folder: str | Path, trial: str) -> list[str]:
    return [row["output"] for row in rows(folder) if row["trial"] == trial]


def named(summary: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in summary["rows"] if row["name"] == name)


def test_the_whole_battery_and_its_files() -> None:
    summary = well()
    (place,) = Path(RUN, "battery").iterdir()
    assert place.name.startswith("prosqa-checkpoint_4-")
    assert json.loads((place / "battery.json").read_text()) == summary
    assert summary["kind"] == "battery" and summary["n"] == 12 and summary["thoughts"] == 2
    assert summary["seed"] == 0 and summary["floors"] and summary["failed"]["n"] == 0
    found: dict[str, list[str]] = {}
    for row in summary["rows"]:
        found.setdefault(row["group"], []).append(row["name"])
        assert row["title"] and row["accuracy"]["n"] <= 12 and set(row["difference"]) >= {"low", "high", "p"}
        assert row["changed"]["n"] == row["accuracy"]["n"]
    assert found == ALL and summary["left_out"] == []
    assert {row["trial"] for row in rows(place)} == {
        "clean",
        *(name for each in ALL.values() for name in each),
    }
    assert summary["swaps"]["n"] == 12 and summary["swaps"]["accuracy"] == named(summary, "asked")["accuracy"]
    assert summary["verdict"]["used"] in ("yes", "no", "unclear") and len(summary["verdict"]["sentences"]) > 8


def test_thoughts_matter_to_a_random_model_and_their_number_is_what_was_asked() -> None:
    summary = well("--out", "b")
    for name in ("dropped", "zero", "gaussian", "swap", "shuffled", "kv_thoughts", "kv_question"):
        assert named(summary, name)["changed"]["right"] > 0, name
    asked = {"dropped": 0, "stop_1": 1, "clean": 2, "plus_1": 3, "plus_2": 4, "zero": 2, "asked": 2}
    for trial, thoughts in asked.items():
        assert {row["thoughts"] for row in rows("b") if row["trial"] == trial} == {thoughts}
    zero = [row["thought_norms"] for row in rows("b") if row["trial"] == "zero"]
    assert zero == [[0.0, 0.0]] * 12
    alone = [row["thought_norms"] for row in rows("b") if row["trial"] == "zero_2"]
    clean = [row["thought_norms"] for row in rows("b") if row["trial"] == "clean"]
    assert alone == [[norms[0], 0.0] for norms in clean]
    donors = {row["index"]: row["donor"] for row in rows("b") if row["trial"] == "swap"}
    assert sorted(donors.values()) == list(range(12)) and all(own != donor for own, donor in donors.items())
    swapped = {row["index"]: row["thought_norms"] for row in rows("b") if row["trial"] == "swap"}
    assert [swapped[i] for i in range(12)] == [clean[donors[i]] for i in range(12)]
    twins = [row["thought_norms"] for row in rows("b") if row["trial"] == "asked"]
    assert [row["thought_norms"] for row in rows("b") if row["trial"] == "twin_swap"] == twins


def blind(place: str) -> None:
    """A model in which no column sees another: it cannot use its thoughts, nor their number."""
    model = CoconutForCausalLM.from_pretrained(place)
    with torch.no_grad():
        for block in model.base_causallm.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.attn.c_proj.bias.zero_()
        model.base_causallm.transformer.wpe.weight.zero_()
    model.save_pretrained(place)


def test_a_model_that_cannot_see_its_thoughts_does_not_use_them() -> None:
    many = [*prosqa.make(90, seed=1, nodes=8, edges=6, hops=3, shape="sized")]
    write_examples("many.json", many)
    blind(CHECKPOINT)
    words = [CHECKPOINT, "many.json", "--max-new-tokens", 2]
    summary = well(*words)
    assert all(row["changed"]["right"] == 0 for row in summary["rows"])
    assert summary["verdict"]["used"] == "no"
    assert well(*words, "--samples", 12)["verdict"]["used"] == "unclear"  # too few to be sure


def test_to_lose_all_for_want_of_thoughts_is_seen() -> None:
    """Gold answers are what the model says: clean it is right, and any change is an error."""
    well("--out", "first", "--only", "dropped")
    graph = [{key: e.extra[key] for key in prosqa.FIELDS} for e in EXAMPLES]
    gold = [row["extracted"] for row in rows("first") if row["trial"] == "clean"]
    told = [
        Example(e.question, e.steps, answer, extra=extra)
        for e, answer, extra in zip(EXAMPLES, gold, graph, strict=True)
    ]
    write_examples("own.json", told)
    assert [e.answer for e in read_examples("own.json")] == gold
    summary = well(CHECKPOINT, "own.json", "--max-new-tokens", 4, "--task", "plain", "--out", "own")
    assert summary["clean"]["rate"] == 1 and summary["swaps"] is None
    for row in summary["rows"]:
        assert row["difference"]["difference"] == pytest.approx(-row["changed"]["rate"])
    assert named(summary, "zero")["difference"]["high"] < 0


def test_any_batch_the_same_and_another_seed_other_noise() -> None:
    one, two, other = (
        well("--batch-size", size, "--seed", seed, "--out", f"{size}{seed}", "--only", "replaced,moved")
        for size, seed in ((5, 0), (64, 0), (64, 1))
    )
    assert [row["accuracy"] for row in one["rows"]] == [row["accuracy"] for row in two["rows"]]
    assert one["verdict"] == two["verdict"] and other["seed"] == 1
    for trial in ("clean", "gaussian", "swap", "mean"):
        assert said("50", trial) == said("640", trial)
    norms = [[row["donor"] for row in rows(out) if row["trial"] == "swap"] for out in ("640", "641")]
    assert norms[0] != norms[1]


def test_only_what_is_asked_with_what_it_is_compared_with() -> None:
    summary = well("--only", "twin_swap,stop_1", "--out", "b")
    assert [row["name"] for row in summary["rows"]] == ["stop_1", "twin_swap"]
    assert {row["trial"] for row in rows("b")} == {"clean", "stop_1", "twin_swap", "asked", "mean"}
    assert summary["swaps"]["n"] == 12  # it was asked anyway
    assert (
        "do not decide" in " ".join(summary["verdict"]["sentences"])
        or summary["verdict"]["used"] == "unclear"
    )
    message = wrongly(*WORDS, "--only", "swop")
    assert "unknown treatment" in message and "perhaps you mean swap" in message


def test_the_table_fits_a_terminal_and_tells_it_all() -> None:
    done = battery(*WORDS, "--out", "b")
    assert done.exit_code == 0 and all(len(line) <= 80 for line in done.stdout.splitlines())
    text = " ".join(done.stdout.split())
    for part in ("as they are", "no thoughts", "1 of 2 thoughts", "thoughts of another example", "follows:"):
        assert part in text
    assert "Is the latent used?" in text and "(Holm)" in text and "files in b" in done.stderr


def test_one_thought_leaves_out_what_needs_two() -> None:
    summary = well("--thoughts", 1, "--out", "b")
    names = {row["name"] for row in summary["rows"]}
    assert not names & {"stop_1", "shuffled", "first", "zero_1", "swap_1"} and {"swap", "plus_1"} <= names
    assert "twice" not in names  # that is one more
    assert any("but one thought" in each for each in summary["left_out"])


def test_one_example_has_no_donors() -> None:
    summary = well("--samples", 1, "--out", "b")
    names = {row["name"] for row in summary["rows"]}
    assert not names & {"mean", "swap", "between_0.5", "kv_thoughts"} and {"zero", "twin_swap"} <= names
    told = " ".join(summary["left_out"])
    assert "there is no other example" in told and "no two examples" in told and "no two prompts" in told
    assert summary["verdict"]["used"] == "unclear"
    done = battery(*WORDS, "--samples", 1, "--out", "b")
    assert "left out:" in done.stdout and done.exit_code == 0


def test_more_thoughts_than_positions_are_left_out() -> None:
    longest = max(row["read"] for row in _clean_rows())
    most = 128 - longest - 4 + 2
    summary = well("--thoughts", most, "--out", "b", "--only", "number")
    names = {row["name"] for row in summary["rows"]}
    assert f"stop_{most - 1}" in names and "twice" not in names
    assert any("twice as many thoughts: the model has no positions" in each for each in summary["left_out"])


def _clean_rows() -> list[dict[str, Any]]:
    well("--only", "dropped", "--out", "probe")
    return [row for row in rows("probe") if row["trial"] == "clean"]


def dies_after(count: int) -> None:
    """SIGTERM by the battery's own process, once so many answers are written down."""
    keep = Journal.keep

    def counted(self: Journal, found: Any, row: Any) -> Iterator[Any]:
        nonlocal count
        for each in keep(self, found, row):
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            yield each

    Journal.keep = counted  # type: ignore[method-assign]


def test_a_killed_battery_goes_on_to_the_same_end() -> None:
    words = [*WORDS, "--batch-size", 5, "--out", "killed"]
    done = runs.command("battery", *words, prepare=lambda: dies_after(100))
    assert done.code == 130 and "stopped" in done.err and "Traceback" not in done.err
    assert len(Path("killed/partial.jsonl").read_text().splitlines()) >= 100
    assert not Path("killed/battery.json").exists()
    resumed, whole = (well("--batch-size", 5, "--out", out) for out in ("killed", "whole"))
    assert rows("killed") == rows("whole") and resumed | {"seconds": 0} == whole | {"seconds": 0}
    message = wrongly(*WORDS, "--out", "whole", "--seed", 1)
    assert "holds the results of another job" in message and "seed" in message


def test_what_fails_is_counted_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answerer._answer

    def breaks(self: Answerer, prompts: Sequence[Row], room: int) -> Any:
        if self.read is not read and any(prompt.index == 3 for prompt in prompts):
            raise RuntimeError("out of memory")
        return answer(self, prompts, room)

    words = [*WORDS, "--only", "zero,swap", "--out", "b"]
    with monkeypatch.context() as broken:
        broken.setattr(Answerer, "_answer", breaks)
        done = battery(*words)
    assert done.exit_code == 1 and "answers failed" in done.stderr
    found = json.loads(Path("b/battery.json").read_text())
    assert named(found, "zero")["accuracy"]["n"] == 11 and named(found, "swap")["accuracy"]["n"] == 10
    errors = {row["error"] for row in rows("b") if not row["success"]}
    assert "UserError: the clean thoughts about the donor could not be read" in errors
    again, whole = (well("--only", "zero,swap", "--out", out) for out in ("b", "c"))
    assert again["failed"]["n"] == 0
    assert [row["accuracy"] for row in again["rows"]] == [row["accuracy"] for row in whole["rows"]]
    # The mean of the others was that of those that could be read.
    assert [row for row in rows("b") if row["trial"] != "mean"] == [
        row for row in rows("c") if row["trial"] != "mean"
    ]


def test_what_cannot_be_asked() -> None:
    save("plain", method="cot")
    message = wrongly("plain", "prosqa.json")
    assert "no thoughts to ask about" in message and "method cot" in message and "that thinks" in message
    message = wrongly(CHECKPOINT, "prosqa.json", "--stage", 0)
    assert "method coconut, stage 0" in message and "--stage" in message
    assert "nowhere.json does not exist" in wrongly(CHECKPOINT, "nowhere.json")


def test_an_instruct_model_that_never_learned_to_think() -> None:
    tokenizer = tokenizer_of(LLAMA, latent=False)
    ends = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], tokenizer.eos_token_id)
    base_model("llama", vocab_size=len(tokenizer), **ends).save_pretrained("instruct")
    tokenizer.save_pretrained("instruct")
    asked = ["Tom has 3 eggs and buys 4 more. How many?", "How many eggs?", "How many eggs has Tom?"]
    write_examples("eggs.json", [Example(text, (), str(i)) for i, text in enumerate(asked)])
    words = ["instruct", "eggs.json", "--training-free", "gsm8k", "--max-new-tokens", 4, "--out", "b"]
    summary = well(*words)
    names = {row["name"] for row in summary["rows"]}
    assert summary["thoughts"] == 8 and {"stop_7", "swap_8", "zero_8", "twice", "mean"} <= names
    assert "asked" not in names and summary["swaps"] is None and summary["verdict"]["used"] == "unclear"


def test_help_has_an_example() -> None:
    done = battery("--help")
    assert done.exit_code == 0 and "Example: coconut-lm battery" in done.stdout
