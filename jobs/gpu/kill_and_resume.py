"""Kill a run in its middle, resume it, and see that nothing is lost or done twice.

python -m jobs.gpu.kill_and_resume FOLDER JSON -- RUN_OPTIONS...

FOLDER holds `images/` and gets the output; the options go to `segment run`.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

_SEGMENT = [sys.executable, "-m", "segment"]


def main() -> int:
    """Run, kill, run, audit."""
    folder, found, options = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4:]
    output = folder / "killed"
    run = [*_SEGMENT, "run", str(folder / "images"), str(output), "--engine", "local", "--part-size", "8", *options]
    committed = _run_until_committed(run, output, parts=3)
    subprocess.run(run, check=True)
    audit = subprocess.run([*_SEGMENT, "audit", str(output), "--deep"], capture_output=True, text=True, check=False)
    parts = len(list(output.glob("masks/*/*.parquet")))
    record = {"committed_when_killed": committed, "parts": parts, "audit": audit.stdout.strip() or audit.stderr.strip()}
    found.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if committed >= parts:
        print("the run had ended before it was killed: more images are needed", file=sys.stderr)
        return 1
    return audit.returncode


def _run_until_committed(command: list[str], output: Path, parts: int) -> int:
    """Start a run, kill its driver when so many parts are committed, and return how many are."""
    running = subprocess.Popen(command)
    while running.poll() is None and len(list(output.glob("masks/*/*.parquet"))) < parts:
        time.sleep(0.01)
    running.kill()
    running.wait()
    return len(list(output.glob("masks/*/*.parquet")))


if __name__ == "__main__":
    sys.exit(main())
