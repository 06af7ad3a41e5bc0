"""What a long job has found so far, kept as it comes: the same job goes on where it stopped."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from coconut_lm.errors import UserError
from coconut_lm.files import read_text, refuse_overwrite
from coconut_lm.runfolder import lines, write_json, write_lines

SETTINGS, PARTIAL = "settings.json", "partial.jsonl"
T = TypeVar("T")


class Journal:
    """Rows of JSON in a folder that belongs to one job, which `settings` tell from any other."""

    def __init__(
        self, folder: str | os.PathLike[str], settings: Mapping[str, Any], final: str, *, force: bool = False
    ) -> None:
        """`final` is the file that holds all rows in the end; `force` throws away what is there."""
        self.folder = Path(folder)
        self.final, self.partial = self.folder / final, self.folder / PARTIAL
        refuse_overwrite(self.final, force=True)  # whether it can be there at all
        if force or not (self.final.exists() or (self.folder / SETTINGS).exists()):
            self._clear()
            write_json(self.folder / SETTINGS, settings)
        else:
            self._refuse_others(json.loads(json.dumps(settings)))

    def rows(self) -> list[dict[str, Any]]:
        """What is there already. A line that was cut off is taken back, so that the next one stands alone."""
        if self.final.exists():
            return list(lines(self.final))
        if not self.partial.exists():
            return []
        rows = list(lines(self.partial))
        write_lines(self.partial, rows)
        return rows

    def keep(self, found: Iterable[T], row: Callable[[T], Mapping[str, Any]]) -> Iterator[T]:
        """Passes on what is found, each with its row written down first."""
        with open(self.partial, "a", encoding="utf-8") as file:
            for each in found:
                file.write(json.dumps(row(each), ensure_ascii=False) + "\n")
                file.flush()
                yield each

    def finish(self, rows: list[dict[str, Any]]) -> None:
        write_lines(self.final, rows)
        self.partial.unlink(missing_ok=True)

    def _clear(self) -> None:
        self.final.unlink(missing_ok=True)
        self.partial.unlink(missing_ok=True)

    def _refuse_others(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / SETTINGS
        here = json.loads(read_text(path)) if path.exists() else {}
        other = [key for key in {**here, **settings} if here.get(key) != settings.get(key)]
        if other:
            raise UserError(
                f"{self.folder} holds the results of another job" if here else f"{self.final} exists",
                given=", ".join(f"{key} {settings.get(key)}" for key in other),
                expected=", ".join(f"{key} {here[key]}" for key in other if key in here) or None,
                do="choose another folder, or remove this one to start anew (eval and studies: --force)",
            )
