"""A configuration, carried out: data, model, checks, then training or one evaluation, in the run's folder."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers.utils.logging import disable_progress_bar

from coconut_lm import backend, environment, exam, lengths, parallel, plan, preflight, rules
from coconut_lm import base as bases
from coconut_lm.assembly import Loaded, assemble, heart, open_checkpoint
from coconut_lm.config import Config, dump, load
from coconut_lm.data.example import Example, read_examples
from coconut_lm.data.survey import task_of
from coconut_lm.engine import Engine, TorchEngine, torch_engine
from coconut_lm.errors import UserError
from coconut_lm.evaluate import Watch as Examined
from coconut_lm.evaluate import keep, task_named
from coconut_lm.faults import in_words
from coconut_lm.files import refuse_overwrite
from coconut_lm.methods import Rows
from coconut_lm.runfolder import PREDICTIONS, RunFolder, write_json
from coconut_lm.sizing import measure
from coconut_lm.tokens import EncodedSet, encode
from coconut_lm.track import Tracker
from coconut_lm.traffic import Sharing
from coconut_lm.train import Data, Trainer, Watch
from coconut_lm.validation import Validator
from coconut_lm.workload import stages

FREE = frozenset(  # what may change when a run goes on
    ("num_epochs", "max_steps", "save_steps", "keep_last", "report_to", "num_workers", "eval_batch_size")
    + ("gradient_checkpointing", "compile", "fsdp", "timeout_minutes", "batch_size_training")
    + ("gradient_accumulation_steps", "save_mlx_file")
)
DEBUG_TRAIN, DEBUG_VALID = 5000, 32


def configuration(place: str, overrides: Sequence[str] = ()) -> Config:
    """Of a file, or of a run's folder, which may have been moved."""
    path = Path(place)
    if not path.is_dir():
        return load(place, overrides)
    if not RunFolder.is_one(path):
        raise UserError(f"{place} is no run's folder", expected="a YAML file, or a folder with config.yaml")
    config = RunFolder(path).config
    moved = load(config, check_files=False).run_dir.resolve() != path.resolve()
    here = [f"save_path={path.absolute().parent}", f"name={path.absolute().name}"] if moved else []
    return load(config, [*here, *overrides])


def is_first() -> bool:
    """The process that speaks for all of them."""
    return int(os.environ.get("RANK", "0")) == 0


def run(config: Config, watch: Watch | None = None) -> bool:
    """Trains to the end; False if it was asked to stop before. The same call goes on."""
    disable_progress_bar()  # transformers' own, one for every file that is saved
    accelerator = parallel.accelerator(config)
    train, valid = examples(config)
    config = config.model_copy(update={"task": config.task or task_of(valid)})  # its checkpoints shall know
    folder = RunFolder(config.run_dir)
    _refuse_other(folder, config)
    watch = watch or Watch()
    loaded, data = prepare(config, train, valid, accelerator, watch)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        dump(config, folder.config)
        write_json(folder.environment, environment.describe())
    with Tracker(folder, config, active=accelerator.is_main_process) as tracker, in_words(config):
        engine = _engine(config, loaded, data.train, accelerator, watch)
        return Trainer(config, loaded, data, folder, engine, tracker, watch=watch).fit()


def _engine(config: Config, loaded: Loaded, rows: Rows, accelerator: Accelerator, watch: Watch) -> Engine:
    """What computes, once it is sure that the run would train."""
    if _backend(config, accelerator) == "mlx":
        from coconut_lm.mlx.train import MlxEngine

        preflight.short_check(loaded, rows)  # by torch: of weights and rows, which are the same
        return MlxEngine(config, loaded, accelerator, watch.note)
    sharing = _sharing(config, loaded, accelerator, rows)
    sharded = sharing in ("step", "shards")
    if not sharded:
        parallel.place(loaded.model, accelerator)
    preflight.short_check(loaded, rows, backward=not sharded)
    engine = torch_engine(config, loaded, accelerator, sharded)
    if sharing == "step":
        parallel.hold(engine.model)
    return engine


def _backend(config: Config, accelerator: Accelerator) -> backend.Backend:
    """Auto is torch where a run asks for what MLX does not do."""
    several = accelerator.num_processes > 1
    if config.backend == "auto" and (several or any(rules.not_on_mlx(config))):
        return "torch"
    chosen = backend.choose(config.backend)
    if several and chosen == "mlx":
        raise UserError(
            "MLX trains in one process", given=f"{accelerator.num_processes} ranks", do="set backend: torch"
        )
    return chosen


def evaluate_once(config: Config, watch: Examined | None = None) -> tuple[dict[str, Any], Path] | None:
    """The metrics of one evaluation on val_path, and the folder of the run's where it is kept; None on ranks
    after the first."""
    assert config.val_path, "a configuration that evaluates has it"
    accelerator = parallel.accelerator(config)
    place = config.load_model_path
    loaded = open_checkpoint(place, config) if place else assemble(config)
    implied = loaded.rows(encode([], loaded.tokenizer)).stage(config.resume) if config.resume else None
    asked = exam.Exam(
        data=config.val_path,
        task=config.task,
        backend=config.backend,
        stage=implied if config.eval_stage is None else config.eval_stage,
        samples=min(config.eval_samples or DEBUG_VALID, DEBUG_VALID) if config.debug else config.eval_samples,
    )
    examiner = exam.Examiner(loaded, asked, place or str(config.model_id))
    out = RunFolder(config.run_dir).evaluation(examiner.folder.name)
    if accelerator.num_processes > 1 and not (out / PREDICTIONS).exists():
        _answer_together(config, loaded, examiner, out, accelerator)
    if not accelerator.is_main_process:
        return None
    return (examiner(out, watch=watch) if watch else examiner(out)), out


