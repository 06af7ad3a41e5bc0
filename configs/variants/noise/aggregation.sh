#!/bin/sh
# aggregation.sh [MODEL [DATA [options]]]: how are votes counted? All ways are counted each time. Published: 77 % by each of three.
# There a branch's number set its noise weight and confidence was the square of a count; here it is the noise that the branch
# had, and the probability of its text.
set -eu
model=${1:-Qwen/Qwen2.5-7B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
exec coconut-lm branches "$model" "$data" --training-free gsm8k:published --branches 5 --noise gaussian_scaled \
  --scales .1 --step 1 --schedule none --temperature .7 --top-p .9 --samples 100 "$@"
