"""The embedded main job: four small models learn on this CPU to follow a graph, three of them in vain.

Graphs are brooms in symbols: two roots with two equal chains each, and the question which of two chain ends
the asked root reaches. Whoever writes the chain must guess its first step; a thought can hold both. Nothing
here is special: the folder gets data files, a model's shape and four configurations, which `coconut-lm run`
takes too, and the runs are trained, examined and reported by the rooms that do it for all runs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from coconut_lm import history, launch, report, yamlfile
from coconut_lm.assembly import Loaded, open_checkpoint
from coconut_lm.battery import Battery, Choice
from coconut_lm.config import Config, load
from coconut_lm.data import prosqa
from coconut_lm.data.example import Example, write_examples
from coconut_lm.errors import UserError
from coconut_lm.exam import Exam, Examiner
from coconut_lm.files import atomic_folder, atomic_write, read_text, refuse_overwrite_folder
from coconut_lm.history import History
from coconut_lm.lens import write_thoughts
from coconut_lm.methods import METHODS, by_epoch
from coconut_lm.robustness import Robustness, Sweep
from coconut_lm.runfolder import write_json
from coconut_lm.sidebyside import Jobs, Tell, cores
from coconut_lm.study import Study
from coconut_lm.tokens import add_latent_tokens, word_tokenizer
from coconut_lm.train import Watch

HOPS, BATCH = 3, 128
BROOM: dict[str, Any] = {"style": "symbols", "shape": "broom"}
SPLIT = 1_000_003  # between the seeds of the files
TITLE = "Thinking without words"
MARK = "demo.json"
# Optimizer steps of an epoch for each minute, fixed so that a seed makes a run repeat on any machine; by kind
# of graph (branches, hops), in the order in which the kinds are learned from. Each has the symbols it needs:
# looking up is learned where they are few, and carried over where they are more (docs/log.md).
FIRST = {(1, 3): 45, (1, 4): 10, (1, 5): 10, (1, 6): 13, (2, 2): 10, (2, 3): 50}
LATER = {(1, 3): 19, (1, 4): 6, (1, 5): 6, (1, 6): 10, (2, 2): 10, (2, 3): 37}
VALID, TEST, DECODED, STUDIED = 300, 1000, 8, 300
LOUD = (0.25, 0.5, 1.0, 2.0)
NOISE = dict.fromkeys(("gaussian_scaled", "orthogonal", "targeted_same", "targeted_opposite"), LOUD)
SHAPE = {
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "hidden_size": 96,
    "intermediate_size": 192,
    "head_dim": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},  # texts are short
    "initializer_range": 0.06,  # the usual 0.02 is for wider models
}


@dataclass(frozen=True)
class Part:
    """One of the runs. Its name is its method and its folder; it may go on from the weights of another."""

    name: str
    after: str | None = None
    epochs: int = 1
    data: str = "first"
    counts: Sequence[int | None] = (None,)  # thoughts it is examined with; None is as many as it learned

    def config(self, out: Path, seed: int) -> dict[str, Any]:
        """The keys of its YAML."""
        staged = METHODS[self.name].schedule is by_epoch
        first = {"resume": 1} if staged else {}  # stage 0 is what cot did
        return {
            "project": "demo",
            "name": self.name,
            "save_path": str(out),
            "seed": seed,
            "method": self.name,
            "c_thought": 1,
            "max_latent_stage": HOPS,
            "pad_latent_to_max": True,
            "epochs_per_stage": 1,
            "uniform_prob": 0.1,
            "num_epochs": self.epochs + staged,
            **first,
            "model_id": str(out / "model.json"),
            "load_model_path": str(out / self.after) if self.after else None,
            "tokenizer": str(out / "tokenizer"),
            "new_token_init": "random",
            "train_path": str(out / "data" / f"{self.data}.json"),
            "val_path": str(out / "data" / "valid.json"),
            "task": "prosqa",
            "batch_size_training": BATCH,
            "shuffle": False,
            "lr": 1e-3,
            "warmup_steps": 100,
            "max_grad_norm": 1.0,
            "reset_optimizer": "never",
            "eval_batch_size": 100,
            "max_new_tokens": 4 * HOPS,
            "keep_last": 1,
        }


PARTS = (
    Part("cot"),
    Part("no_cot"),
    Part("coconut", "cot", epochs=HOPS, data="later", counts=(None, *range(HOPS))),
    Part("no_thoughts", "cot", epochs=HOPS, data="later"),
)


class Onlooker:
    """Someone who follows the demo. This one does not."""

    def begins(self, example: Example, graphs: int, configs: Mapping[str, Config]) -> None: ...

    def told(self, run: str, what: str, figures: Any) -> None: ...

    def ends(self, out: Path, runs: Mapping[str, History], page: Path) -> None: ...


def run(out: Path, minutes: float, seed: int = 0, onlooker: Onlooker | None = None) -> dict[str, History]:
    """Makes the data, trains, examines and reports; the runs by their names. The same call goes on after a
    stop."""
    onlooker = onlooker or Onlooker()
    if not 0 < minutes < math.inf:  # nor is it nan
        raise UserError(
            "there is no such time to learn in", given=f"{minutes} minutes", expected="more than 0"
        )
    _claim(out, {"minutes": minutes, "seed": seed})
    data = _write_data(out, minutes, seed)
    places = {part.name: _write_config(part, out, seed) for part in PARTS}
    configs = {name: load(place, check_files=False) for name, place in places.items()}
    onlooker.begins(data["test"][0], len(data["first"]), configs)
    Jobs(
        work=partial(_carry_out, str(out)),
        waits_for={part.name: part.after for part in PARTS},
        told=onlooker.told,
        at_once=min(2, cores()),
    )()
    page, _ = report.write([out / name for name in places], out / "report.html", TITLE)
    found = {run.name: run for run in history.read([out / name for name in places])}
    onlooker.ends(out, found, page)
    return found


def _claim(out: Path, asked: dict[str, float]) -> None:
    """A folder is taken when it is empty, or holds what the same call began."""
    mark = out / MARK
    refuse_overwrite_folder(out, force=True)
    there = _begun(mark)
    if there is None:
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out} is not empty, and holds no demo", do="choose another --out, or empty it")
        write_json(mark, asked)
    elif there != asked:
        raise UserError(
            f"{out} holds the demo with other settings",
            given=_said(asked),
            expected=_said(there),
            do="choose another --out, or give the same settings to go on",
        )


def _begun(mark: Path) -> dict[str, float] | None:
    """The settings of the demo that is there, if one is."""
    try:
        found = json.loads(read_text(mark)) if mark.is_file() else None
    except json.JSONDecodeError:  # somebody else's
        found = None
    return found if isinstance(found, dict) else None


def _said(settings: Mapping[str, float]) -> str:
    return " ".join(f"--{name} {value}" for name, value in settings.items())


def _write_data(out: Path, minutes: float, seed: int) -> dict[str, list[Example]]:
    """Files, and a tokenizer for all of them, that a seed makes the same."""

    def rows(steps: float) -> int:
        return BATCH * max(1, round(minutes * steps))

    longest: dict[str, Any] = {"branches": 2, "hops": HOPS, **BROOM}
    data = {
        "first": _made(seed, {kind: rows(steps) for kind, steps in FIRST.items()}),
        "later": _made(seed + SPLIT, {kind: rows(steps) for kind, steps in LATER.items()}),
        "valid": list(prosqa.make(VALID, seed=seed + 2 * SPLIT, **longest)),
        "test": list(prosqa.make(TEST, seed=seed + 3 * SPLIT, **longest)),
    }
    for name, examples in data.items():
        write_examples(out / "data" / f"{name}.json", examples, force=True)
    texts = (" ".join([each.question, *each.steps, each.answer]) for each in data["first"])
    tokenizer = word_tokenizer(texts, breaks=False)
    add_latent_tokens(tokenizer)
    with atomic_folder(out / "tokenizer", force=True) as folder:
        tokenizer.save_pretrained(folder)
    return data


def _made(seed: int, counts: dict[tuple[int, int], int]) -> list[Example]:
    """Brooms kind by kind: symbols are from as large a range as a kind's graphs need."""
    kinds = enumerate(counts.items())
    return [
        example
        for place, ((branches, hops), count) in kinds
        for example in prosqa.make(count, seed=seed + place, branches=branches, hops=hops, **BROOM)
    ]


