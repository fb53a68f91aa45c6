#!/usr/bin/env bash
# Tries all that needs a GPU, in at most eight minutes with the installation: providers, images a second by batch, whole
# jobs, agreement with f32 on the CPU, kill and resume. Run it in the repository:
#
#   jobs/gpu_check.sh OUT                    # installs from the package index into OUT/venv
#   jobs/gpu_check.sh OUT --wheels FOLDER    # a machine without network: wheels go beside what PYTHON has
#   jobs/gpu_check.sh OUT --installed        # PYTHON has everything
#   jobs/gpu_check.sh OUT ... --dry-run      # every step on the CPU with few images: measures no GPU
#
# PYTHON is the interpreter (python3). OUT/gpu_check.json and OUT/gpu_check.md are complete after every step, so whatever
# stops the script, what was found is kept. Exit code 0 if every step did what it should.
set -euo pipefail

limit=480
python=${PYTHON:-python3}
repository=$(cd "$(dirname "$0")/.." && pwd)
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

out=${1:-}
case $out in "" | -*) usage ;; esac
shift
from=index wheels= dry=()
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) from=wheels wheels=$(cd "${2:?--wheels needs a folder}" && pwd); shift ;;
        --installed) from=nowhere ;;
        --dry-run) dry=(--dry-run) ;;
        *) usage ;;
    esac
    shift
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$repository"
export PYTHONPATH=$repository PYTHONUNBUFFERED=1

case $from in
    index)
        # The GPU build of onnxruntime replaces the CPU build: see jobs/cuda-overrides.txt.
        version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' requirements.lock)
        "$python" -m venv "$out/venv"
        python=$out/venv/bin/python
        "$python" -m pip install --quiet uv
        timeout "$limit" "$python" -m uv pip install --quiet --python "$python" --constraint requirements.lock \
            --override jobs/cuda-overrides.txt . pytest pytest-timeout pytest-xdist hypothesis \
            "onnxruntime-gpu[cuda,cudnn]==$version"
        ;;
    wheels)
        "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$out/site" "$wheels"/*.whl
        export PYTHONPATH=$repository:$out/site
        ;;
esac
timeout --kill-after=5 "$((limit - SECONDS))" "$python" -m jobs.gpu.check "$out" --seconds "$((limit - SECONDS - 15))" "${dry[@]}"
