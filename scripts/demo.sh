#!/usr/bin/env bash
# Builds FlashELM and lets a small OpenELM model write a story, in less memory
# than the model has. Run it from anywhere; takes no arguments.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

budget=12M
model=build/demo/tiny-stories.felm
flashelm=build/release/bin/flashelm

scripts/install-packages.sh build

# A tree that test.sh has configured keeps its tests; a new one gets none, so
# that the demo does not need what only tests do.
tests=OFF
if has_tests release; then tests=ON; fi
say "Building build/release (a few minutes the first time)"
build release "$tests" flashelm_cli

say "Converting models/tiny-stories to $model"
mkdir -p build/demo
"$flashelm" convert models/tiny-stories -o "$model" --weights f32

say "What the file holds: flashelm inspect -m $model"
"$flashelm" inspect -m "$model"

prompt="Once upon a time, there was a little girl named Lily. She liked to"
# Stacks of threads and room for positions count against the budget, too.
options=(--temp 0 --repeat-penalty 1.1 -n 220 -t 2 -c 256)
say "A story in $budget: flashelm run -m $model --mem-budget $budget" \
  "${options[*]} --echo -p \"$prompt\""
"$flashelm" run -m "$model" --mem-budget "$budget" "${options[@]}" \
  --echo -p "$prompt" 2>&1

# Where most neurons of an FFN are inactive, only the others need to be read.
relu=build/demo/tiny-stories-relu.felm
sparse=build/demo/tiny-stories-relu.sparse.felm
budget=17M
say "A ReLU model that reads only the neurons it needs: flashelm calibrate" \
  "-m $relu -f tests/data/calibration.txt -o $sparse"
"$flashelm" convert models/tiny-stories-relu -o "$relu"
"$flashelm" calibrate -m "$relu" -f tests/data/calibration.txt -o "$sparse"
head -c 20000 tests/data/stories.txt >build/demo/text.txt

# value KEY FILE: the number of a key that stands on a line of its own.
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$2"; }

# measure NAME FLAGS...: runs the model, with its --stats in build/demo/NAME.json
# and its perplexity in build/demo/NAME.ppl.json.
measure() {
  local name="$1"
  shift
  rm -f "build/demo/$name.json"
  "$flashelm" run -m "$sparse" --mem-budget "$budget" --temp 0 -n 120 -t 2 \
    -c 128 -b 16 --ignore-eos -p "$prompt" --stats "build/demo/$name.json" \
    "$@" >/dev/null 2>&1
  "$flashelm" perplexity -m "$sparse" -f build/demo/text.txt --json "$@" \
    >"build/demo/$name.ppl.json"
}
measure exact --sparsity off
# The neurons of so small a model have 1 KiB each, which a fast device streams as
# soon as it reads some of them; how many bytes the others spare shows one by one.
measure gate --sparsity gate --neuron-reads single
awk -v budget="$budget" \
  -v exact="$(value flash_bytes_per_token build/demo/exact.json)" \
  -v gate="$(value flash_bytes_per_token build/demo/gate.json)" \
  -v kept="$(value kept_fraction build/demo/gate.json)" \
  -v hits="$(value cache_hit_rate build/demo/gate.json)" \
  -v exact_ppl="$(value perplexity build/demo/exact.ppl.json)" \
  -v gate_ppl="$(value perplexity build/demo/gate.ppl.json)" 'BEGIN {
    printf "In %s, from flash per token: exact %.0f KiB, sparse %.0f KiB " \
      "(%.1f %% of the neurons, %.0f %% of those from RAM); " \
      "perplexity exact %.4f, sparse %.4f\n",
      budget, exact / 1024, gate / 1024, 100 * kept, 100 * hits,
      exact_ppl, gate_ppl
  }'