def _answer_together(
    config: Config, loaded: Loaded, examiner: exam.Examiner, out: Path, accelerator: Accelerator
) -> None:
    """Every rank answers its share, and the first keeps them all: nothing is then left to ask."""
    sharing, model = _sharing(config, loaded, accelerator), heart(loaded.model)
    sharded = sharing in ("step", "shards")
    shared = parallel.distribute(model, accelerator, True) if sharded else model.to(accelerator.device)
    if sharing == "step":
        parallel.hold(shared)
    validator = Validator(
        config=config.model_copy(update={"max_new_tokens": examiner.setting.max_new_tokens}),
        loaded=loaded,
        engine=TorchEngine(config, loaded, shared, accelerator, sharded),
        rows=examiner.prompts,
        examples=examiner.examples,
        task=task_named(examiner.setting.task, examiner.setting.scoring),
        answered=lambda prediction, total: None,
    )
    found = validator.answers(examiner.setting.stage)
    if accelerator.is_main_process:
        keep(out, examiner.setting, len(found), found)


def _sharing(config: Config, loaded: Loaded, accelerator: Accelerator, rows: Rows | None = None) -> Sharing:
    """How the ranks share the model; for `auto`, as it fits into the smallest of their devices."""
    devices = accelerator.num_processes
    said = plan.sharing_said(config, devices)
    if said or accelerator.device.type != "cuda":
        return said or "copies"
    here = torch.cuda.get_device_properties(accelerator.device).total_memory
    loads = [each.load for each in stages(config, rows)]
    memory = parallel.smallest(accelerator, here)
    return plan.sharing_that_fits(config, measure(heart(loaded.model)), loads, devices, memory)


def examples(config: Config) -> tuple[list[Example], list[Example]]:
    """What is learned from and what is asked; few of both where it is only to see that things run."""
    assert config.train_path and config.val_path, "a configuration that trains has both"
    train, valid = config.train_samples, config.eval_samples
    if config.debug:
        train, valid = min(train or DEBUG_TRAIN, DEBUG_TRAIN), min(valid or DEBUG_VALID, DEBUG_VALID)
    return read_examples(config.train_path, split="train", limit=train), read_examples(
        config.val_path, split="validation", limit=valid
    )


def _texts(examples: Sequence[Example]) -> Iterator[str]:
    return (" ".join([each.question, *each.steps, each.answer]) for each in examples)


def prepare(
    config: Config, train: list[Example], valid: list[Example], accelerator: Accelerator, watch: Watch
) -> tuple[Loaded, Data]:
    """What is trained, and on what."""
    loaded = assemble(config, lambda: _texts(train))
    with accelerator.main_process_first():
        encoded = encode(train, loaded.tokenizer, cache_dir=Path(config.save_path) / ".cache")
    learned = _fitted(config, loaded, encoded, watch, "training", config.max_seq_length)
    asked = _fitted(config, loaded, encode(valid, loaded.tokenizer), watch, "validation", None)
    data = Data(
        train=loaded.rows(learned.examples, config.seed),
        valid=loaded.rows(asked.examples, config.seed),
        examples=[valid[int(index)] for index in asked.kept],
        task=task_named(config.task or task_of(valid), config.scoring),
        fingerprint=fingerprint(learned.examples),
        asked=fingerprint(asked.examples),
    )
    return loaded, data


def _fitted(
    config: Config, loaded: Loaded, encoded: EncodedSet, watch: Watch, which: str, limit: int | None
) -> lengths.Fitted:
    """The examples whose rows `limit` and the model's positions admit; a word about the others."""
    fitted = lengths.fit(
        loaded.rows(encoded, config.seed),
        limit,
        config.overlong,
        positions=bases.positions(heart(loaded.model).config.get_text_config()),
        opening=lengths.opening_of(loaded.tokenizer),
    )
    if fitted.account:
        watch.note(f"{which} data: {fitted.account}")
    return fitted


def fingerprint(examples: EncodedSet) -> str:
    """Of examples as the model sees them."""
    digest = hashlib.sha256(examples.ids.tobytes())
    digest.update(examples.pieces.tobytes())
    digest.update(examples.firsts.tobytes())
    return digest.hexdigest()[:16]


def _refuse_other(folder: RunFolder, config: Config) -> None:
    """A folder belongs to the configuration of its checkpoints, but for what does not change the result."""
    refuse_overwrite(folder.config, force=True)
    if folder.config.is_file() and (folder.checkpoints() or folder.newest()):
        before, now = load(folder.config, check_files=False).model_dump(), config.model_dump()
        free = FREE | {"save_path", "name"}  # a folder may be moved
        differing = [key for key in now if now[key] != before.get(key) and key not in free]
        if differing:
            shown = "\n  ".join(f"{key}: {before.get(key)!r} there, {now[key]!r} now" for key in differing)
            raise UserError(
                f"{folder.path} is the folder of a run with another configuration\n  {shown}",
                do="go on with its own (coconut-lm run FOLDER), or give this one a name of its own: name=...",
            )
