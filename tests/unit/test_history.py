"""What is read of run folders, and what is said of pieces that are missing or damaged."""

import json
import shutil
from pathlib import Path

import fakeruns
import fakestudies
import pytest

from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.history import History, read

EXAMPLES = [Example(f"Q{n}?", ("a",) * (n % 3 + 1), "x is a y.") for n in range(12)]


def one(tmp_path: Path, **given: object) -> Path:
    return fakeruns.run(tmp_path, "a", EXAMPLES, epochs=6, **given)  # type: ignore[arg-type]


def told(place: Path) -> History:
    (history,) = read([place])
    return history


def test_everything_is_there(tmp_path: Path) -> None:
    history = told(one(tmp_path))
    assert (history.name, history.method, history.task) == ("a", "coconut", "prosqa")
    assert len(history.epochs) == 6 and len(history.steps) == 6 * 20
    assert history.environment["device"] == "cpu" and not history.missing
    assert len(history.predictions) == 12 and len(history.thoughts) == 4


def test_lines_that_a_resumed_run_wrote_again_count_once(tmp_path: Path) -> None:
    metrics = one(tmp_path) / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    again = [line.replace('"train_loss"', '"old"') for line in lines[-21:]]
    metrics.write_text("\n".join([*lines, *again]) + "\n")
    history = told(metrics.parent)
    assert len(history.epochs) == 6 and "old" in history.epochs[-1]
    assert [row["step"] for row in history.steps] == sorted({row["step"] for row in history.steps})


def measure(place: Path, **values: object) -> None:
    file = place / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["accuracy"] |= {key: value for key, value in values.items() if key in metrics["accuracy"]}
    file.write_text(json.dumps(metrics | {k: v for k, v in values.items() if k not in metrics["accuracy"]}))


def test_the_chief_is_not_chosen_by_its_accuracy(tmp_path: Path) -> None:
    folder = one(tmp_path)
    history = told(folder)
    assert history.chief and history.chief.name == "valid-4"  # as many thoughts as were trained
    measure(folder / "eval" / "valid-2", rate=1.0, right=12)
    assert told(folder).chief == history.chief
    measure(folder / "eval" / "valid-1", checkpoint="checkpoints/checkpoint_21")
    assert (chief := told(folder).chief) and chief.name == "valid-1"  # of a later checkpoint
    measure(folder / "eval" / "valid-0", n=13)
    assert (chief := told(folder).chief) and chief.name == "valid-0"  # of more examples
    measure(folder / "eval" / "valid-0", n=12, checkpoint="checkpoint_21", data_sha256=None)
    assert (chief := told(folder).chief) and chief.name == "valid-1"  # asked for, not made while training
    (folder / "eval" / "valid-1").rename(folder / "eval" / "valid-stage4")
    shutil.copytree(folder / "eval" / "valid-stage4", folder / "eval" / "valid-stage4-thoughts4")
    assert (chief := told(folder).chief) and chief.name == "valid-stage4"  # the plainest name of one finding


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", "", "no training was recorded"),
        ("metrics.jsonl", '{"kind":"step","step":1,"loss":1}\n{"kind":"st', "no epoch was finished"),
        ("metrics.jsonl", '{"kind":\n{"kind":"step"}\n', "line 1 is not JSON"),
        ("eval/valid-4/metrics.json", "{", "not JSON"),
        ("eval/valid-4/predictions.jsonl", "{\n{}\n", "line 1 is not JSON"),
        ("eval/valid-4/thoughts.json", "[{", "not JSON"),
        ("config.yaml", "a: b: c", "config.yaml"),
        ("env.json", b"\xff", "not UTF-8"),
    ],
)
def test_damage_is_told_and_left_out(tmp_path: Path, file: str, content: str | bytes, said: str) -> None:
    folder = one(tmp_path)
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert any(said in line for line in told(folder).missing)


