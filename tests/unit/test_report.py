"""The page and what lies beside it: every section, several runs, missing pieces, texts that break out."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fakeruns
import fakestudies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coconut_lm import report, summary
from coconut_lm.data.example import Example
from coconut_lm.errors import UserError
from coconut_lm.history import Evaluation, History, Study, read
from coconut_lm.paper import FIGURES, NAMES
from coconut_lm.statistics import mcnemar

FEW = [Example(f"There are {n}. How many?", ("a",) * (n % 3 + 1), str(n)) for n in range(12)]


class Page(HTMLParser):
    """The tags of a page, and its texts outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.texts = list[str](), list[str](), list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(runs: list[History]) -> str:
    return report.render(runs, [], "title")


def data_of(page: str) -> Any:
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, flags=re.S)
    return json.loads(found)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("report")
    return report.write(fakeruns.three(place), place / "three.html", "Does the window help?")


def test_the_page_stands_alone(written: tuple[Path, Path]) -> None:
    page = written[0].read_text("utf-8")
    outward = re.findall(
        r"""(?:src|href)\s*=\s*["'](?!#|data:,)[^"']*|@import|url\((?!#|[a-z_]+-)[^)]*""", page
    )
    assert outward == [] and "fetch(" not in page
    assert "<title>Does the window help? · coconut-lm</title>" in page
    assert not Page(page).open


def test_every_section_is_there(written: tuple[Path, Path]) -> None:
    text = Page(written[0].read_text("utf-8")).text
    for part in (
        *(
            "3 runs · ProsQA",
            "Run against run",
            "ProsQA, beside the paper",
            "arXiv 2412.06769",
            "97.0 ± 0.3 %",
        ),
        *(
            "GPT-2 small, trained on all of the data",
            "Rules that skip the reasoning",
            "far from farthest entity",
        ),
        *(
            "its interval lies below the 92.7 %",
            "The other entity asked about",
            "Accuracy by number of thoughts",
        ),
        *(
            "Accuracy against tokens",
            "Loss",
            "Accuracy by epoch",
            "Norm of a thought",
            "Weights of the window",
        ),
        *("prosqa-coconut, thoughts in words", "␣Every", "entropy", "latent_variant – – learnable_weights"),
        *("What sets the runs apart", "every key", "made with", "revision", "95 % interval"),
    ):
        assert part in text, part


