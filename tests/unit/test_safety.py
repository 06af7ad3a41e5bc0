"""SECURITY.md's claims: what is read from files, folders and the hub is data, and is never run."""

import ast
import inspect
import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem

from coconut_lm import assembly, base, conversion, resume, yamlfile
from coconut_lm.data import download
from coconut_lm.errors import UserError
from coconut_lm.runfolder import STATE, Progress
from coconut_lm.tokens import load_tokenizer

PACKAGE = Path(__file__).parents[2] / "src" / "coconut_lm"
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in PACKAGE.rglob("*.py")
}


def calls(name: str) -> Iterator[tuple[str, ast.Call, dict[str, str]]]:
    """The file, the call, and its keywords as they are written, of all calls of a (dotted) name's end."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and re.search(rf"(^|\.){name}$", ast.unparse(node.func)):
                yield file, node, {str(key.arg): ast.unparse(key.value) for key in node.keywords}


def imported() -> Iterator[tuple[str, str]]:
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, file) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module), file


def test_pickles_are_not_read() -> None:
    readers = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "runpy"}
    found = {(name, file) for name, file in imported() if name in readers}
    assert found == {("pickle", "weights.py"), ("pickle", "plainstate.py")}
    named = re.findall(r"pickle\.(\w+)", (PACKAGE / "weights.py").read_text("utf-8"))
    assert set(named) == {"UnpicklingError"}
    named = re.findall(r"pickle\.(\w+)", (PACKAGE / "plainstate.py").read_text("utf-8"))
    assert set(named) == {"UnpicklingError", "Unpickler"}
    assert not list(calls(r"pickle\.loads?")) and len(list(calls(r"_Plain"))) == 1


def test_torch_and_numpy_read_tensors_alone() -> None:
    found = list(calls(r"torch\.load"))
    assert len(found) == 3 and all(given["weights_only"] == "True" for _, _, given in found)
    assert len(list(calls(r"np\.load"))) == 1
    assert not [1 for _, _, given in calls(r"\w+") if given.get("allow_pickle", "False") != "False"]


def test_yaml_is_data() -> None:
    found = {(file, ast.unparse(node.args[1])) for file, node, _ in calls(r"yaml\.\w*load\w*")}
    assert found == {("yamlfile.py", "_Loader")} and issubclass(yamlfile._Loader, yaml.SafeLoader)


def test_nothing_is_evaluated_and_no_shell_is_asked() -> None:
    plain = {ast.unparse(node.func) for _, node, _ in calls(r"(eval|exec|compile|__import__|system|popen)")}
    assert not [name for name in plain if "." not in name or name.startswith("os.")]
    started = [*calls(r"subprocess\.\w+")]
    assert len(started) == 2
    for _, node, given in started:
        assert isinstance(node.args[0], ast.List) and "shell" not in given


def test_code_of_others_is_not_asked_for() -> None:
    loaded = list(calls(r"Auto(Config|Tokenizer|Model\w*)\.from_pretrained"))
    assert {file for file, _, _ in loaded} == {"base.py", "tokens.py"}
    assert all(given["trust_remote_code"] in ("False", "trust_remote_code") for _, _, given in loaded)
    assert inspect.signature(base.load).parameters["trust_remote_code"].default is False
    everywhere = [given for _, _, given in calls(r"\w+") if given.get("trust_remote_code") == "True"]
    assert not everywhere


def test_downloads_are_encrypted_pinned_and_checked() -> None:
    files = [file for each in download.DATA_SETS.values() for file in each.files.values()]
    assert all(file.url.startswith("https://") for file in files)
    assert all(re.search(r"/[0-9a-f]{40}/", file.url) for file in files)
    assert [file.name for file in files if file.sha256 is None] == ["test.txt"]  # the command says so


def test_a_page_escapes_all_but_what_was_made_for_it() -> None:
    ((_, _, given),) = calls("Environment")
    assert given["autoescape"] == "True"
    template = (PACKAGE / "templates" / "report.html.j2").read_text("utf-8")
    assert re.findall(r"\{\{ (.*?) \| safe \}\}", template) == ["plot.inline()", "examples"]
    assert len(re.findall(r"\|\s*safe", template)) == 2 and "default-src 'none'" in template


class Strange:
    """What an attacker writes: unpickling it calls a function of the attacker's choice."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


def saved(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer, Accelerator]:
    parts = (*small(), Accelerator(cpu=True))
    folder.mkdir()
    resume.save_state(folder, *parts)
    (folder / "progress.json").write_text(json.dumps(vars(Progress())))
    return parts


def test_a_state_is_read_back(tmp_path: Path) -> None:
    model, optimizer, accelerator = saved(tmp_path / "c")
    fresh = (*small(), accelerator)
    resume.load_state(tmp_path / "c", *fresh)
    assert all(torch.equal(*pair) for pair in zip(fresh[0].parameters(), model.parameters(), strict=True))
    assert fresh[1].state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_a_state_that_names_code_is_refused(tmp_path: Path) -> None:
    parts = saved(tmp_path / "c")
    mark = tmp_path / "run"
    (tmp_path / "c" / STATE / ".metadata").write_bytes(pickle.dumps(Strange(mark)))
    with pytest.raises(UserError, match="it would be run"):
        resume.load_state(tmp_path / "c", *parts)
    assert not mark.exists()


def test_a_value_that_names_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "run"

    def strange(self: DefaultSavePlanner, item: WriteItem, found: Any) -> io.BytesIO:
        data = io.BytesIO()
        torch.save(Strange(mark), data)
        return data

    monkeypatch.setattr(DefaultSavePlanner, "transform_object", _only_bytes(DefaultSavePlanner, strange))
    parts = saved(tmp_path / "c")
    with pytest.raises(UserError, match="cannot be gone on from"):
        resume.load_state(tmp_path / "c", *parts)
    assert not mark.exists()


def _only_bytes(planner: type, instead: Any) -> Any:
    was = planner.transform_object  # type: ignore[attr-defined]

    def transform(self: Any, item: WriteItem, found: Any) -> Any:
        known = was(self, item, found)
        return instead(self, item, found) if isinstance(known, io.BytesIO) else known

    return transform


@pytest.mark.parametrize(
    "open_it",
    [
        load_tokenizer,
        base.shape,
        lambda place: base.load(place, 8),
        assembly.open_checkpoint,
        conversion.open_any,
    ],
)
def test_a_model_that_brings_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_it: Any
) -> None:
    names = {f"Auto{kind}": f"strange.{kind}" for kind in ("Config", "ModelForCausalLM")}
    names["AutoTokenizer"] = ["strange.Tokenizer", None]  # type: ignore[assignment]
    described = {"model_type": "strange", "auto_map": names}
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text(json.dumps(described))
    (tmp_path / "strange.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "yes")  # nobody is asked
    with pytest.raises(ValueError):
        open_it(str(tmp_path))
    assert not (tmp_path / "run").exists()
