#!/bin/sh
# quick_test.sh [MODEL [DATA [options]]]: noise on the first of 8 thoughts alone, up to 50 times as long as it is.
# Published: none. Of gpt-oss all 3,200 answers were errors; Llama-3.1-8B-Instruct fell from 75.3 % to 38.8 % at these
# scales (85 questions each). Thoughts are made of layer 1 as there; --layer -1 makes them of the last one.
set -eu
model=${1:-openai/gpt-oss-20b}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
exec coconut-lm robustness "$model" "$data" --training-free gsm8k:published --noise gaussian_scaled \
  --scales 0,.5,1,2,3,5,7.5,10,15,20,30,50 --where first --layer 1 --samples 25 --max-new-tokens 512 "$@"