def _write_config(part: Part, out: Path, seed: int) -> Path:
    write_json(out / "model.json", SHAPE)
    place = out / "configs" / f"{part.name}.yaml"
    with atomic_write(place) as file:
        file.write(yamlfile.write(part.config(out, seed)))
    return place


class _Told(Watch):
    """Passes on what a trainer says."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def note(self, text: str) -> None:
        self.tell("note", text)

    def begins(self, text: str) -> None:
        self.tell("begins", text)

    def epoch(self, epoch: int, stage: int, steps: int, done: int) -> None:
        self.tell("epoch", {"epoch": epoch, "stage": stage, "steps": steps, "done": done})

    def step(self, record: dict[str, Any]) -> None:
        self.tell("step", {"loss": record["loss"]})

    def validated(self, record: dict[str, Any], predictions: Sequence[Any]) -> None:
        self.tell("validated", record)


def _carry_out(out: str, name: str, tell: Tell) -> None:
    """One run, trained to its end and examined on graphs that it has not seen, and on their twins."""
    part = next(each for each in PARTS if each.name == name)
    config = launch.configuration(str(Path(out, "configs", f"{name}.yaml")))
    if not launch.run(config, _Told(tell)):
        raise KeyboardInterrupt
    loaded = open_checkpoint(config.run_dir)
    for count in part.counts:
        tell("examined", count)
        exam = Exam(data=str(Path(out, "data", "test.json")), thoughts=count, swap=count is None)
        examiner = Examiner(loaded, exam)
        examiner()
        if count is None and METHODS[name].filler == "latent":
            place = examiner.folder / history.THOUGHTS
            write_thoughts(loaded, examiner.examples[:DECODED], examiner.setting, place)
            _look_into(loaded, replace(exam, samples=STUDIED, batch_size=BATCH, swap=False), tell)


def _look_into(loaded: Loaded, exam: Exam, tell: Tell) -> None:
    """What noise on the thoughts does to the answers, and what becomes of them with other thoughts."""
    examiner, sweep, all_of_it = Examiner(loaded, exam), Sweep(NOISE), Choice()
    tell("studied", "robustness")
    Robustness(Study("robustness", examiner, sweep.asked), sweep)()
    tell("studied", "battery")
    Battery(Study("battery", examiner, all_of_it.asked), all_of_it)()
