"""Python imports this at its start where this folder is on PYTHONPATH: the environment's TROUBLE comes true.

`die`          a picture that holds the trigger colour kills its process, as a bug in a library would
`freeze`       it stops its process; `freeze=FILE` once only, FILE remembers
`slow=SECONDS` every picture takes so long
`load`         a process dies while it loads the model
`read`         a process dies while it reads a part that holds `killer.png`
"""

import importlib.abc
import importlib.util
import os
import signal
import sys
import time

TRIGGER = (255, 0, 255)  # as in tests/graphs.py
KIND, _, VALUE = os.environ.get("TROUBLE", "").partition("=")


def end(number):
    os.kill(os.getpid(), number)


def on_predict(module):
    real = module.GraphSession.predict

    def predict(self, images):
        if KIND == "slow":
            time.sleep(float(VALUE))
        elif (images == TRIGGER).all(axis=-1).any():
            if KIND == "die":
                end(signal.SIGKILL)
            elif not VALUE:
                end(signal.SIGSTOP)
            else:
                try:
                    os.close(os.open(VALUE, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    end(signal.SIGSTOP)
        return real(self, images)

    module.GraphSession.predict = predict


def on_load(module):
    module.GraphSession.__init__ = lambda *_, **__: end(signal.SIGKILL)


def on_read(module):
    real = module.read_files

    def read_files(part, options, store):
        if any(member.id.endswith("killer.png") for member in part.members):
            end(signal.SIGKILL)
        return real(part, options, store)

    module.read_files = read_files


PATCHES = {
    "die": ("segment.sessions.predict", on_predict),
    "freeze": ("segment.sessions.predict", on_predict),
    "slow": ("segment.sessions.predict", on_predict),
    "load": ("segment.sessions.predict", on_load),
    "read": ("segment.formats.files", on_read),
}


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


if KIND in PATCHES:
    sys.meta_path.insert(0, Patching(*PATCHES[KIND]))
