"""Work for processes of their own, which must find it by name."""

import os
import signal

import torch

from coconut_lm.errors import UserError
from coconut_lm.sidebyside import Tell


def work(name: str, tell: Tell) -> None:
    tell("threads", torch.get_num_threads())
    tell("process", os.getpid())
    if name.startswith("mistaken"):
        raise UserError("no such thing", given=name)
    if name.startswith("broken"):
        raise ZeroDivisionError(name)
    if name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("stopped"):
        raise KeyboardInterrupt
    if name.startswith("interrupted"):
        os.kill(os.getpid(), signal.SIGINT)
    if name.startswith("endless"):
        signal.pause()
    for number in range(200):
        tell("number", number)
