"""Random faults from a seed, run after run: `python -m tests.reliability.soak --minutes 15 --seed 7` (`make soak`).

`--images 100000 --minutes 0` does one run of so many images, whose faults are spread over all of it.

Each run is started as users start it, under faults of the store, SIGKILLs of its driver and of Ray workers, frozen Ray
workers and restarts of the server, and started again until it ends well. Then the oracle of `arena.py`: the audit, the
bytes, the secrets. Frozen workers are woken after that, and the oracle is asked again.
"""

import argparse
import contextlib
import io
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from segment.output.ledger import Ledger
from tests.reliability.arena import IMAGES, QUICK, Arena, make_arena
from tests.reliability.proxy import Action, Fault, FaultProxy
from tests.reliability.servers import PLACES, Restart, restartable
from tests.s3 import S3Server, free_port

MOST_ATTEMPTS = 20
CALM_AFTER = 8  # attempts with faults; then the user's luck turns
BROKE_OFF = (1, -signal.SIGKILL)  # exit codes of a run that the same command resumes
_UP = [place for place, (method, _) in PLACES.items() if method == "PUT"]
_DOWN = [place for place, (method, _) in PLACES.items() if method == "GET"]
_OURS = ["plan read back", "masks read", "stats read"]  # has checksums of its own: a flipped bit is noticed
_WHERE: dict[Action, list[str]] = {
    "status": [*PLACES], "reset_before": [*PLACES], "reset_after": [*PLACES], "stall_before": [*PLACES],
    "half_up": _UP, "flip_up": _UP, "half_down": _DOWN, "stall_down": _DOWN, "flip_down": _OURS,
}  # fmt: skip
_KILLS: list[Action] = ["kill_before", "kill_after"]


