"""A checkpoint examined on a file of examples: what is not said follows from the two."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from coconut_lm import backend as backends
from coconut_lm.answer import Answerer, peak_memory
from coconut_lm.assembly import Loaded, heart, merged
from coconut_lm.costs import Shape, flops_of_answer
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example
from coconut_lm.data.survey import PLAIN, task_of
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Prediction, Setting, Watch, budget, evaluate
from coconut_lm.methods import Rows
from coconut_lm.runfolder import PREDICTIONS, RunFolder, lines


@dataclass(frozen=True)
class Exam:
    """What is asked for; None is what the checkpoint and the data say."""

    data: str
    split: str | None = None  # of a folder or a hub data set
    task: str | None = None
    stage: int | None = None
    thoughts: int | None = None
    scoring: str | None = None
    max_new_tokens: int | None = None
    samples: int | None = None
    batch_size: int | None = None
    batch_1: int = 0
    swap: bool = False
    backend: backends.Asked | None = None
    quantize: int | None = None  # bits of a weight, on MLX


class Examiner:
    """Puts a checkpoint to an exam. `checkpoint` is what its user calls it, where it has no place."""

    def __init__(self, loaded: Loaded, exam: Exam, checkpoint: str = "model") -> None:
        self.loaded = loaded = placed(loaded, exam.backend, exam.quantize)
        self.exam = exam
        self.examples = loaded.read(exam.data, split=exam.split, limit=exam.samples)
        self.prompts = self._prompts(self.examples)
        scoring = exam.scoring or self._of_run("scoring") or "tolerant"
        self.task = task = loaded.judge(self._task(), scoring)
        stage = loaded.stage(exam.thoughts) if exam.stage is None else exam.stage
        limit = exam.max_new_tokens or self._of_run("max_new_tokens")
        self.setting = Setting(
            checkpoint=str(loaded.place or checkpoint),
            weights=_weights(
                loaded.place, f"{checkpoint} in {exam.quantize} bits" if exam.quantize else None
            ),
            data=exam.data,
            data_sha256=_sha256(example.to_json() for example in self.examples),
            task=task.name,
            method=loaded.method,
            stage=stage,
            thoughts=exam.thoughts,
            scoring=scoring,
            max_new_tokens=limit or budget(self.prompts, task, stage, exam.data),
            backend="torch" if isinstance(heart(loaded.model), PreTrainedModel) else "mlx",
        )
        self.answerer = Answerer(loaded.model, loaded.tokens, self.setting.max_new_tokens)
        self._warm_up()

    @property
    def folder(self) -> Path:
        """Where the files go unless told otherwise: into the run's folder, if the checkpoint is in one."""
        setting, place = self.setting, Path(self.loaded.place or self.setting.checkpoint).resolve()
        name = f"{Path(setting.data).stem}-{place.name}-stage{setting.stage}"
        name += f"-thoughts{setting.thoughts}" if setting.thoughts is not None else ""
        name += "-reference" if setting.scoring == "reference" else ""
        name += "-mlx" if setting.backend == "mlx" else ""
        name += f"-{self.exam.quantize}bit" if self.exam.quantize else ""
        name += f"-first{self.exam.samples}" if self.exam.samples else ""
        runs = (RunFolder(above) for above in place.parents[:2] if RunFolder.is_one(above))
        return next((run.evaluation(name) for run in runs), Path("eval", name))

    def __call__(
        self,
        out: Path | None = None,
        *,
        watch: Watch = lambda predictions, total: predictions,
        force: bool = False,
    ) -> dict[str, Any]:
        """The metrics; they and the predictions are in the folder `out`, or in `folder`."""
        out = out or self.folder
        asked: dict[str, Any] = {
            "tokenizer": self.loaded.tokenizer,
            "batch_size": self.exam.batch_size or self._of_run("eval_batch_size") or 32,
            "flops": self._flops,
            "memory": self._memory,
            "watch": watch,
            "force": force,
        }
        if self.exam.swap:
            asked["swapped"] = self._swapped(out / "swapped", asked)
        asked["batch_1"] = min(self.exam.batch_1, len(self.examples))
        return evaluate(self.answerer, self.prompts, self.examples, self.setting, out=out, **asked)

    def _swapped(self, out: Path, asked: dict[str, Any]) -> list[bool]:
        """The verdicts on the examples' twins, which are evaluated by themselves."""
        if self.setting.task != "prosqa":
            raise UserError("only ProsQA's questions can be swapped", given=f"task {self.setting.task}")
        twins = [prosqa.twin(example) for example in self.examples]
        setting = replace(self.setting, data=f"{self.setting.data} (swapped)")
        evaluate(self.answerer, self._prompts(twins), twins, setting, out=out, **asked)
        return [row["correct"] for row in lines(out / PREDICTIONS)]

    def _prompts(self, examples: Sequence[Example]) -> Rows:
        return self.loaded.prompts(examples)

    def _of_run(self, key: str) -> Any:
        return getattr(self.loaded.config, key, None)

    def _task(self) -> str:
        """That of the data, which is to be the run's. `plain` says nothing, and so contradicts nothing."""
        seen, trained = task_of(self.examples), self._of_run("task") or PLAIN
        if self.exam.task is None and PLAIN not in (seen, trained) and seen != trained:
            raise UserError(
                f"{self.exam.data} is not of the task that the checkpoint learned",
                given=seen,
                expected=trained,
                do=f"give the other file, or say that it is meant: --task {seen}",
            )
        return self.exam.task or (seen if trained == PLAIN else trained)

    def _flops(self, each: Prediction) -> float:
        shape = Shape.of(self.answerer.model.config.get_text_config())
        return flops_of_answer(shape, each.read - each.thoughts, each.thoughts, each.written + each.ended)

    def _memory(self) -> tuple[int, str]:
        model = self.answerer.model
        if not isinstance(model, PreTrainedModel):
            return model.peak_memory(), "MLX arrays"
        return peak_memory(model.device), "GPU tensors" if model.device.type == "cuda" else "process"

    def _warm_up(self) -> None:
        """The longest prompt: what does not fit is said before there are files, and the first batch need not
        wait for kernels to load."""
        setting = self.setting
        prompts = (self.prompts.prompt(i, setting.stage, setting.thoughts) for i in range(len(self.examples)))
        longest = max(prompts, key=lambda prompt: len(prompt.input_ids))
        self.answerer.room(longest)
        if self.answerer.model.device.type == "cuda":
            self.answerer([longest])


def placed(loaded: Loaded, asked: backends.Asked | None = None, quantize: int | None = None) -> Loaded:
    """Where it computes: on what is asked for, else on what its run was made with, if that is here."""
    own = loaded.config.backend if loaded.config else "auto"
    wanted = asked or ("auto" if own == "mlx" and not backends.mlx_is_there() else own)
    if backends.choose(wanted) == "mlx":
        from coconut_lm.mlx import facade

        try:
            return replace(loaded, model=facade.of(merged(loaded.model), quantize))
        except UserError:
            if wanted == "mlx" or quantize:
                raise  # else torch does what MLX cannot
    if quantize:
        raise UserError("only MLX quantises weights", given=f"--quantize {quantize}", do="add --backend mlx")
    return replace(loaded, model=loaded.model.to(best_device()))


def best_device() -> torch.device:
    """CUDA, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _sha256(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _weights(place: Path | None, more: str | None = None) -> str:
    """Tells one state of a checkpoint from another without reading it all, nothing for what is not here;
    `more` is what else was done to it."""
    found = [] if place is None else [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    kept: list[Any] = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    kept += [more] if more else []
    return _sha256(kept)[:16] if kept else ""
