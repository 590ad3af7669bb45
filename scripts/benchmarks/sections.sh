# The sections of benchmarks.sh: what each measures, and on which files. To be
# sourced. A section's function writes raw results to "$dir"; how they are shown
# is in tables.py.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # Variables of benchmarks.sh and models.sh.

# In the order in which the fewest files are on disk at a time.
sections=(machine kernels exact-bf16 device-bf16 sweep decode-bf16 exact-q8
  decode-q8 exact-q4 device-q4 decode-q4 forecast sparse-q4 sparse-bf16 ablation
  quality selectors bound)

declare -A title_of=(
  [machine]="The machine"
  [kernels]="Kernels, beside what the machine could do"
  [exact-bf16]="Budgets, bf16"
  [exact-q8]="Budgets, q8"
  [exact-q4]="Budgets, q4"
  [device-bf16]="Decoding beside bare loops that read the file, bf16"
  [device-q4]="Decoding beside bare loops that read the file, q4"
  [sweep]="Sweeps through the weights beside a bare loop"
  [decode-bf16]="One decode step beside loops that read DRAM, bf16"
  [decode-q8]="One decode step beside loops that read DRAM, q8"
  [decode-q4]="One decode step beside loops that read DRAM, q4"
  [sparse-bf16]="Sparse decoding of a ReLU model, bf16"
  [sparse-q4]="Sparse decoding of a ReLU model, q4"
  [ablation]="What each part of sparse decoding brings"
  [quality]="What quantised weights cost in quality"
  [selectors]="What selectors cost in quality"
  [bound]="The bound on what is left out"
  [forecast]="Forecasts of plan beside what was measured"
)
declare -A files_of=(
  [machine]="sample.f32.felm"
  [kernels]=""
  [exact-bf16]="big.bf16.felm" [device-bf16]="big.bf16.felm"
  [sweep]="big.bf16.felm" [decode-bf16]="big.bf16.felm"
  [exact-q8]="big.q8.felm" [decode-q8]="big.q8.felm"
  [exact-q4]="big.q4.felm" [device-q4]="big.q4.felm" [decode-q4]="big.q4.felm"
  [sparse-q4]="sparse.q4.felm" [sparse-bf16]="sparse.bf16.felm"
  [ablation]="sparse.bf16.felm file-order.felm rows.felm"
  [quality]="sample.f32.felm sample.bf16.felm sample.q8.felm sample.q4.felm"
  [selectors]="gate.felm low-bit.felm low-rank.felm"
  [bound]="sample.bf16.felm"
  [forecast]="big.q4.felm"
)
declare -A minutes_of=()

set_minutes() {
  local name
  for name in "${sections[@]}"; do
    minutes_of[$name]="$1"
    shift
  done
}

