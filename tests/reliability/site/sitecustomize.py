"""Python imports this at its start where this folder is on PYTHONPATH: the environment's TROUBLE comes true.

`die`          a picture that holds the trigger colour kills its process, as a bug in a library would
`freeze`       it stops its process; `freeze=FILE` once only, FILE remembers; `hang=FILE` it takes for ever, once only
`hungry=FILE`  it finds no memory, once only
`decode-hang=FILE` decoding it takes for ever, each time; FILE gets a byte for each
`slow=SECONDS` every picture takes so long
`load`         a process dies while it loads the model; `load-freeze=FILE` stops, once only, `load-hang=FILE` sleeps;
               `load-bug` Python code raises, `load-for-ever` sleeps each time, with Python's lock held
`start-freeze=FILE` a worker process of the local engine stops before it has read what it is to do, once only
`read`         a process dies while it reads a part that holds a `killer.png`; `read-freeze=FILE` stops, once only,
               `read-hang=FILE` sleeps
`read-group=FILE` a process dies while it reads the row group of a `killer.parquet`; FILE gets a byte for each
`write-freeze=FILE` a process stops when it has encoded such a part, once only; `write-hang=FILE` sleeps
`monitor-freeze=FILE` the actor of the heartbeats stops at the first one, once only

`bug`          Python code raises while it reads such a part
`no-bf16`      its CPU does not compute in bf16

`@FILE` is what FILE says at each moment; nothing if there is none.
"""

import ctypes
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

TRIGGER = (255, 0, 255)  # as in tests/graphs.py
TROUBLE = os.environ.get("TROUBLE", "")


def trouble():
    """Return kind and value of the trouble of this moment."""
    text = TROUBLE
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
    kind, _, value = text.partition("=")
    return kind, value


def strike(number):
    """Send this process a signal; its threads may go on for a moment, so this one waits."""
    os.kill(os.getpid(), number)
    time.sleep(5)


def is_first(name):
    """Whether nobody came by here before."""
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def freeze_once(name):
    if is_first(name):
        strike(signal.SIGSTOP)


def hang_once(name):
    if is_first(name):
        time.sleep(3600)


def on_sessions(module):
    real_init, real_predict = module.GraphSession.__init__, module.GraphSession.predict

    def init(self, *args, **settings):
        kind, value = trouble()
        if kind == "load":
            strike(signal.SIGKILL)
        elif kind == "load-freeze":
            freeze_once(value)
        elif kind == "load-hang":
            hang_once(value)
        elif kind == "load-for-ever":
            ctypes.PyDLL(None).sleep(3600)
        elif kind == "load-bug":
            raise TypeError("a bug")
        real_init(self, *args, **settings)

    def predict(self, images):
        kind, value = trouble()
        if kind == "slow":
            time.sleep(float(value))
        elif (images == TRIGGER).all(axis=-1).any():
            if kind == "die":
                strike(signal.SIGKILL)
            elif kind == "freeze" and (not value or is_first(value)):
                strike(signal.SIGSTOP)
            elif kind == "hang":
                hang_once(value)
            elif kind == "hungry" and is_first(value):
                raise MemoryError
        return real_predict(self, images)

    module.GraphSession.__init__, module.GraphSession.predict = init, predict


def on_files(module):
    real = module.read_files

    def read_files(part, *arguments, **settings):
        kind, value = trouble()
        if any(member.id.endswith("killer.png") for member in part.members):
            if kind == "read":
                strike(signal.SIGKILL)
            elif kind == "read-freeze":
                freeze_once(value)
            elif kind == "read-hang":
                hang_once(value)
            elif kind == "bug":
                raise TypeError("a bug")
        return real(part, *arguments, **settings)

    module.read_files = read_files


def on_row_groups(module):
    real = module._read_row_group

    def read_row_group(part, *arguments):
        kind, value = trouble()
        if kind == "read-group" and part.url.endswith("killer.parquet"):
            with Path(value).open("ab") as file:
                file.write(b"x")
            strike(signal.SIGKILL)
        return real(part, *arguments)

    module._read_row_group = read_row_group


def on_decoding(module):
    real = module.decode_one

    def decode_one(sample, *arguments):
        kind, value = trouble()
        if kind == "decode-hang" and sample.id.endswith("killer.png"):
            with Path(value).open("ab") as file:
                file.write(b"x")
            time.sleep(3600)
        return real(sample, *arguments)

    module.decode_one = decode_one


def on_workers(module):
    real = module.write_masks

    def write_masks(rows, **settings):
        kind, value = trouble()
        if kind.startswith("write-") and any(row.id.endswith("killer.png") for row in rows):
            {"write-freeze": freeze_once, "write-hang": hang_once}[kind](value)
        return real(rows, **settings)

    module.write_masks = write_masks


def on_monitor(module):
    real = module.HeartbeatMonitor.record

    def record(self, *arguments):
        kind, value = trouble()
        if kind == "monitor-freeze":
            freeze_once(value)
        return real(self, *arguments)

    module.HeartbeatMonitor.record = record


def on_worker_process(module):
    kind, value = trouble()
    if kind == "start-freeze":
        freeze_once(value)


def on_runtimes(module):
    real = module.capabilities

    def capabilities():
        found = real()
        return found - {module.BF16} if trouble()[0] == "no-bf16" else found

    module.capabilities = capabilities


class Patching(importlib.abc.MetaPathFinder):
    """Finds one module as everybody else does, and patches it once it is loaded."""

    def __init__(self, name, patch):
        self.name, self.patch = name, patch

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            self.patch(module)

        spec.loader.exec_module = exec_module
        return spec


if TROUBLE:
    sys.meta_path[:0] = [
        Patching("segment.models.sessions.predict", on_sessions),
        Patching("segment.models.sessions.runtimes", on_runtimes),
        Patching("segment.inputs.loose.file_reads", on_files),
        Patching("segment.inputs.parquet.row_groups", on_row_groups),
        Patching("segment.pipeline.stages", on_decoding),
        Patching("segment.pipeline.worker", on_workers),
        Patching("segment.engines.worker_main", on_worker_process),
        Patching("segment.engines.ray_heartbeats", on_monitor),
    ]