def test_values_of_other_kinds_are_no_figures(tmp_path: Path) -> None:
    folder = one(tmp_path)
    for name in ("config.yaml", "env.json", "eval/valid-4/metrics.json", "eval/valid-4/thoughts.json"):
        (folder / name).write_text("[1, 2]")
    (folder / "metrics.jsonl").write_text('[]\n3\n{"kind": "epoch"}\n{"kind": "epoch", "epoch": "one"}\n')
    history = told(folder)
    assert not history.config and not history.environment and not history.epochs
    assert history.chief and history.chief.name == "valid-3" and history.method == "coconut"


def test_a_run_that_was_only_evaluated_lacks_no_training(tmp_path: Path) -> None:
    folder = one(tmp_path, only_eval=True)
    (folder / "metrics.jsonl").unlink()
    assert told(folder).missing == []


def test_an_evaluation_alone(tmp_path: Path) -> None:
    history = told(one(tmp_path) / "eval" / "valid-4")
    assert history.name == "valid-4" and history.method == "coconut" and len(history.predictions) == 12


def test_an_unfinished_evaluation_is_named(tmp_path: Path) -> None:
    folder = one(tmp_path)
    (folder / "eval" / "valid-4" / "metrics.json").unlink()
    history = told(folder)
    assert "evaluation valid-4 is unfinished" in history.missing
    assert history.chief and history.chief.name == "valid-3"


def test_studies_of_a_run(tmp_path: Path) -> None:
    folder = one(tmp_path)
    fakestudies.all_three(folder)
    fakestudies.put(folder, fakestudies.robustness(["snr"]), "other-0123abcd")
    history = told(folder)
    kinds = ["battery", "robustness", "robustness", "branches"]
    assert [study.kind for study in history.studies] == kinds and not history.missing
    assert [study.name for study in history.studies][1:3] == ["other-0123abcd", "test-0123abcd"]
    assert history.studies[0].get("clean", "n") == 300 and len(history.studies[3].all("arms")) == 5
    assert history.studies[0].get("clean", "no", "such") is None and history.studies[0].all("clean") == []


def test_a_study_alone(tmp_path: Path) -> None:
    history = told(fakestudies.put(tmp_path, fakestudies.battery()).parent)
    assert (history.name, history.method, history.task) == ("test-0123abcd", "coconut", "prosqa")
    assert [study.kind for study in history.studies] == ["battery"] and not history.missing


def test_studies_that_are_unfinished_or_damaged_are_named(tmp_path: Path) -> None:
    folder = one(tmp_path)
    for figures in (fakestudies.robustness(["snr"]), fakestudies.branches(), fakestudies.battery()):
        fakestudies.put(folder, figures)
    (folder / "robustness" / "test-0123abcd" / "robustness.json").unlink()
    (folder / "branches" / "test-0123abcd" / "branches.json").write_text('{"kind": "bran')
    (folder / "battery" / "test-0123abcd" / "battery.json").write_text("[1, 2]")
    history = told(folder)
    assert history.studies == []
    said = "; ".join(history.missing)
    assert "robustness test-0123abcd is unfinished" in said and "branches.json is damaged: not JSON" in said
    assert "branches test-0123abcd holds no figures" in said and "battery test-0123abcd holds" in said


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        fakeruns.run(tmp_path / parent, "a", EXAMPLES, epochs=1)
    fakeruns.run(tmp_path, "b", EXAMPLES, epochs=1)
    assert [each.name for each in read([tmp_path / "x" / "a", tmp_path / "b"])] == ["a", "b"]
    assert [each.name for each in read([tmp_path / "x" / "a", tmp_path / "y" / "a"])] == ["x/a", "y/a"]


def test_no_run_folder(tmp_path: Path) -> None:
    for place, said in ((tmp_path / "none", "does not exist"), (tmp_path, "config.yaml")):
        with pytest.raises(UserError, match="is no run folder") as error:
            read([place])
        assert said in str(error.value)
    folder = one(tmp_path)
    with pytest.raises(UserError, match="given twice"):
        read([folder, folder / ".." / "a"])
