#include "cli/docs/completion.h"

namespace flashelm::cli {
namespace {

// For a part of an _arguments specification inside single quotes.
std::string EscapeZsh(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
      continue;
    }
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// ":FILE:_files"; empty where there is no value.
std::string ZshValue(const FlagInfo& flag) {
  if (flag.value.empty()) return "";
  std::string action = " ";  // A value that nothing is known of.
  const std::string words = Join(flag.choices, " ");
  if (flag.kind == ValueKind::kDirectory) {
    action = "_files -/";
  } else if (flag.kind == ValueKind::kFile) {
    action = words.empty() ? "_files"
                           : "_alternative \"words:word:(" + words +
                                 ")\" \"files:file:_files\"";
  } else if (!words.empty()) {
    action = "(" + words + ")";
  }
  return ":" + EscapeZsh(flag.value) + ":" + action;
}

std::string Specification(const FlagInfo& flag) {
  if (flag.is_positional) return "'1" + ZshValue(flag) + "'";
  const std::string rest =
      "'[" + EscapeZsh(Summary(flag.description)) + "]" + ZshValue(flag) + "'";
  const std::string names = flag.names.size() == 1
                                ? flag.names.front()
                                : "{" + Join(flag.names, ",") + "}";
  if (flag.is_repeatable) return "'*'" + names + rest;
  // Once is enough, under either name.
  return "'(" + Join(flag.names, " ") + ")'" + names + rest;
}

std::string FunctionName(const VerbInfo& verb) {
  return "_" + Join(verb.words, "_");
}

// A verb's words are $words; its own name is the first.
std::string Function(const VerbInfo& verb) {
  std::string out;
  for (const VerbInfo& sub : verb.verbs) out += Function(sub);
  out += FunctionName(verb) + "() {\n";
  if (!verb.verbs.empty()) {
    out += "  if ((CURRENT > 2)); then\n    case $words[2] in\n";
    for (const VerbInfo& sub : verb.verbs) {
      out += "      " + sub.words.back() + ") shift words; ((CURRENT--)); " +
             FunctionName(sub) + "; return ;;\n";
    }
    out +=
        "    esac\n  elif [[ $words[2] != -* ]]; then\n    local -a verbs=(\n";
    for (const VerbInfo& sub : verb.verbs) {
      out += "      '" + sub.words.back() + ":" +
             EscapeZsh(Summary(sub.description)) + "'\n";
    }
    out += "    )\n    _describe verb verbs\n    return\n  fi\n";
  }
  out += "  _arguments -s -S";
  for (const FlagInfo& flag : verb.flags) {
    out += " \\\n    " + Specification(flag);
  }
  return out + "\n}\n\n";
}

}  // namespace

std::string ZshCompletion(const VerbInfo& command) {
  return "#compdef flashelm\n# zsh completion of flashelm; made by its "
         "build.\n\n" +
         Function(command) + FunctionName(command) + " \"$@\"\n";
}

}  // namespace flashelm::cli
