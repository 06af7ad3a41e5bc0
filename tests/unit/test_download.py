"""Downloads from a server on this machine: resumed, checked, retried, converted; whole or not at all."""

import gzip
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coconut_lm.data import download
from coconut_lm.data.download import PublicFile, fetch, get
from coconut_lm.data.example import read_examples
from coconut_lm.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
DATA = bytes(range(256)) * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@dataclass
class Site:
    """What the server holds and how it misbehaves."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # paths and Range headers
    ranges: bool = True
    broken: list[int] = field(default_factory=list)  # answers to give first: a status, or 0 to break off
    moved: dict[str, str] = field(default_factory=dict)

    def file(self, name: str = "a.txt", sha256: str | None = SHA, size: int | None = len(DATA)) -> PublicFile:
        return PublicFile(f"{self.url}/{name}", size, sha256)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site, name, wanted = self.site, self.path.lstrip("/"), self.headers.get("Range")
        site.asked.append((name, wanted))
        trouble = site.broken.pop(0) if site.broken else None
        if trouble:
            self.send_error(trouble)
        elif name in site.moved:
            self.send_response(302)
            self.send_header("Location", site.moved[name])
            self.end_headers()
        elif name not in site.files:
            self.send_error(404)
        else:
            self.serve(site.files[name], wanted if site.ranges else None, breaks_off=trouble == 0)

    def serve(self, data: bytes, wanted: str | None, breaks_off: bool) -> None:
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(data) > 0:
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : (start + len(data)) // 2] if breaks_off else data[start:])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    handler = type("Bound", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.site = Site(f"http://127.0.0.1:{server.server_port}", {"a.txt": DATA})  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler.site  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def partial(path: Path, data: bytes) -> None:
    path.with_name(path.name + ".partial").write_bytes(data)


def only(folder: Path, *names: str) -> bool:
    return {path.name for path in folder.iterdir()} == set(names)


def test_a_file_comes_whole_and_tells_its_progress(site: Site, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = tmp_path / "a"
    assert fetch(site.file(), path, progress=lambda *now: told.append(now)) == SHA
    assert path.read_bytes() == DATA and only(tmp_path, "a")
    assert told[-1] == ("a.txt", len(DATA), len(DATA))
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


def test_a_file_that_is_there_is_checked_and_not_fetched(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    assert fetch(site.file(), tmp_path / "a") == SHA
    assert not site.asked


def test_a_partial_file_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    partial(tmp_path / "a", DATA[:1000])
    fetch(site.file(), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert site.asked == [("a.txt", "bytes=1000-")]


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    partial(tmp_path / "a", DATA[:1000])
    fetch(site.file(), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_whole_partial_file_needs_no_server(site: Site, tmp_path: Path) -> None:
    partial(tmp_path / "a", DATA)
    assert fetch(site.file(), tmp_path / "a") == SHA
    assert not site.asked


@pytest.mark.parametrize("wrong", [b"wrong", DATA + b"too long", b"x" * len(DATA)])
def test_a_partial_file_of_something_else_starts_over(site: Site, tmp_path: Path, wrong: bytes) -> None:
    partial(tmp_path / "a", wrong)
    assert fetch(site.file(), tmp_path / "a", pause=0) == SHA
    assert (tmp_path / "a").read_bytes() == DATA and only(tmp_path, "a")


def test_a_broken_connection_is_taken_up_again(site: Site, tmp_path: Path) -> None:
    site.broken = [0]
    fetch(site.file(), tmp_path / "a", pause=0)
    assert (tmp_path / "a").read_bytes() == DATA
    assert site.asked == [("a.txt", None), ("a.txt", f"bytes={len(DATA) // 2}-")]


def test_what_came_stays_for_the_next_call(site: Site, tmp_path: Path) -> None:
    site.broken = [0]
    with pytest.raises(UserError, match=f"ended after {len(DATA) // 2} of {len(DATA)}"):
        fetch(site.file(), tmp_path / "a", tries=1)
    assert only(tmp_path, "a.partial")
    fetch(site.file(), tmp_path / "a")
    assert site.asked[-1][1] == f"bytes={len(DATA) // 2}-"


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.broken = [503, 429]
    assert fetch(site.file(), tmp_path / "a", pause=0) == SHA
    site.broken = [500] * 9
    with pytest.raises(UserError, match="500 .*\n.*in 2 tries"):
        fetch(site.file("b"), tmp_path / "b", pause=0, tries=2)
    assert len(site.broken) == 7


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_final(site: Site, tmp_path: Path, status: int) -> None:
    site.broken = [status] * 4
    with pytest.raises(UserError, match=str(status)):
        fetch(site.file(), tmp_path / "a", pause=0)
    assert len(site.asked) == 1 and only(tmp_path)


def test_a_redirect_is_followed_with_its_range(site: Site, tmp_path: Path) -> None:
    site.moved = {"old": f"{site.url}/a.txt"}
    partial(tmp_path / "a", DATA[:10])
    assert fetch(site.file("old"), tmp_path / "a") == SHA
    assert site.asked == [("old", "bytes=10-"), ("a.txt", "bytes=10-")]


@pytest.mark.parametrize(("sha256", "size"), [("0" * 64, None), (None, 7)])
def test_another_file_is_refused_and_leaves_nothing(
    site: Site, tmp_path: Path, sha256: str | None, size: int | None
) -> None:
    with pytest.raises(UserError, match=f"256000 bytes, sha256 {SHA}"):
        fetch(site.file(sha256=sha256, size=size), tmp_path / "a")
    assert only(tmp_path) and len(site.asked) == 1


def test_a_pointer_of_git_lfs_is_told(site: Site, tmp_path: Path) -> None:
    site.files["p"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    with pytest.raises(UserError, match="LFS pointer"):
        fetch(site.file("p", None, None), tmp_path / "a")


def test_no_server_and_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as held:  # bound and not listening: refuses
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/a"
        with pytest.raises(UserError, match="refused"):
            fetch(PublicFile(url), tmp_path / "a", tries=2, pause=0)
    with pytest.raises(UserError, match="http, https or file"):
        fetch(PublicFile("ftp://example.org/a"), tmp_path / "a")


@pytest.fixture
def gsm8k(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The server holds a small GSM8K, and the table says so."""
    valid = gzip.decompress((ASSETS / "icot_gsm8k_valid.txt.gz").read_bytes())
    train, test = b"q||<<1+1=2>> #### 2\n" * 7, b"q|| #### 2\n"
    site.files = {"train.txt": train, "valid.txt": valid, "test.txt": test}
    known = download.DATA_SETS["gsm8k"]
    files = {
        "train": site.file("train.txt", hashlib.sha256(train).hexdigest(), len(train)),
        "valid": replace(known.files["valid"], url=f"{site.url}/valid.txt"),  # the true checksum
        "test": site.file("test.txt", None, None),
    }
    counts = {"train": 7, "valid": 500, "test": 1}
    monkeypatch.setitem(download.DATA_SETS, "gsm8k", replace(known, files=files, examples=counts))
    return site


