#!/bin/sh
# noisy_experiment.sh [MODEL [DATA [options]]]: the long sweep for a curve of decay, 17 scales from 0 to 3 (evenly here), with the
# plain prompt "Question: ... Answer:". Published: the script, no figures; the first digits of a text were its answer there,
# so that 70,000 was 70. Here it is the number that the text ends with.
set -eu
model=${1:-meta-llama/Llama-3.1-8B-Instruct}
data=${2:-gsm8k} # the test split of openai/gsm8k
shift $(($# < 2 ? $# : 2))
exec coconut-lm robustness "$model" "$data" --training-free gsm8k:raw --noise gaussian_scaled \
  --scales 0:3:.1875 --samples 900 --max-new-tokens 512 "$@"