set_up_mode() {
  # Of each --mem-budget list: all resident, where RAM has room for that.
  budgets=10%,25%,50%,75%,90%
  step_budgets=50%
  stream_budgets=25%,50%,75%
  sweep_percent=25,50,75
  case "$mode" in
    full)
      shape=3B
      model_name="OpenELM-3B's shapes with random weights"
      big_megabytes=(6080 3230 1760)
      rounds=5
      tokens=6
      min_time=0.5
      stream_rounds=15
      slice_ms=150
      step_time=4
      kernel_filter='Stream|Peak|(Decode|Prompt)/(bf16|q8|q4)/.*(layer:18|head)'
      stream_mib=2048
      calibration=(--max-tokens 512 --mem-budget 3G)
      learning=()
      text_bytes=1000000
      selector_bytes=50000
      fractions=(0.9 0.75 0.5)
      set_minutes 1 8 20 9 5 4 12 3 8 7 3 6 8 12 20 3 20 3
      forecast_budgets=25%,50%,75%,100%
      forecast_rounds=3
      ;;
    quick)
      shape=270M
      model_name="OpenELM-270M's shapes with random weights"
      big_megabytes=(545 290 170)
      budgets=50%,75%
      stream_budgets=50%,75%
      rounds=2
      tokens=4
      min_time=0.05
      stream_rounds=3
      slice_ms=150
      step_time=0.5
      kernel_filter='Stream/(two_streams|prefetch_4k)|Peak|(Decode|Prompt)/(bf16|q4)/(qkv|ffn|down)/layer:18'
      stream_mib=1024
      calibration=(--max-tokens 128)
      learning=(--max-tokens 2048)
      text_bytes=10000
      selector_bytes=4000
      fractions=(0.5)
      set_minutes 0.1 0.2 0.4 0.4 0.2 0.2 0.4 0.2 0.3 0.3 0.2 0.3 0.3 0.4 0.5 \
        0.2 0.4 0.2
      forecast_budgets=50%,100%
      forecast_rounds=1
      ;;
    smoke)
      shape=
      model_name="the sample models, which fit the caches of a processor"
      big_megabytes=(10 10 10)
      budgets=75%
      rounds=2
      tokens=2
      min_time=0.001
      stream_rounds=2
      slice_ms=5
      step_time=0.001
      kernel_filter='Stream/plain|Peak|(Decode|Prompt)/(bf16|q4)/(qkv|ffn|down)/layer:0/'
      stream_mib=64
      calibration=(--max-tokens 64)
      learning=(--max-tokens 400)
      text_bytes=1500
      selector_bytes=600
      fractions=(0.5)
      set_minutes 0.02 0.02 0.02 0.1 0.02 0.02 0.02 0.02 0.02 0.1 0.02 0.02 \
        0.02 0.02 0.05 0.02 0.1 0.02
      forecast_budgets=16M,64M
      forecast_rounds=1
      ;;
  esac
  big_source=big
  relu_source=relu
  if [[ -z "$shape" ]]; then
    big_source="$root/models/tiny-stories"
    relu_source="$root/models/tiny-stories-relu"
  fi
  # A process has code and buffers beside the model; those of a small one more
  # than the model itself.
  if [[ "$mode" == smoke ]]; then
    budgets=16M
    step_budgets=2M
    stream_budgets=3M
    sweep_percent=160
    resident=64M
    sparse_budgets=18M
  elif has_ram "$((big_megabytes[0] * 13 / 10))"; then
    resident=130%
    sparse_budgets=50%,60%
  else
    note "Too little RAM is free for rows with all weights resident; they are" \
      "left out."
    resident=
    sparse_budgets=50%
  fi
  step_budgets+="${resident:+,all}"
}

has_ram() {
  (($(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo) / 1000 > $1))
}

duration() {
  awk -v minutes="$1" 'BEGIN {
    if (minutes < 1) printf "%d s", minutes * 60
    else if (minutes < 90) printf "%d min", minutes + 0.5
    else printf "%.1f h", minutes / 60
  }'
}

total_minutes() {
  local name list=0
  for name in "${to_measure[@]}"; do list="$list + ${minutes_of[$name]}"; done
  awk "BEGIN { print $list }"
}

