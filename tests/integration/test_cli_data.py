"""`data make`, `data convert` and `data get` as a user types them, well and wrongly."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import data, text, well, wrongly

from coconut_lm.data import prontoqa, prosqa
from coconut_lm.data.example import Example, read_examples

ICOT = "Two and two?||<<2+2=4>> <<4*1=4>> #### 4\nNone?|| #### 0\n\nThree?||<<3*1=3>> #### 3\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything happens in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TARGET_SIZE", raising=False)
    return tmp_path


# -- make --


def test_made_data_is_the_same_for_the_same_seed() -> None:
    assert well("make", "prosqa", "-n", 5, "--seed", 3, "-o", "a.json").stdout == "wrote a.json: 5 examples\n"
    well("make", "prosqa", "-n", 5, "--seed", 3, "-o", "deep/down/b.json")
    well("make", "prosqa", "-n", 5, "--seed", 4, "-o", "c.json")
    a, b, c = (Path(name).read_bytes() for name in ("a.json", "deep/down/b.json", "c.json"))
    assert a == b != c
    assert read_examples("a.json") == list(prosqa.make(5, seed=3))


def test_settings_reach_the_makers() -> None:
    shape = (
        "--shape",
        "broom",
        "--branches",
        3,
        "--hops",
        "1-2",
        "--hop-weights",
        "0,1",
        "--style",
        "symbols",
    )
    done = well("make", "prosqa", "-n", 2, *shape, "--counterfactual", "--neighbors", "-o", "broom.jsonl")
    assert done.stdout == "wrote broom.jsonl: 4 examples\n"
    first, twin, *_ = read_examples("broom.jsonl")
    assert len(first.extra["idx_to_symbol"]) == 14 and "bfs_neighbor_k" in first.extra
    assert first.extra["pair"] == twin.extra["pair"] and first.answer != twin.answer
    well("make", "prosqa", "-n", 2, "--preset", "depth_matched", "-o", "matched.json")
    assert read_examples("matched.json") == list(prosqa.make(2, shape="depth_matched"))
    well("make", "prosqa", "-n", 2, "--nodes", 8, "--edges", 9, "--hops", 2, "-o", "sized.json")
    assert read_examples("sized.json") == list(prosqa.make(2, nodes=8, edges=9, hops=2))
    well("make", "prontoqa", "-n", 3, "--hops", "1-2", "--seed", 5, "-o", "p.json")
    assert read_examples("p.json") == list(prontoqa.make(3, seed=5, hops="1-2"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--branches", "2"], "branches says nothing about a released graph"),
        (["--nodes", "9", "--shape", "broom"], "nodes says nothing about a broom graph"),
        (["--preset", "released", "--shape", "broom"], "two shapes"),
        (["--nodes", "6", "--hops", "9"], "too few nodes for two paths"),
        (["--preset", "relesed"], "'relesed' is not one of"),
        (["--style", "prose"], "'prose' is not one of"),
        (["--hops", "three"], "hops are path lengths"),
        (["--hop-weights", "1,2"], "hop_weights"),
        (["--hops", "[bold]"], "'[bold]'"),
        (["-n", "0"], "greater than or equal to 1"),
        (["--seed", "-1"], "greater than or equal to 0"),
        (["--processes", "0"], "greater than or equal to 1"),
        (["--sede", "1"], "No such option"),
    ],
)
def test_settings_that_cannot_be(words: list[str], told: str) -> None:
    assert told in " ".join(wrongly("make", "prosqa", "-n", "2", "-o", "a.json", *words).split())


def test_an_option_of_the_other_task_is_refused() -> None:
    assert "No such option" in wrongly("make", "prontoqa", "-n", 2, "-o", "a.json", "--branches", 2)
    assert "no such number of hops" in wrongly("make", "prontoqa", "-n", 2, "-o", "a.json", "--hops", 6)


def test_what_is_there_stays_unless_forced() -> None:
    text("a.json", "mine")
    assert "a.json exists" in wrongly("make", "prosqa", "-n", 2, "-o", "a.json")
    assert Path("a.json").read_text() == "mine"
    well("make", "prosqa", "-n", 2, "-o", "a.json", "--force")
    assert len(read_examples("a.json")) == 2


def test_a_place_that_is_none_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prosqa._Job, "at", lambda job, index: pytest.fail("worked"))
    Path("folder").mkdir()
    text("file", "")
    assert "folder is a folder" in wrongly("make", "prosqa", "-n", 2, "-o", "folder", "--force")
    assert "nothing can be put into" in wrongly("make", "prosqa", "-n", 2, "-o", "file/a.json")


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_interruption_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, force: list[str]) -> None:
    def at(job: Any, index: int) -> list[Example]:
        if index == 3:
            raise KeyboardInterrupt
        return [Example("q", (), "a")]

    monkeypatch.setattr(prosqa._Job, "at", at)
    if force:
        text("a.json", "mine")
    done = data("make", "prosqa", "-n", 9, "-o", "a.json", *force)
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "stopped\n")
    assert [path.read_text() for path in Path().iterdir()] == (["mine"] if force else [])


# -- convert --


def test_convert_gsm8k() -> None:
    source = text("in.txt", ICOT)
    assert well("convert", "gsm8k", source, "-o", "a.json").stdout == "wrote a.json: 3 examples\n"
    assert [len(example.steps) for example in read_examples("a.json")] == [2, 1, 1]
    well("convert", "gsm8k", source, "-o", "b.json", "--empty-steps", "drop", "--limit", 1)
    assert [example.answer for example in read_examples("b.json")] == ["4"]
    well("convert", "gsm8k", source, "-o", "c.json", "--empty-steps", "none", TARGET_SIZE="2")
    assert [example.steps for example in read_examples("c.json")] == [("<<2+2=4>>", "<<4*1=4>>"), ()]
    original = text("in.jsonl", json.dumps({"question": "q", "answer": "It is <<1+1=2>>2.\n#### 2"}))
    well("convert", "gsm8k", original, "-o", "d.json", "--steps", "sentences")
    assert read_examples("d.json") == [Example("q", ("It is 2.",), "2")]


def test_bad_lines_are_told_or_skipped() -> None:
    source = text("in.txt", ICOT + "no bars\n" * 12 + "q||s\n")
    told = wrongly("convert", "gsm8k", source, "-o", "a.json")
    assert "13 bad of 16" in told and "line 5: no ||" in told and "... and 3 more" in told
    done = well("convert", "gsm8k", source, "-o", "a.json", "--skip-bad")
    assert done.stdout == "wrote a.json: 3 examples\n"
    assert done.stderr.startswith("skipped 13:\nline 5: no ||") and len(done.stderr.splitlines()) == 11


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"caf\xe9||<<1+1=2>> #### 2", "byte 0xe9 at offset 3, in line 1"),
        (b"", "holds nothing to learn from"),
        (b'{"question": "q", "answer', "not JSON"),
    ],
)
def test_files_that_cannot_be_converted(content: bytes, told: str) -> None:
    assert told in wrongly("convert", "gsm8k", text("in.txt", content), "-o", "a.json")


def test_convert_gsm8k_refuses_before_it_reads() -> None:
    text("a.json", "mine")
    assert "a.json exists" in wrongly("convert", "gsm8k", "none.txt", "-o", "a.json")
    assert "cannot read none.txt" in wrongly("convert", "gsm8k", "none.txt", "-o", "b.json")
    assert "'zip' is not one of" in wrongly("convert", "gsm8k", "x", "-o", "b.json", "--steps", "zip")
    assert "TARGET_SIZE" in wrongly("convert", "gsm8k", "x", "-o", "b.json", TARGET_SIZE="many")


def raw_prontoqa(count: int) -> dict[str, Any]:
    record = {"question": "Each a is b.", "query": "True or false: Max is b.", "answer": "True"}
    return {
        f"example{n}": {"test_example": {**record, "chain_of_thought": ["1", "2", f"{n}"]}}
        for n in range(count)
    }


def test_convert_prontoqa() -> None:
    source = text("in.json", json.dumps(raw_prontoqa(50)))
    done = well("convert", "prontoqa", source, "--out", "data")
    assert done.stdout.splitlines() == [
        "wrote data/prontoqa_train.json: 45 examples",
        "wrote data/prontoqa_valid.json: 1 example",
        "wrote data/prontoqa_test.json: 4 examples",
    ]
    assert read_examples("data/prontoqa_valid.json")[0].steps == ("1 2", "45")
    assert "data/prontoqa_train.json exists" in wrongly("convert", "prontoqa", source, "--out", "data")
    well("convert", "prontoqa", source, "--out", "data", "--force")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "not the ProntoQA generator's"),
        ('{"example1": {"test', "not JSON"),
        ('{"example1": {}, "example2": {}, "example1": {}}', "'example1' occurs twice"),
        ('{"example1": {"test_example": {"question": "q"}}}', "example1: no text under"),
    ],
)
def test_prontoqa_files_that_cannot_be_converted(content: str, told: str) -> None:
    assert told in wrongly("convert", "prontoqa", text("in.json", content), "--out", "data")


def raw_math(split: str, count: int) -> str:
    rows = [{"problem": f"{split} {n}?", "solution": f"So.\nIt is $\\boxed{{{n}}}$."} for n in range(count)]
    return text(f"{split}.jsonl", "\n".join(map(json.dumps, rows)))


def test_convert_math() -> None:
    sources = raw_math("train", 10), raw_math("test", 4)
    done = well("convert", "math", *sources, "--out", "data")
    assert sorted(done.stdout.splitlines()) == [
        "wrote data/math_test.json: 4 examples",
        "wrote data/math_train.json: 9 examples",
        "wrote data/math_valid.json: 1 example",
    ]
    assert read_examples("data/math_test.json")[2] == Example("test 2?", ("So.", "It is $2$."), "2")
    choices = ("--steps", "lines", "--box-in-steps", "keep", "--split", "shuffled", "--valid-share", 0.5)
    well("convert", "math", *sources, "--out", "other", *choices, "--seed", 1)
    assert len(read_examples("other/math_valid.json")) == 7 and not Path("other/math_train.json").exists()
    assert "boxed" in read_examples("other/math_test.json")[0].steps[1]


def test_math_records_that_cannot_be_converted() -> None:
    assert "no text under 'problem'" in wrongly(
        "convert", "math", text("train.json", "[{}]"), "--out", "data"
    )
    assert "cannot read records" in wrongly("convert", "math", "none.json", "--out", "data")
    text("all.json", '[{"problem": "p", "solution": "The answer is 3"}, {}]')
    assert "which split" in wrongly("convert", "math", "all.json", "--out", "data", "--skip-bad")
    done = well("convert", "math", "all.json", "--out", "d", "--skip-bad", "--preset", "seed001")
    assert "skipped 1:" in done.stderr


# -- get --


def test_get_tells_what_cannot_be_fetched() -> None:
    assert "no public file" in wrongly("get", "prontoqa", "--out", "data")
    assert "'gsm' is not one of" in wrongly("get", "gsm", "--out", "data")
    done = data("get", "prosqa", "--out", "data", "--url", "ftp://nowhere")
    assert done.exit_code == 2 and "cannot fetch this" in done.stderr and not list(Path().rglob("*.json"))


def test_get_writes_what_it_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from coconut_lm.data import download

    Path("mirror").mkdir()
    for split in ("train", "test"):
        text(f"mirror/{split}.txt", ICOT)
    files = {split: download.PublicFile(f"https://nowhere/{split}.txt") for split in ("train", "test")}
    known = download.DataSet("gsm", files, {"train": 3, "test": 3}, download.DATA_SETS["gsm8k"].convert)
    monkeypatch.setitem(download.DATA_SETS, "gsm8k", known)
    mirror = Path("mirror").absolute().as_uri()
    done = well("get", "gsm8k", "--out", "data", "--url", mirror, TARGET_SIZE="2")
    assert done.stdout.splitlines() == [
        "wrote data/gsm_train.json: 2 examples",
        "wrote data/gsm_test.json: 3 examples",
    ]
    assert "train.txt has no published checksum; what came has sha256 " in done.stderr
    assert "gsm_train.json exists" in wrongly("get", "gsm8k", "--out", "data", "--url", mirror)