def test_pieces_lie_beside_it(written: tuple[Path, Path]) -> None:
    page, pieces = written
    assert pieces == page.with_suffix("")
    names = {path.name for path in pieces.iterdir()}
    assert {"summary.md", "summary.csv", "loss.png", "loss.svg", "window.png", "tokens.svg"} <= names
    rows = list(csv.DictReader((pieces / "summary.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 1 + 5 + 5 and {row["run"] for row in rows} == {
        "prosqa-cot",
        "prosqa-coconut",
        "prosqa-window",
    }
    best = next(row for row in rows if row["evaluation"] == "valid-4")
    assert float(best["accuracy"]) == int(best["right"]) / int(best["n"]) and best["thoughts"] == "4"
    text = (pieces / "summary.md").read_text("utf-8")
    assert text.startswith("# Does the window help?\n") and "![Loss](loss.png)" in text
    assert all((pieces / name).is_file() for name in re.findall(r"\]\((.*?)\)", text))


def test_pairs_are_counted_and_tested(written: tuple[Path, Path]) -> None:
    runs = read([written[0].parent / name for name in ("prosqa-cot", "prosqa-coconut")])
    (row,) = summary.paired(runs).rows
    only_a, only_b = (
        sum(
            a["correct"] is one and b["correct"] is not one
            for a, b in zip(*(r.predictions for r in runs), strict=True)
        )
        for one in (True, False)
    )
    assert row[2] == "300" and row[4:6] == [str(only_a), str(only_b)]
    assert sum(map(int, row[3:7])) == 300 and row[-1] == f"{mcnemar(only_a, only_b):.2g}"


def test_examples_are_put_together_by_question(written: tuple[Path, Path]) -> None:
    found = data_of(written[0].read_text("utf-8"))
    assert (
        found["runs"] == ["prosqa-cot", "prosqa-coconut", "prosqa-window"] and len(found["examples"]) == 300
    )
    first = found["examples"][0]
    assert [each["r"] for each in first["answers"]] == [0, 1, 2] and first["steps"] in (3, 4, 5, 6)
    assert first["answers"][1]["t"] == 4 and first["answers"][0]["out"].startswith(first["gold"].split()[0])


def predicted(question: str, **more: Any) -> History:
    row = {"question": question, "gold": question, "output": question, "correct": True, **more}
    chief = Evaluation("e", {"accuracy": {"rate": 1.0}})
    thoughts = [{"question": question, "output": question, "thoughts": [{"tokens": [[question, 0.5]]}]}]
    return History(
        question or "a", Path(), {"k": question}, chief=chief, predictions=[row], thoughts=thoughts
    )


@settings(deadline=None, max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(text: str) -> None:
    (example,) = data_of(page_of([predicted(text)]))["examples"]
    assert example["q"] == text and example["answers"][0]["out"] == text


@pytest.mark.parametrize(
    "evil", ["</script><script>alert(1)</script>", "<!--<script>", "{{ 7*7 }}", "a|b\n# c"]
)
def test_no_text_breaks_out(evil: str) -> None:
    plain, page = page_of([predicted("plain")]), page_of([predicted(evil)])
    assert Page(page).tags == Page(plain).tags
    assert data_of(page)["examples"][0]["q"] == evil
    table = report.markdown([predicted(evil)], [], evil)
    assert [line.count("|") - line.count("\\|") for line in table.splitlines() if line.startswith("|")][
        :3
    ] == [10] * 3


def test_no_more_examples_than_a_page_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EXAMPLES", 3)
    rows = [{"question": str(n), "correct": True} for n in range(9)]
    assert len(report.examples([History("a", Path(), predictions=rows)])["examples"]) == 3


def test_a_run_that_was_killed_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    folder = fakeruns.run(tmp_path, "a", FEW, epochs=5)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:30]) + "\n" + lines[30][:20])
    for name in range(5):
        (folder / "eval" / f"valid-{name}" / "metrics.json").unlink()
    page, _ = report.write([folder])
    assert page == folder / "report.html"
    text = Page(page.read_text("utf-8")).text
    assert "evaluation valid-3 is unfinished" in text and "no checkpoint was evaluated" in text
    assert "measured on: validation after epoch 1" in text and "Loss" in text


@pytest.mark.parametrize(
    "metrics", [None, "", '{"kind": "step", "step": 1, "epoch": 0, "stage": 0, "loss": 1.5}\n']
)
def test_hardly_anything_is_there(tmp_path: Path, metrics: str | None) -> None:
    (tmp_path / "config.yaml").write_text("method: coconut\n")
    if metrics is not None:
        (tmp_path / "metrics.jsonl").write_text(metrics)
    page, pieces = report.write([tmp_path])
    text = Page(page.read_text("utf-8")).text
    assert "not evaluated yet" in text and "No thoughts were monitored or decoded" in text
    assert ("No training was recorded" in text) == (not metrics)
    assert "## Missing" in (pieces / "summary.md").read_text("utf-8")