# A command as a person would type it in the repository's root.
shown() {
  local word line=
  for word in "$@"; do
    word="${word//"$root"\//}"
    if [[ ! "$word" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then word="'$word'"; fi
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# measure FILE COMMAND...: its output goes to FILE in the section's directory.
# Rows of bench that fail say so themselves.
measure() {
  local file="$dir/$1" line
  shift
  line="$(shown "$@")"
  grep -qsxF -- "$line" "$dir/commands" || printf '%s\n' "$line" >>"$dir/commands"
  if "$@" >"$file" 2>>"$log"; then return; fi
  [[ "$1 $2" == "flashelm bench" && -s "$file" ]] ||
    die "failed: $line; see $log"
}

text() { # NAME BYTES: the begin of a text of the tests
  head -c "$2" "$root/tests/data/$1.txt" >"$1.txt"
}

section_machine() {
  measure record.json flashelm bench -m sample.f32.felm -p 0 -n 4 -r 1 -o json
}

section_kernels() {
  measure kernels.json kernel_bench --stream_mib="$stream_mib" \
    --benchmark_filter="$kernel_filter" --benchmark_min_time="$min_time" \
    --benchmark_repetitions="$rounds" \
    --benchmark_enable_random_interleaving=true --benchmark_format=json
}

exact() { # WEIGHTS
  measure rows.json flashelm bench -m "big.$1.felm" \
    --mem-budget "$budgets${resident:+,$resident}" --io uring,pread,mmap \
    --allow-unenforced --cgroup --interleave -r "$rounds" -p 0 -n "$tokens" \
    -c 512 -o json
  measure prompts.json flashelm bench -m "big.$1.felm" \
    --mem-budget "${budgets##*,}${resident:+,$resident}" --interleave \
    -r "$rounds" -p 128 -n 0 -c 512 -o json
}
section_exact_bf16() { exact bf16; }
section_exact_q8() { exact q8; }
section_exact_q4() { exact q4; }

device() { # WEIGHTS
  measure rates.json stream_bench --model "big.$1.felm" \
    --mem-budget "$stream_budgets" --io uring,pread \
    --rounds "$stream_rounds" --slice-ms "$slice_ms" -o json
}
section_device_bf16() { device bf16; }
section_device_q4() { device q4; }

section_sweep() {
  measure sweeps.txt sweep_bench --model=big.bf16.felm \
    --percent="$sweep_percent" --rounds="$rounds"
}

decode() { # WEIGHTS
  measure steps.json decode_bench --model "big.$1.felm" \
    --mem-budget "$step_budgets" --stream-mib "$stream_mib" \
    --benchmark_min_time="$step_time" --benchmark_repetitions="$rounds" \
    --benchmark_format=json
}
section_decode_bf16() { decode bf16; }
section_decode_q8() { decode q8; }
section_decode_q4() { decode q4; }

sparse() { # WEIGHTS
  measure rows.json flashelm bench -m "sparse.$1.felm" \
    --mem-budget "$sparse_budgets" --sparsity off,gate --interleave \
    -r "$rounds" -p 0 -n 0 --pg "16,$((4 * tokens))" -c 256 -o json
}
section_sparse_bf16() { sparse bf16; }
section_sparse_q4() { sparse q4; }

section_ablation() {
  local budget
  for budget in ${sparse_budgets//,/ }; do
    measure "rows-$budget.json" flashelm bench --ablation -m sparse.bf16.felm \
      --rows-model rows.felm --file-order-model file-order.felm \
      --mem-budget "$budget" -p 16 -n "$((4 * tokens))" -r 1 -c 256 -o json
  done
}

section_quality() {
  local name weights
  for name in stories books; do
    text "$name" "$text_bytes"
    echo "head -c $text_bytes tests/data/$name.txt >$name.txt" >>"$dir/commands"
    for weights in bf16 q8 q4; do
      measure "$name-$weights.json" flashelm perplexity \
        -m "sample.$weights.felm" --reference sample.f32.felm -c 512 \
        -f "$name.txt" --json
    done
  done
}

section_selectors() {
  local name fraction selector model
  for name in stories books; do
    text "$name" "$selector_bytes"
    echo "head -c $selector_bytes tests/data/$name.txt >$name.txt" >>"$dir/commands"
    for fraction in "${fractions[@]}"; do
      for selector in gate low-bit low-rank random magnitude; do
        model="$selector.felm"
        # What a file has that was calibrated will do for these.
        if [[ -z "${made_from[$model]:-}" ]]; then model=gate.felm; fi
        measure "$name-$fraction-$selector.json" flashelm perplexity \
          -m "$model" --against dense --sparsity "$selector:$fraction" \
          -f "$name.txt" --json
      done
    done
  done
}

section_bound() {
  local name
  for name in stories books; do
    text "$name" "$text_bytes"
    echo "head -c $text_bytes tests/data/$name.txt >$name.txt" >>"$dir/commands"
    measure "$name.md" error_bound sample.bf16.felm "$name.txt" \
      "${fractions[@]}"
  done
}

section_forecast() {
  measure forecast.txt python3 "$root/scripts/forecast_accuracy.py" \
    --flashelm "$bin/flashelm" -c 128 -n 8 -p 16 \
    --mem-budget "$forecast_budgets" --rounds "$forecast_rounds" big.q4.felm
}
