# The model files of benchmarks.sh: how each is made, how long it is needed, and
# what room they all take. To be sourced; all is in the current directory.
# shellcheck shell=bash
# shellcheck disable=SC2154 # Variables of benchmarks.sh.

# What a file is made from; those that are not here, from the repository.
declare -A made_from=(
  [big.bf16.felm]=big [big.q8.felm]=big [big.q4.felm]=big
  [relu.q4.felm]=relu [relu.bf16.felm]=relu [relu-rows.felm]=relu
  [sparse.q4.felm]=relu.q4.felm [sparse.bf16.felm]=relu.bf16.felm
  [file-order.felm]=relu.bf16.felm [rows.felm]=relu-rows.felm
  [gate.felm]=sample.bf16.felm [low-bit.felm]=sample.bf16.felm
  [low-rank.felm]=sample.bf16.felm
)

# Sets `command` to what makes a file; to nothing where the repository has it.
recipe() {
  local file="$1" from="${made_from[$1]:-}" weights
  local text="$root/tests/data/calibration.txt"
  case "$from" in
    big) from="$big_source" ;;
    relu) from="$relu_source" ;;
  esac
  weights="${file#*.}"
  weights="${weights%.felm}"
  command=()
  case "$file" in
    big) [[ -z "$shape" ]] || command=(flashelm synth --shape "$shape" -o big) ;;
    relu)
      [[ -z "$shape" ]] || command=(flashelm synth --shape "$shape"
        --activation relu --active-fraction 0.05 -o relu)
      ;;
    big.*.felm | relu.*.felm)
      command=(flashelm convert "$from" -o "$file" --weights "$weights")
      ;;
    relu-rows.felm)
      command=(flashelm convert "$from" -o "$file" --layout rows)
      ;;
    sample.*.felm)
      command=(flashelm convert "$root/models/tiny-stories" -o "$file"
        --weights "$weights")
      ;;
    *) command=(flashelm calibrate -m "$from" -f "$text" -o "$file") ;;
  esac
  case "$file" in
    sparse.*.felm) command+=("${calibration[@]}") ;;
    file-order.felm | rows.felm) command+=("${calibration[@]}" --order file) ;;
    gate.felm) command+=("${learning[@]}") ;;
    low-bit.felm | low-rank.felm)
      command+=("${learning[@]}" --selector "${file%.felm}")
      ;;
  esac
}

# Megabytes of a file; nothing for those of the sample models, which have few.
megabytes() {
  case "$1" in
    big.q8.felm) echo "${big_megabytes[1]}" ;;
    big.q4.felm | relu.q4.felm | sparse.q4.felm) echo "${big_megabytes[2]}" ;;
    big | relu)
      if [[ -n "$shape" ]]; then echo "${big_megabytes[0]}"; else echo 0; fi
      ;;
    sample.*.felm | gate.felm | low-*.felm) echo 0 ;;
    *) echo "${big_megabytes[0]}" ;;
  esac
}

# With `planned`, files are only counted: those that would be there.
planned=no
declare -A planned_files=()

exists() {
  if [[ "$planned" == yes ]]; then
    [[ -n "${planned_files[$1]:-}" ]]
  else
    # A checkpoint is complete once it has this.
    [[ -f "$1" || -f "$1/config.json" ]]
  fi
}

present_files() {
  local file
  if [[ "$planned" == yes ]]; then
    for file in "${!planned_files[@]}"; do echo "$file"; done
  else
    for file in *.felm big relu; do
      if exists "$file"; then echo "$file"; fi
    done
  fi
}

# Whether to_measure[INDEX] or a later section needs the file, or another file
# that is made from it.
is_needed() {
  local wanted_file="$1" section file
  for section in "${to_measure[@]:$2}"; do
    for file in ${files_of[$section]:-}; do
      while [[ -n "$file" ]]; do
        [[ "$file" != "$wanted_file" ]] || return 0
        if exists "$file"; then break; fi
        file="${made_from[$file]:-}"
      done
    done
  done
  return 1
}

# Removes what no section from to_measure[INDEX] on needs.
drop_files() {
  local file
  for file in $(present_files); do
    if is_needed "$file" "$1"; then continue; fi
    if [[ "$planned" == yes ]]; then
      unset "planned_files[$file]"
    else
      rm -rf "./$file"
    fi
  done
}

# make_file FILE INDEX: with what it is made from, for to_measure[INDEX].
make_file() {
  local file="$1"
  if exists "$file"; then return; fi
  if [[ -n "${made_from[$file]:-}" ]]; then
    make_file "${made_from[$file]}" "$2"
  fi
  if [[ "$planned" == yes ]]; then
    planned_files[$file]=yes
    count_room
  else
    recipe "$file"
    ((${#command[@]})) || return 0
    note "    making $file"
    rm -rf "./$file"
    "${command[@]}" >>"$log" 2>&1 || die "cannot make $file; see $log"
  fi
  drop_files "$2"
}

# The commands that made a file, the first one first.
history_of() {
  if [[ -n "${made_from[$1]:-}" ]]; then history_of "${made_from[$1]}"; fi
  recipe "$1"
  ((${#command[@]} == 0)) || shown "${command[@]}"
}

most_megabytes=0
count_room() {
  local file sum=0
  for file in "${!planned_files[@]}"; do
    sum=$((sum + $(megabytes "$file")))
  done
  if ((sum > most_megabytes)); then most_megabytes=$sum; fi
}

# Refuses to begin where the disk has too little room for the files to come.
check_room() {
  local index file present=0 needed available
  cd "$state/models" || exit
  for file in $(present_files); do
    planned_files[$file]=yes
    present=$((present + $(megabytes "$file")))
  done
  planned=yes
  for index in "${!to_measure[@]}"; do
    for file in ${files_of[${to_measure[$index]}]:-}; do
      make_file "$file" "$index"
    done
    drop_files "$((index + 1))"
  done
  planned=no
  # And a part for what is beside: texts, samples for predictors, results.
  needed=$((most_megabytes - present + most_megabytes / 20 + 512))
  available="$(df --output=avail -B1000000 . | tail -n 1)"
  if ((available < needed)); then
    die "$state has $((available)) MB free, and the model files take up to" \
      "$needed MB at a time; choose another place with --work DIR, fewer" \
      "sections with --section, or --quick"
  fi
}
