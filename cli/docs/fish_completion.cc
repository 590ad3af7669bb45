#include "cli/docs/completion.h"

namespace flashelm::cli {
namespace {

std::string Quote(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

// "bench io": without the command's own name.
std::string VerbName(const VerbInfo& verb) {
  return Join({verb.words.begin() + 1, verb.words.end()}, " ");
}

void AddVerbNames(const VerbInfo& verb, std::vector<std::string>* out) {
  for (const VerbInfo& sub : verb.verbs) {
    // As joining words gives it there, from an empty one on.
    out->push_back(Quote(" " + VerbName(sub)));
    AddVerbNames(sub, out);
  }
}

std::string FishValue(const FlagInfo& flag) {
  if (flag.value.empty()) return "";
  // -r: takes a value; -F: files are one; -f: they are not.
  std::string out = flag.kind == ValueKind::kText ? " -r -f" : " -r -F";
  if (flag.kind == ValueKind::kDirectory) {
    out = " -r -f -a '(__fish_complete_directories)'";
  }
  if (!flag.choices.empty()) out += " -a " + Quote(Join(flag.choices, " "));
  return out;
}

std::string Line(const FlagInfo& flag, const std::string& condition) {
  std::string out = "complete -c flashelm -n " + condition;
  if (flag.is_positional) {
    return out +
           (flag.kind == ValueKind::kDirectory
                ? " -a '(__fish_complete_directories)'"
                : " -F") +
           "\n";
  }
  for (const std::string& name : flag.names) {
    const bool is_long = name.compare(0, 2, "--") == 0;
    out += is_long ? " -l " + name.substr(2) : " -s " + name.substr(1);
  }
  return out + FishValue(flag) + " -d " + Quote(Summary(flag.description)) +
         "\n";
}

std::string Lines(const VerbInfo& verb) {
  const std::string name = VerbName(verb);
  const std::string condition = Quote("__flashelm_at " + name);
  std::string out = "\n# " + Join(verb.words, " ") + "\n";
  for (const VerbInfo& sub : verb.verbs) {
    // A verb stands right behind the one above it.
    out += "complete -c flashelm -n " +
           Quote("__flashelm_right_after " + name) + " -a " + sub.words.back() +
           " -d " + Quote(Summary(sub.description)) + "\n";
  }
  for (const FlagInfo& flag : verb.flags) out += Line(flag, condition);
  for (const VerbInfo& sub : verb.verbs) out += Lines(sub);
  return out;
}

}  // namespace

std::string FishCompletion(const VerbInfo& command) {
  std::vector<std::string> verbs;
  AddVerbNames(command, &verbs);
  std::string out = "# fish completion of flashelm; made by its build.\n\n";
  out +=
      "# The verb that the words before the cursor begin with.\n"
      "function __flashelm_verb\n"
      "  set -l verb\n"
      "  set -l words (commandline -opc)\n"
      "  set -e words[1]\n"
      "  for word in $words\n"
      "    contains -- \"$verb $word\" " +
      Join(verbs, " ") +
      "; or break\n"
      "    set verb \"$verb $word\"\n"
      "  end\n"
      "  string trim -- \"$verb\"\n"
      "end\n\n";
  out +=
      "function __flashelm_at\n"
      "  test (__flashelm_verb) = \"$argv\"\n"
      "end\n\n"
      "function __flashelm_right_after\n"
      "  set -l words (commandline -opc)\n"
      "  set -e words[1]\n"
      "  test \"$words\" = \"$argv\"\n"
      "end\n\n"
      "complete -c flashelm -f\n";
  return out + Lines(command);
}

}  // namespace flashelm::cli
