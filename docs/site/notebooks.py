"""A notebook of docs/ as a page: its text, its code, the outputs that it was saved with. Nothing is run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = markdown(Path(str(file.abs_src_path)))
        files.append(File.generated(config, file.src_uri.removesuffix("ipynb") + "md", content=page))
    return files


def markdown(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [part for cell in cells for part in _cell(cell)]
    link = f'<a class="notebook" href="{path.name}" download>{path.name}</a>'
    return "\n\n".join([parts[0], link, *parts[1:]])


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"]).strip("\n")
    if cell["cell_type"] == "markdown":
        yield source
    elif cell["cell_type"] == "code" and source:
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            yield from _output(output)


def _output(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        source = f"data:image/png;base64,{_joined(data['image/png'])}"
        yield f'<img alt="what the code above draws" src="{source}">'
    elif "image/svg+xml" in data:
        yield f"<div>{_joined(data['image/svg+xml'])}</div>"
    elif text := _joined(output.get("text") or data.get("text/plain") or "").strip("\n"):
        yield f"``` {{ .text .output }}\n{text}\n```"


def _joined(text: str | list[str]) -> str:
    return "".join(text).replace("\r", "").strip("\n")
