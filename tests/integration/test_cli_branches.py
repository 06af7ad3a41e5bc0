"""`coconut-lm branches` as a user types it, on a saved tiny checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chats import LLAMA, tokenizer_of
from saved import CHECKPOINT, RUN, Typed, rows, save, stand
from tiny import base_model

from coconut_lm.answer import Answerer
from coconut_lm.data.example import Example, write_examples
from coconut_lm.evaluate import Reply
from coconut_lm.journal import Journal
from coconut_lm.methods import Row

WORDS = [CHECKPOINT, "prosqa.json", "--max-new-tokens", "4"]
HOT = ["--temperature", "1", "--top-p", "1"]


branches = Typed("branches", WORDS)
well, wrongly = branches.well, branches.wrongly


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand(tmp_path, monkeypatch)


def arms(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {arm["name"]: arm for arm in summary["arms"]}


def test_arms_and_controls_and_their_files() -> None:
    summary = well("--branches", "1,3,4", "--scales", "0,.5,2", *HOT, "--abstain", "0.5")
    (place,) = Path(RUN, "branches").iterdir()
    assert json.loads((place / "branches.json").read_text()) == summary
    controls = ["no noise", "no thoughts", "no markers"]
    assert [*arms(summary)] == [f"gaussian_scaled {scale}" for scale in ("0", "0.5", "2")] + controls
    assert [arm["control"] for arm in summary["arms"]] == [False] * 3 + [True] * 3
    assert summary["failed"] == {"n": 0, "of": 8 * 12} and summary["branches"] == 4
    assert summary["baselines"]["clean"]["n"] == summary["arms"][0]["votes"]["majority"]["n"] == 12
    found = rows(place)
    assert len(found) == 2 * 12 + 6 * 12 * 4
    by_trial = {name: [row for row in found if row["trial"] == name] for name in arms(summary)}
    assert [row["branch"] for row in by_trial["no noise"]] == [0, 1, 2, 3] * 12
    assert {row["thoughts"] for row in by_trial["gaussian_scaled 2"] + by_trial["no noise"]} == {2}
    assert {row["thoughts"] for row in by_trial["no thoughts"] + by_trial["no markers"]} == {0}
    assert "<|start-latent|>" in by_trial["no thoughts"][0]["prompt"]
    assert "latent" not in by_trial["no markers"][0]["prompt"]
    for row in by_trial["gaussian_scaled 2"]:
        told = row["diagnostics"]
        assert told["noise_norm"] / told["original_norm"] == pytest.approx(2) and row["logprob"] < 0
    answers = rows(place, "answers.jsonl")
    assert len(answers) == 6 * 12
    for name, arm in arms(summary).items():
        given = [row for row in answers if row["trial"] == name and row["answer"] is not None]
        assert all(row["share"] >= 0.5 for row in given)
        assert len(given) == arm["abstention"]["coverage"]["right"] == arm["abstention"]["accuracy"]["n"]
        assert sum(row["correct"] for row in given) == arm["abstention"]["accuracy"]["right"]
        assert [*arm["by_k"]] == [*arm["pass_at"]] == ["1", "3", "4"]


def test_scale_zero_is_the_arm_without_noise() -> None:
    summary = well("--scales", "0", *HOT, "--out", "b")
    silent, still = arms(summary)["gaussian_scaled 0"], arms(summary)["no noise"]
    kept = ("single", "mean_single", "votes", "by_k", "pass_at", "agreement", "risk_coverage", "diversity")
    assert [silent[key] for key in kept] == [still[key] for key in kept]
    assert silent["against_no_noise"]["difference"] == 0 and still["against_no_noise"] is None
    texts = [[row["output"] for row in rows("b") if row["trial"] == name] for name in arms(summary)]
    assert texts[0] == texts[1] != texts[2]


def test_greedy_branches_differ_by_noise_alone() -> None:
    summary = well("--scales", "3", "--temperature", "0", "--branches", "3")
    noisy, still = arms(summary)["gaussian_scaled 3"], arms(summary)["no noise"]
    assert noisy["diversity"]["texts"] > 0.6 and noisy["diversity"]["d_k"] > 0
    assert still["diversity"]["texts"] == pytest.approx(1 / 3) and still["diversity"]["d_k"] == 0
    assert still["votes"]["majority"] == summary["baselines"]["clean"]
    bare = arms(summary)["no thoughts"]
    assert bare["single"] == summary["baselines"]["without thoughts"] and bare["diversity"]["d_k"] is None


def test_the_same_for_any_batch_size() -> None:
    for size in (1, 4, 64):
        well("--scales", "1", *HOT, "--batch-size", size, "--out", f"b{size}", "--schedule", "linear")
    texts = [[row["output"] for row in rows(f"b{size}")] for size in (1, 4, 64)]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize(
    "how",
    [
        ["--step", "2"],
        ["--schedule", "none"],
        ["--layer", "1"],
        ["--seed", "1"],
        ["--noise", "uniform"],
    ],
)
def test_where_layer_schedule_and_seed_change_what_is_thought(how: list[str]) -> None:
    words = ["--scales", "1", "--no-controls", "--branches", "2"]
    well(*words, "--out", "plain")
    well(*words, *how, "--out", "other")
    norms = [[row["thought_norms"] for row in rows(place) if "branch" in row] for place in ("plain", "other")]
    assert norms[0] != norms[1] and len(norms[0]) == len(norms[1]) == 24


def test_another_vote_or_threshold_asks_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--branches", "3", "--scales", "1", *HOT, "--out", "b"]
    first = well(*words)
    monkeypatch.setattr(Answerer, "branched", lambda *_: pytest.fail("asked anew"))
    other = well(*words, "--vote", "probability_mass", "--abstain", "1")
    assert other["vote"] == "probability_mass" and first["vote"] == "majority"
    assert other["arms"][0]["votes"] == first["arms"][0]["votes"]
    assert other["arms"][0]["abstention"]["threshold"] == 1.0


def test_one_cut_off_within_an_examples_branches_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--branches", "5", "--scales", "1", *HOT, "--batch-size", "10"]
    keep, branched, asked = Journal.keep, Answerer.branched, list[int]()

    def stops(self: Journal, found: Any, row: Any) -> Any:
        for each in keep(self, found, row):
            if (
                each["trial"] == "gaussian_scaled 1"
                and each["branch"] == 2
                and len(rows(self.folder, "partial.jsonl")) > 35
            ):
                raise KeyboardInterrupt
            yield each

    def counted(self: Answerer, prompts: Sequence[Row]) -> list[list[Reply]]:
        asked.extend([prompt.index for prompt in prompts] * (self.branches > 1))
        return branched(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", stops)
        assert branches(*WORDS, *words, "--out", "cut").exit_code == 130
    assert not Path("cut/branches.json").exists()
    kept = [row for row in rows("cut", "partial.jsonl") if row["trial"] == "gaussian_scaled 1"]
    whole_ones, rest = divmod(len(kept), 5)
    assert whole_ones and rest
    with open("cut/partial.jsonl", "a") as file:
        file.write('{"trial": "gaussian_sc')
    monkeypatch.setattr(Answerer, "branched", counted)
    resumed = well(*words, "--out", "cut")
    assert len(asked) == 4 * 12 - whole_ones
    whole = well(*words, "--out", "whole")
    assert rows("cut") == rows("whole") and rows("cut", "answers.jsonl") == rows("whole", "answers.jsonl")
    assert resumed | {"seconds": 0} == whole | {"seconds": 0}


def test_what_fails_is_counted_and_too_much_of_it_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    branched = Answerer.branched

    def fails(self: Answerer, prompts: Sequence[Row]) -> list[list[Reply]]:
        if self.branches > 1 and any(prompt.index == 3 for prompt in prompts):
            raise RuntimeError("no room\nleft")
        return branched(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "branched", fails)
        done = branches(*WORDS, "--scales", "1", "--no-controls", "--out", "b")
    assert done.exit_code == 1 and "1 of 36 answers failed" in done.stderr
    (lost,) = [row for row in rows("b") if not row["success"]]
    assert (lost["index"], lost["error"]) == (3, "RuntimeError: no room left")
    summary = json.loads(Path("b/branches.json").read_text())
    assert summary["failed"] == {"n": 1, "of": 36} and summary["arms"][0]["single"]["n"] == 11
    mended = well("--scales", "1", "--no-controls", "--out", "b")
    assert mended["failed"]["n"] == 0 and mended["arms"][0]["single"]["n"] == 12


def test_the_table_tells_it_all() -> None:
    done = branches(*WORDS, "--scales", ".5,1", *HOT, "--out", "b", "--abstain", "0.6")
    assert done.exit_code == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    told = (
        "clean, greedy",
        "without thoughts",
        "gaussian_scaled 0.5",
        "no markers",
        "majority [95 %]",
        "AURC",
    )
    for word in (*told, "D_K", "from 60%", "5 branches from thought 1 on", "n = 12", "probability"):
        assert word in done.stdout, word
    assert "files in b" in done.stderr


def test_one_branch_and_no_controls() -> None:
    summary = well("--branches", "1", "--scales", "1", "--no-controls")
    (arm,) = summary["arms"]
    assert arm["against_no_noise"] is None and [*arm["by_k"]] == ["1"]
    assert arm["single"] == arm["votes"]["majority"] and arm["diversity"]["answers"] == 1
    assert branches(*WORDS, "--branches", "1", "--scales", "1", "--no-controls").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--branches", "0"], "impossible number of branches"),
        (["--branches", "5,x"], "impossible number of branches"),
        (["--branches", "-1"], "impossible number of branches"),
        (["--step", "0"], "impossible step"),
        (["--step", "3"], "expected: 1 to 2"),
        (["--temperature", "-0.1"], "impossible temperature"),
        (["--temperature", "nan"], "impossible temperature"),
        (["--top-p", "0"], "impossible top-p"),
        (["--top-p", "1.1"], "impossible top-p"),
        (["--abstain", "1.1"], "impossible threshold"),
        (["--vote", "mayority"], "perhaps you mean majority"),
        (["--noise", "gausian"], "perhaps you mean gaussian"),
        (["--noise", "snr", "--scales", "0"], "without end"),
        (["--scales", "-1"], "a number from 0 on"),
        (["--scales", "a"], "no numbers"),
        (["--schedule", "linaer"], "perhaps you mean linear"),
        (["--layer", "9"], "-3 to 2"),
        (["--stage", "0"], "no thoughts"),
    ],
)
def test_mistakes_are_named_before_there_are_files(words: list[str], said: str) -> None:
    assert said in wrongly(*WORDS, *words)


def test_a_checkpoint_without_thoughts_and_another_studys_folder_are_refused() -> None:
    save("cot", method="cot")
    assert "--training-free" in wrongly("cot", "prosqa.json")
    well("--scales", "1", "--out", "b")
    assert "another job" in wrongly(*WORDS, "--scales", "2", "--out", "b")
    well("--scales", "2", "--out", "b", "--force")


def test_an_instruct_model_that_never_learned_to_think() -> None:
    """Its plain arm is the chat prompt and nothing else."""
    tokenizer = tokenizer_of(LLAMA, latent=False)
    ends = dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"], tokenizer.eos_token_id)
    base_model("llama", vocab_size=len(tokenizer), **ends).save_pretrained("instruct")
    tokenizer.save_pretrained("instruct")
    asked = [
        Example("Tom has 3 eggs and buys 4 more. How many?", (), "7"),
        Example("How many eggs?", (), "-7"),
    ]
    write_examples("eggs.json", asked)
    words = [
        "instruct",
        "eggs.json",
        "--training-free",
        "gsm8k",
        "--max-new-tokens",
        6,
        "--step",
        3,
        "--out",
        "b",
    ]
    done = branches(*words, "--scales", "2", "--branches", "3", "--json")
    assert done.exit_code == 0, done.stderr or repr(done.exception)
    summary = json.loads(done.stdout)
    assert summary["thoughts"] == 8 and summary["noise"]["step"] == 3
    (plain, *_) = [row for row in rows("b") if row["trial"] == "no markers"]
    (bare, *_) = [row for row in rows("b") if row["trial"] == "no thoughts"]
    assert bare["read"] == plain["read"] + 2 and "latent" not in plain["prompt"]
    assert arms(summary)["gaussian_scaled 2"]["diversity"]["d_k"] > 0
    other = branches(*words, "--scales", "2", "--branches", "3", "--thoughts", 4)
    assert other.exit_code == 2 and "another job" in other.stderr