@dataclass
class Soak:
    """What is done to whom.

    Attributes:
        arena: the job.
        restart: kills and restarts its server.
        chance: decides everything.
        injected: faults by kind.
        runs, attempts, lost, duplicated: totals.
    """

    arena: Arena
    restart: Restart
    chance: random.Random
    injected: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    attempts: int = 0
    lost: int = 0
    duplicated: int = 0

    def one(self, ray: bool) -> None:
        """Do a run to its good end, whatever it takes, and prove it."""
        output = f"soak-{self.runs:04d}{'-ray' if ray else ''}"
        self.runs += 1
        seen: dict[int, psutil.Process] = {}
        frozen: list[psutil.Process] = []
        try:
            for attempt in range(MOST_ATTEMPTS):
                code, text = self._attempt(output, ray, attempt >= CALM_AFTER, seen, frozen)
                if code == 0:
                    break
                assert code in BROKE_OFF, f"{output} ended with {code}:\n{text[-3000:]}"
            else:
                raise AssertionError(f"{output} did not end well in {MOST_ATTEMPTS} attempts:\n{text[-3000:]}")
            self._count(output)
            self.arena.check(output)
            for process in frozen:
                signalled(process, signal.SIGCONT)
            if frozen:
                time.sleep(3)  # for what they still want to write
                self.arena.check(output)
        finally:
            for process in seen.values():  # of clusters whose driver was killed; what is gone is gone
                signalled(process, signal.SIGKILL)

    def _attempt(
        self, output: str, ray: bool, calm: bool, seen: dict[int, psutil.Process], frozen: list[psutil.Process]
    ) -> tuple[int, str]:
        self.attempts += 1
        quick = f"--storage-option=config_kwargs={json.dumps(QUICK)}"
        flags = [quick, "--engine=ray", "--stall-timeout=10", "--workers=2"] if ray else [quick]
        with FaultProxy(self.arena.server.endpoint) as proxy:
            number = 0 if calm else self.chance.randint(1, 5) * (1 + self._spread // 50)
            planned = [self._fault(ray) for _ in range(number)]
            for _, fault in planned:
                proxy.add(fault)
            process, log = self.arena.start(output, proxy.url, *flags)
            proxy.victim = process.pid
            code = self._watch(process, ray and not calm, seen, frozen)
        for kind, fault in planned:
            self.injected[kind] += fault.injected
        text = log.read_text(errors="replace")
        self.arena.texts[output] = self.arena.texts.get(output, "") + text
        return code, text

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        trouble: bool,
        seen: dict[int, psutil.Process],
        frozen: list[psutil.Process],
    ) -> int:
        """Wait for the end of a run; meanwhile now and then kill or freeze one of its Ray workers."""
        deadline = time.monotonic() + self.arena.patience
        while (code := process.poll()) is None:
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise AssertionError(f"a run did not end within {self.arena.patience:.0f} s")
            time.sleep(0.5)
            workers = []
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
                seen |= {child.pid: child for child in family}
                workers = [child for child in family if is_busy(child)]
            if trouble and workers and self.chance.random() < 0.1:
                victim = self.chance.choice(workers)
                number = self.chance.choice([signal.SIGKILL, signal.SIGSTOP] if is_model(victim) else [signal.SIGKILL])
                if signalled(victim, number):
                    self.injected[f"{number.name} of a Ray worker"] += 1
                    frozen += [victim] if number == signal.SIGSTOP else []
        return code

    def _fault(self, ray: bool) -> tuple[str, Fault]:
        """A fault of any kind, and the name it is counted under."""
        what = self.chance.random()
        if what < 0.15:
            action = self.chance.choice(_KILLS)
            when = "before a request" if action == "kill_before" else "between apply and answer"
            return f"SIGKILL of the driver, {when}", Fault(action, at=self.chance.randint(1, 60 * self._spread))
        if what < 0.2:
            seconds = self.chance.uniform(0.1, 2)
            call: Callable[[], None] = lambda: self.restart(seconds)  # noqa: E731
            return "server killed (-9) and restarted", Fault(
                "call", at=self.chance.randint(1, 40 * self._spread), call=call
            )
        action = self.chance.choice([*_WHERE])
        method, key = PLACES[self.chance.choice(_WHERE[action])]
        code = self.chance.choice(["InternalError", "SlowDown", "SlowDown", "AccessDenied"])
        name = f"store: {code}" if action == "status" else f"store: {action.replace('_', ' ')}"
        times = 1 if action.startswith("stall") or code == "AccessDenied" else self.chance.randint(1, 3)
        skip = self.chance.randint(0, 4 * self._spread)
        return name, Fault(action, method=method, key=key, skip=skip, times=times, code=code)

    @property
    def _spread(self) -> int:
        """How many times as many requests a run makes as one of four parts."""
        return max(1, self.arena.parts // 4)

    def _count(self, output: str) -> None:
        """Count rows against the plan, by nothing but the rows."""
        store, url = self.arena.store(), f"s3://arena-out/{output}"
        plan = Ledger(store, url).read_plan()
        assert plan is not None
        rows: Counter[tuple[str, int]] = Counter()
        for entry in store.list(f"{url}/masks"):
            table = pq.read_table(io.BytesIO(store.read(entry.url)), columns=["shard", "index"])
            rows.update(zip(table["shard"].to_pylist(), table["index"].to_pylist(), strict=True))
        self.lost += plan.images - len(rows)
        self.duplicated += rows.total() - len(rows)


def is_busy(process: psutil.Process) -> bool:
    """Whether it is a Ray worker that does something; those that wait for work are of no interest."""
    with contextlib.suppress(psutil.Error):
        title = process.cmdline()
        return bool(title) and title[0].startswith("ray::") and "IDLE" not in title[0]
    return False


def is_model(process: psutil.Process) -> bool:
    """Whether it holds a model. Ray Data's own helpers are not frozen: it waits for one of them without end.

    Then our watchdog ends the run after 20 minutes without progress, and the same command resumes it.
    """
    with contextlib.suppress(psutil.Error):
        return "MapWorker" in process.cmdline()[0]
    return False


def signalled(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal to this very process, not to one that has its number now; whether it was there."""
    try:
        process.send_signal(number)
    except psutil.Error:
        return False
    return True


def soak(minutes: float, seed: int, folder: Path, images: int = IMAGES) -> Soak:
    """Do runs until the time is over; a quarter of them on Ray."""
    deadline = time.monotonic() + 60 * minutes
    like = S3Server(f"http://127.0.0.1:{free_port()}", "SOAKKEY", "soak-secret-value", folder)
    with restartable(folder / "s3", like) as (server, restart):
        (folder / "arena").mkdir()
        all_of_it = Soak(make_arena(folder / "arena", server, images), restart, random.Random(seed))
        while not all_of_it.runs or time.monotonic() < deadline:
            all_of_it.one(ray=all_of_it.runs % 4 == 1)
    return all_of_it


def main() -> int:
    """Soak and tell; exit code 1 if anything was lost, doubled, different or hanging."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--images", type=int, default=IMAGES, help="of each run")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        done = soak(given.minutes, given.seed, Path(folder), given.images)
    for kind, number in sorted(done.injected.items()):
        if number:
            print(f"{number:6} {kind}")
    print(
        f"{done.injected.total()} faults in {done.runs} runs, {done.attempts} attempts; all completed, all bytes equal"
    )
    print(f"lost {done.lost}, duplicated {done.duplicated}")
    return 1 if done.lost or done.duplicated else 0


if __name__ == "__main__":
    sys.exit(main())
