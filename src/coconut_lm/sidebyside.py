"""Jobs of this machine, each in a process of its own on one core; one watches what they tell."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from coconut_lm.errors import UserError

STOPPED, MISTAKEN = 130, 2  # what commands exit with
Tell = Callable[[str, Any], None]
Work = Callable[[str, Tell], None]


@dataclass(frozen=True)
class _Running:
    name: str
    process: BaseProcess


@dataclass
class Jobs:
    """Named jobs, some of which wait for another; `work` is a function that a new process can import."""

    work: Work
    waits_for: Mapping[str, str | None]
    told: Callable[[str, str, Any], None]
    """What a job tells: its name, what it is, and any figures."""
    at_once: int = 2
    running: dict[Connection, _Running] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)

    def __call__(self) -> None:
        """Carries all out. A job that fails ends the others, which may go on another time."""
        with self._ended():
            while len(self.done) < len(self.waits_for):
                for name in self._ready():
                    self._begin(name)
                for channel in wait(list(self.running)):
                    self._hear(cast(Connection, channel))  # on Windows it is another kind

    def _ready(self) -> Sequence[str]:
        able = [n for n, before in self.waits_for.items() if before is None or before in self.done]
        return [name for name in able if name not in self.begun][: self.at_once - len(self.running)]

    def _begin(self, name: str) -> None:
        context = get_context("spawn")  # a fork of a process that has threads may hang
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_live, args=(self.work, name, there))
        with _deaf_to_interrupts():
            process.start()
        there.close()  # the job's alone, so that its end is heard
        self.running[here] = _Running(name, process)
        self.begun.add(name)

    def _hear(self, channel: Connection) -> None:
        job = self.running[channel]
        try:
            what, figures = channel.recv()
        except EOFError:
            self._take_leave(channel, job)
            return
        if what == "mistake":
            raise UserError(figures)
        self.told(job.name, what, figures)

    def _take_leave(self, channel: Connection, job: _Running) -> None:
        job.process.join()
        channel.close()
        del self.running[channel]
        if job.process.exitcode == STOPPED:
            raise KeyboardInterrupt
        if job.process.exitcode:
            raise RuntimeError(f"{job.name} ended with exit code {job.process.exitcode}")
        self.done.add(job.name)

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """No job outlives the block: each is asked to stop, and may save what it has."""
        try:
            yield
        finally:
            for job in self.running.values():
                job.process.terminate()
            for channel, job in self.running.items():
                with suppress(EOFError):
                    while True:  # a job that is saving must not wait for someone to listen
                        channel.recv()
                job.process.join()


def _live(work: Work, name: str, channel: Connection) -> None:
    """The life of a job's process."""
    import torch

    def tell(what: str, figures: Any) -> None:
        with suppress(BrokenPipeError):  # nobody watches any more, which the thread below sees to
            channel.send((what, figures))

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    code = 0
    try:
        work(name, tell)
    except UserError as error:
        tell("mistake", str(error))
        code = MISTAKEN
    except KeyboardInterrupt:
        code = STOPPED
    except Exception:
        traceback.print_exc()
        code = 1
    channel.close()
    sys.stderr.flush()
    os._exit(code)  # without waiting for threads of libraries


def _end_with_parent() -> None:
    """A job that is left alone is asked to stop, as it would have been by whoever watched."""
    parent = parent_process()
    assert parent is not None, "a job is started by another process"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started inside ignores Ctrl-C, which a terminal sends to all: who watches asks jobs to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
