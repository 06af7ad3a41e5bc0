#!/usr/bin/env bash
# The benchmark on one GPU, in less than nine minutes: training steps, answers, memory. That both sides compute
# the same is checked on the device, with each figure.
#
#   benchmarks/gpu.sh                 the JSON of each part goes to $OUT, or else beside this script
#   DEVICE=cpu QUICK=1 benchmarks/gpu.sh     whether it runs at all
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
out=${OUT:-benchmarks}
mkdir -p "$out"

# Nothing is installed where what it needs is there.
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
"$python" -c 'import coconut_lm.train' 2>/dev/null || "$python" -m pip install --quiet -e .

failed=""
part() { # SECTION SECONDS: what was measured when its time is over is kept
  echo "== $1"
  timeout --signal=INT --kill-after=5 "$2" "$python" benchmarks/bench.py --device "$device" \
    ${QUICK:+--quick} --only "$1" --json "$out/bench-$device-$1.json" || failed="$failed $1 ($?)"
}

for each in ${PARTS:-steps answers memory}; do
  case $each in
    steps) part steps 190 ;;
    answers) part answers 190 ;;
    memory) part memory 120 ;;
    *) echo "no part $each: there are steps, answers, memory" >&2; exit 2 ;;
  esac
done

[ -z "$failed" ] || { echo "not done or not the same:$failed" >&2; exit 1; }
