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
