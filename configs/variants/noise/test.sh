#!/bin/sh
# test.sh [MODEL [DATA [options]]]: one path, all 8 thoughts shortened until nothing is left of them at scale 1.
# Published: the script, no figures.
set -eu
model=${1:-meta-llama/Llama-3.1-8B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
exec coconut-lm robustness "$model" "$data" --training-free gsm8k:published --noise targeted --direction opposite \
  --scales 0:1:.1 --samples 10 --max-new-tokens 1024 "$@"
