#!/bin/sh
# noise_types.sh [MODEL [DATA [options]]]: which kind of noise? Published: gaussian_scaled 75, uniform 77, orthogonal 72 of 100.
# The fourth kind, "structured", was never written: all its 100 answers are errors. In its place dropout.
set -eu
model=${1:-Qwen/Qwen2.5-7B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
for kind in gaussian_scaled uniform orthogonal dropout; do
  coconut-lm branches "$model" "$data" --training-free gsm8k:published --branches 5 --noise "$kind" --scales .1 \
    --step 1 --schedule none --temperature .7 --top-p .9 --samples 100 "$@"
done
