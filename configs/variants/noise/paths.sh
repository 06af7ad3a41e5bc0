#!/bin/sh
# paths.sh [MODEL [DATA [options]]]: how many branches? Published: the script, no figures. Ten are asked once; the first three, five
# and seven of them vote too.
set -eu
model=${1:-Qwen/Qwen2.5-7B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
exec coconut-lm branches "$model" "$data" --training-free gsm8k:published --branches 3,5,7,10 --noise gaussian_scaled \
  --scales .1 --step 1 --schedule none --temperature .7 --top-p .9 --samples 100 "$@"
