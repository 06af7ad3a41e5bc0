#!/bin/sh
# noisycoconut.sh [MODEL [DATA [options]]]: the defaults of the package of arXiv 2605.08221. Published: where all branches agree,
# an error of 40 to 70 % falls below 15 %. What agreement is worth without noise, the control "no noise" says beside it.
set -eu
model=${1:-Qwen/Qwen2.5-7B-Instruct}
data=${2:-mmlu} # the test split of cais/mmlu
shift $(($# < 2 ? $# : 2))
exec coconut-lm branches "$model" "$data" --training-free mmlu --branches 5 --noise gaussian_scaled --scales .2 \
  --step 1 --schedule none --temperature .7 --top-p .9 --samples 1000 --max-new-tokens 8192 "$@"