def test_gsm8k_is_fetched_and_converted(gsm8k: Site, tmp_path: Path) -> None:
    got = get("gsm8k", tmp_path, limit=3)
    assert got.examples == {"train": 3, "valid": 500, "test": 1}
    assert only(tmp_path, "gsm_train.json", "gsm_valid.json", "gsm_test.json")
    wanted = json.loads(gzip.decompress((ASSETS / "coconut_paper_gsm8k_valid.json.gz").read_bytes()))
    assert [example.to_json() for example in read_examples(got.paths["valid"])] == wanted
    assert got.unpinned == ("test.txt",)
    assert got.sha256["test.txt"] == hashlib.sha256(b"q|| #### 2\n").hexdigest()
    with pytest.raises(UserError, match="exists"):
        get("gsm8k", tmp_path)
    assert get("gsm8k", tmp_path, force=True).examples["train"] == 7


def test_nothing_is_left_until_all_has_come(gsm8k: Site, tmp_path: Path) -> None:
    test = gsm8k.files.pop("test.txt")
    with pytest.raises(UserError, match="404") as error:
        get("gsm8k", tmp_path)
    assert f"{gsm8k.url}/train.txt" in str(error.value)
    assert "coconut-lm data get gsm8k --url file:///" in str(error.value)
    assert only(tmp_path, ".gsm8k.partial")
    gsm8k.files["test.txt"] = test
    gsm8k.asked.clear()
    get("gsm8k", tmp_path)
    assert [name for name, _ in gsm8k.asked] == ["test.txt"]
    assert not (tmp_path / ".gsm8k.partial").exists()


@pytest.mark.parametrize("test", [b"<html>Sign in</html>", b"q||s #### 1\nq||s #### 1\n"])
def test_an_unpinned_file_must_hold_what_it_should(gsm8k: Site, tmp_path: Path, test: bytes) -> None:
    gsm8k.files["test.txt"] = test
    with pytest.raises(UserError, match="bad of|do not hold what they should"):
        get("gsm8k", tmp_path)
    assert only(tmp_path)


def test_files_fetched_by_hand_are_taken_from_their_folder(gsm8k: Site, tmp_path: Path) -> None:
    for name, data in gsm8k.files.items():
        (tmp_path / name).write_bytes(data)
    get("gsm8k", tmp_path / "data", url=tmp_path.as_uri() + "/")
    assert not gsm8k.asked and len(read_examples(tmp_path / "data" / "gsm_train.json")) == 7


def test_files_that_are_examples_already_are_kept_byte_for_byte(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b'[{"question": "q", "steps":   ["s"], "answer": "a", "root": 0}]'
    site.files = {"prosqa_test.json": data}
    known = download.DATA_SETS["prosqa"]
    files = {"test": site.file("prosqa_test.json", None, None)}
    monkeypatch.setitem(download.DATA_SETS, "prosqa", replace(known, files=files, examples={"test": 1}))
    assert get("prosqa", tmp_path).paths["test"].read_bytes() == data


def test_math_is_split_on_the_way(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    known = download.DATA_SETS["math"]
    for split, file in known.files.items():
        rows = [{"problem": f"{split} {n}", "solution": "\\boxed{1}"} for n in range(10)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / file.name)
    files = {split: replace(file, size=None, sha256=None) for split, file in known.files.items()}
    counts = {"train": 9, "valid": 1, "test": 10}
    monkeypatch.setitem(download.DATA_SETS, "math", replace(known, files=files, examples=counts))
    assert get("math", tmp_path / "data", url=tmp_path.as_uri()).examples == counts
    questions = {example.question for example in read_examples(tmp_path / "data" / "math_test.json")}
    assert questions == {f"test {n}" for n in range(10)}


def test_what_is_not_public_or_not_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data make prontoqa"):
        get("prontoqa", tmp_path)
    with pytest.raises(UserError, match="gsm8k, prosqa, math, prontoqa"):
        get("gsm", tmp_path)


@pytest.mark.parametrize("name", download.DATA_SETS)
def test_every_public_file_is_pinned_to_a_revision(name: str) -> None:
    for file in download.DATA_SETS[name].files.values():
        assert any(len(part) == 40 and set(part) <= set("0123456789abcdef") for part in file.url.split("/"))
        assert file.url.startswith("https://")
        assert (file.sha256 is None) == (file.size is None) and len(file.sha256 or "0" * 64) == 64