def test_studies_have_sections_of_their_own(tmp_path: Path) -> None:
    folder = fakeruns.run(tmp_path, "a", FEW, epochs=1)
    bare = page_of(read([folder]))
    fakestudies.all_three(folder)
    page, pieces = report.write([folder])
    text, html = Page(page.read_text("utf-8")).text, page.read_text("utf-8")
    for kind, heading in report.STUDY_TITLES.items():
        assert f'<section id="{kind}">' in html and f'href="#{kind}"' in html and heading in text
        assert f'id="{kind}"' not in bare and f"coconut-lm {kind} runs/demo" in text
    for part in ("The latent is used.", "Zero thoughts cost 40.0 points", "every thought is zero", "AURC"):
        assert part in text, part
    written = (pieces / "summary.md").read_text("utf-8")
    for part in ("## Is the latent used?\n", "**The latent is used.** Zero", "### Fits\n", "### Votes\n"):
        assert part in written, part
    assert {f"{name}.png" for name in ("battery", "noise_log", "risk_coverage")} <= {
        p.name for p in pieces.iterdir()
    }


def test_a_study_alone_is_a_page(tmp_path: Path) -> None:
    file = fakestudies.put(tmp_path, fakestudies.robustness(["gaussian", "snr"]))
    page, _ = report.write([file.parent])
    text = Page(page.read_text("utf-8")).text
    assert page.parent == file.parent and "Kinds of noise by scale" in text and "ProsQA" in text
    assert "96.3 %" in text and "measured on: test-0123abcd (robustness)" in text
    assert "beside the paper" not in text and "Is the latent used" not in text and "epochs" not in text


def test_no_text_of_a_study_breaks_out() -> None:
    evil = "</section><script>alert(1)</script>"
    pages = []
    for said in ("plain", evil):
        figures = fakestudies.battery(verdict={"used": "no", "sentences": [said]}, data=said, command=said)
        figures["rows"][0]["title"] = figures["rows"][1]["group"] = said
        pages.append(page_of([History("a", Path(), studies=[Study("battery", said, figures)])]))
    assert Page(pages[0]).tags == Page(pages[1]).tags and evil in Page(pages[1]).text


def test_other_data_is_not_paired_and_another_task_has_no_figures(tmp_path: Path) -> None:
    other = [Example(each.question + "!", each.steps, each.answer) for each in FEW]
    a = fakeruns.run(tmp_path, "a", FEW, epochs=1)
    b = fakeruns.run(tmp_path, "b", other, epochs=1)
    for file in (*a.glob("eval/*/metrics.json"), *b.glob("eval/*/metrics.json")):
        file.write_text(file.read_text().replace('"prosqa"', '"plain"'))
    runs = read([a, b])
    assert not summary.paired(runs) and not summary.beside_paper(runs)
    assert len(report.examples(runs)["examples"]) == 24


def test_a_model_of_its_own_does_not_stand_beside_the_paper(tmp_path: Path) -> None:
    ours = fakeruns.run(tmp_path, "a", FEW, epochs=1)
    own = fakeruns.run(tmp_path, "b", FEW, epochs=1, model_id="demo/model.json")
    assert "a" in str(summary.beside_paper(read([ours, own]))) and not summary.beside_paper(read([own]))


def test_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("method: cot\n")
    assert report.write(["a"]) == (Path("a/report.html"), Path("a/report"))
    assert report.write(["a", "b"]) == (Path("report.html"), Path("report"))
    assert report.write(["a"], "x/y") == (Path("x/y/report.html"), Path("x/y"))
    assert report.write(["a"], "z.html") == (Path("z.html"), Path("z"))
    assert Path("z/summary.csv").is_file()
    Path("file").write_text("")
    with pytest.raises(UserError, match="nothing can be put into"):
        report.write(["a"], "file/report.html")


def test_only_names_of_runs_have_their_colour(tmp_path: Path) -> None:
    fakeruns.run(tmp_path, "coconut", FEW, epochs=1)
    page = page_of(read([tmp_path / "coconut"]))
    assert "<td>coconut</td>" in page and '--series-0)"></i>coconut</th>' in page


def test_the_paper_is_whole() -> None:
    assert all(figures.keys() == NAMES.keys() for figures in FIGURES.values()) and len(FIGURES) == 3
    assert FIGURES["prosqa"]["coconut"].accuracy == 97.0 and FIGURES["gsm8k"]["cot"].tokens == 25.0
