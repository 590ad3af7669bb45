#!/usr/bin/env bash
# Measures what docs/BENCHMARKS.md has between its markers, and writes it there.
#
#   scripts/benchmarks.sh                    all of it: hours, on a quiet machine
#   scripts/benchmarks.sh --quick            minutes: smaller models, fewer
#                                            rounds; Markdown on standard output
#   scripts/benchmarks.sh --section kernels,exact-q4
#
#   --quick           OpenELM-270M instead of 3B, and few rounds
#   --smoke           the sample models alone, seconds: that all of it runs
#   --section LIST    these sections alone; names with commas; --list has them
#   --list            the sections, what they need, and how long they take
#   -o FILE           Markdown to FILE, raw results beside it as FILE.json;
#                     otherwise to --document or, with --quick and --smoke, to
#                     standard output
#   --document FILE   put each section between its markers in FILE; what is
#                     outside of them stays [docs/BENCHMARKS.md]
#   --work DIR        where model files and results go [build/benchmarks]
#   --bin DIR         programs that are built already; otherwise build/release
#                     is built first, which is not part of the minutes
#   --again           measure anew what this commit has measured already
#
# A run that was stopped goes on with the sections that are missing. Model files
# are made one by one, and removed when no section needs them any more. Needs no
# network once packages are installed. Progress goes to standard error.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
called_from="$PWD"
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$root/scripts/common.sh"
# shellcheck source-path=SCRIPTDIR source=benchmarks/models.sh
source scripts/benchmarks/models.sh
# shellcheck source-path=SCRIPTDIR source=benchmarks/sections.sh
source scripts/benchmarks/sections.sh

tables() { python3 "$root/scripts/benchmarks/tables.py" "$@"; }
note() { printf '%s\n' "$*" >&2; }
die() {
  note "benchmarks.sh: $*"
  exit 1
}
usage() {
  note "benchmarks.sh: $*; see scripts/benchmarks.sh --help"
  exit 2
}
absolute() {
  if [[ "$1" == /* ]]; then printf '%s' "$1"; else
    printf '%s/%s' "$called_from" "$1"
  fi
}

mode=full
output=
document=
work="$root/build/benchmarks"
bin=
again=no
wanted=()
list=no
while (($#)); do
  case "$1" in
    --quick) mode=quick ;;
    --smoke) mode=smoke ;;
    --again) again=yes ;;
    --list) list=yes ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --section | -o | --document | --work | --bin)
      if (($# < 2)) || [[ -z "$2" ]]; then usage "$1 needs a value"; fi
      case "$1" in
        --section) IFS=, read -r -a wanted <<<"$2" ;;
        -o) output="$(absolute "$2")" ;;
        --document) document="$(absolute "$2")" ;;
        --work) work="$(absolute "$2")" ;;
        --bin) bin="$(absolute "$2")" ;;
      esac
      shift
      ;;
    *) usage "there is no \"$1\"" ;;
  esac
  shift
done
[[ -z "$output" || -z "$document" ]] || usage "-o and --document exclude each other"
if [[ -z "$output$document" && "$mode" == full ]]; then
  document="$root/docs/BENCHMARKS.md"
fi
set_up_mode
if ((${#wanted[@]})); then
  for name in "${wanted[@]}"; do
    [[ -n "${title_of[$name]:-}" ]] || usage "there is no section \"$name\""
  done
  selected=()
  # In the order in which files are made.
  for name in "${sections[@]}"; do
    for other in "${wanted[@]}"; do
      if [[ "$name" == "$other" ]]; then selected+=("$name"); fi
    done
  done
  sections=("${selected[@]}")
fi
if [[ "$list" == yes ]]; then
  for name in "${sections[@]}"; do
    printf '%-12s %-9s %s%s\n' "$name" "$(duration "${minutes_of[$name]}")" \
      "${title_of[$name]}" "${files_of[$name]:+; on ${files_of[$name]}}"
  done
  exit 0
fi

if [[ -z "$bin" ]]; then
  scripts/install-packages.sh test >&2
  note "Building build/release"
  build release ON flashelm_cli kernel_bench stream_bench sweep_bench \
    decode_bench error_bound >&2
  bin="$root/build/release/bin"
fi
for program in flashelm kernel_bench stream_bench sweep_bench decode_bench \
  error_bound; do
  [[ -x "$bin/$program" ]] || die "$bin has no $program"
done
PATH="$bin:$PATH"

commit="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
# What is written there changes nothing that is measured.
git diff --quiet HEAD -- . ':(exclude)docs' 2>/dev/null || commit+=-dirty
state="$work/$mode-$commit"
mkdir -p "$state/models" "$state/sections"
log="$state/log"

to_measure=()
for name in "${sections[@]}"; do
  if [[ "$again" == yes ]]; then rm -rf "${state:?}/sections/$name"; fi
  if [[ ! -e "$state/sections/$name/done" ]]; then to_measure+=("$name"); fi
done
check_room
note "$mode: ${#to_measure[@]} of ${#sections[@]} sections to measure, about" \
  "$(duration "$(total_minutes)"); for figures that repeat, let nothing else run"
if [[ "$mode" != full ]]; then
  note "These are figures of ${model_name}, in few rounds: they show that all" \
    "works, and are no measurement of 3B."
fi

cd "$state/models"
step=0
for name in "${to_measure[@]}"; do
  step=$((step + 1))
  note "[$step/${#to_measure[@]}] $name: ${title_of[$name]}, about" \
    "$(duration "${minutes_of[$name]}")"
  dir="$state/sections/$name"
  rm -rf "$dir"
  mkdir -p "$dir"
  for file in ${files_of[$name]:-}; do make_file "$file" "$((step - 1))"; done
  tables begin "$mode" "$commit" "$model_name" "${title_of[$name]}" \
    >"$dir/meta.json"
  for file in ${files_of[$name]:-}; do history_of "$file"; done |
    awk '!seen[$0]++' >"$dir/commands"
  "section_${name//-/_}"
  # What cannot be shown was not measured.
  tables section "$name" "$dir" >"$dir/section.md" ||
    die "$name: what was measured cannot be shown; it is in $dir"
  touch "$dir/done"
  drop_files "$step"
done
cd "$root"

done_sections=()
for name in "${sections[@]}"; do done_sections+=("$state/sections/$name"); done
if [[ -n "$document" ]]; then
  tables insert "$document" "${done_sections[@]}"
  note "Written: $document and ${document%.md}.json"
elif [[ -n "$output" ]]; then
  tables write "$output" "${done_sections[@]}"
  note "Written: $output and ${output%.md}.json"
else
  tables write - "${done_sections[@]}"
  note "Raw results are in $state/sections"
fi
