#!/bin/sh
# steps.sh [MODEL [DATA [options]]]: at which thought do branches part? Published: the script, no figures.
set -eu
model=${1:-Qwen/Qwen2.5-7B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
for step in 1 2 3 4; do
  coconut-lm branches "$model" "$data" --training-free gsm8k:published --branches 5 --noise gaussian_scaled --scales .2 \
    --step "$step" --schedule none --temperature .7 --top-p .9 --samples 100 "$@"
done
