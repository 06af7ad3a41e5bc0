#!/bin/sh
# branch_test.sh [MODEL [DATA [options]]]: five branches and a majority; scale 0 is the control "no noise". Published: of Mixtral
# none, it did not load; Llama-3.1-8B-Instruct on 431 questions of GSM8K 75.6, 76.3, 76.8, 74.0 % at 0, .2, .5, 1. There all
# branches shared one draw of noise and differed in sampled words alone; here each draws its own.
set -eu
model=${1:-mistralai/Mixtral-8x7B-Instruct-v0.1}
data=${2:-mmlu} # the test split of cais/mmlu
shift $(($# < 2 ? $# : 2))
exec coconut-lm branches "$model" "$data" --training-free mmlu:published --branches 5 --noise gaussian_scaled \
  --scales .2,.5,1 --step 1 --schedule none --temperature .7 --top-p .9 --samples 1000 --max-new-tokens 2056 "$@"
