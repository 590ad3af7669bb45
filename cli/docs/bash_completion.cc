#include "cli/docs/completion.h"

namespace flashelm::cli {
namespace {

// Words of the command line are compared with patterns that begin with the
// verb: 'flashelm run --io'. A flag may be written --io=VALUE, too, which
// arrives as three words.
constexpr char kHead[] = R"(_flashelm() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  if [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD - 2]}
  elif [[ $cur == = ]]; then
    cur=
  fi
  COMPREPLY=()

  local verb=flashelm i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$verb ${COMP_WORDS[i]}" in
)";

constexpr char kFunctions[] = R"(_flashelm_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

# Outside of completion, as in a test, there are no options to set.
_flashelm_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$cur")
}

_flashelm_directories() {
  compopt -o filenames 2>/dev/null
  mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$cur")
}

)";

std::vector<std::string> SubverbNames(const VerbInfo& verb) {
  std::vector<std::string> names;
  for (const VerbInfo& sub : verb.verbs) names.push_back(sub.words.back());
  return names;
}

void AddVerbPatterns(const VerbInfo& verb, std::vector<std::string>* out) {
  for (const VerbInfo& sub : verb.verbs) {
    out->push_back("'" + Join(sub.words, " ") + "'");
    AddVerbPatterns(sub, out);
  }
}

// Commands that offer a value of `flag`.
std::string OfferValue(const FlagInfo& flag) {
  std::string out;
  if (!flag.choices.empty()) {
    out += "_flashelm_words '" + Join(flag.choices, " ") + "'; ";
  }
  if (flag.kind == ValueKind::kFile) out += "_flashelm_files; ";
  if (flag.kind == ValueKind::kDirectory) out += "_flashelm_directories; ";
  return out;
}

std::string ValueCases(const VerbInfo& verb) {
  std::string out;
  for (const FlagInfo& flag : verb.flags) {
    if (flag.is_positional || flag.value.empty()) continue;
    std::vector<std::string> patterns;
    for (const std::string& name : flag.names) {
      patterns.push_back("'" + Join(verb.words, " ") + " " + name + "'");
    }
    out += "    " + Join(patterns, " | ") + ") " + OfferValue(flag) +
           "return ;;\n";
  }
  for (const VerbInfo& sub : verb.verbs) out += ValueCases(sub);
  return out;
}

// Flags where a word begins with "-"; else verbs, or what stands by itself.
std::string WordCases(const VerbInfo& verb) {
  std::vector<std::string> flags;
  std::string positional;
  for (const FlagInfo& flag : verb.flags) {
    if (flag.is_positional) {
      positional += OfferValue(flag);
    } else {
      flags.insert(flags.end(), flag.names.begin(), flag.names.end());
    }
  }
  std::string out = "    '" + Join(verb.words, " ") +
                    "')\n      if [[ $cur == -* ]]; then _flashelm_words '" +
                    Join(flags, " ") + "'\n";
  if (!verb.verbs.empty()) {
    // A verb stands right behind the one above it.
    out += "      elif ((i == COMP_CWORD)); then _flashelm_words '" +
           Join(SubverbNames(verb), " ") + "'\n";
  }
  if (!positional.empty()) out += "      else " + positional + "\n";
  out += "      fi ;;\n";
  for (const VerbInfo& sub : verb.verbs) out += WordCases(sub);
  return out;
}

}  // namespace

std::string BashCompletion(const VerbInfo& command) {
  std::vector<std::string> verbs;
  AddVerbPatterns(command, &verbs);
  std::string out = "# bash completion of flashelm; made by its build.\n\n";
  out += kFunctions;
  out += kHead;
  out += "      " + Join(verbs, " | \\\n        ") +
         ")\n        verb+=\" ${COMP_WORDS[i]}\" ;;\n"
         "      *) break ;;\n    esac\n  done\n\n";
  out += "  case \"$verb $prev\" in\n" + ValueCases(command) + "  esac\n";
  out += "  case $verb in\n" + WordCases(command) + "  esac\n}\n\n";
  return out + "complete -F _flashelm flashelm\n";
}

}  // namespace flashelm::cli
