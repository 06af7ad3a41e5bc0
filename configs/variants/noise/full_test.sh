#!/bin/sh
# full_test.sh [MODEL [DATA [options]]]: noise on all of 8 thoughts. Published: the script, no figures.
set -eu
model=${1:-Qwen/Qwen2.5-7B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
exec coconut-lm robustness "$model" "$data" --training-free gsm8k:published --noise gaussian_scaled \
  --scales 0,1,2,5,10 --samples 100 "$@"
