#include "cli/docs/man_page.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace flashelm::cli {
namespace {

// So that it is printed as it is, and can be copied: a hyphen or a quote alone
// would become a typographic one, and a line's first dot a request.
std::string Escape(const std::string& text) {
  std::string out;
  bool at_line_start = true;
  for (const char c : text) {
    if (at_line_start && (c == '.' || c == '\'')) out += "\\&";
    at_line_start = c == '\n';
    switch (c) {
      case '\\':
        out += "\\e";
        break;
      case '-':
        out += "\\-";
        break;
      case '\'':
        out += "\\(aq";
        break;
      case '`':
        out += "\\(ga";
        break;
      case '^':
        out += "\\(ha";
        break;
      case '~':
        out += "\\(ti";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Bold(const std::string& text) {
  return "\\fB" + Escape(text) + "\\fR";
}

std::string Italic(const std::string& text) {
  return "\\fI" + Escape(text) + "\\fR";
}

std::string BoldList(const std::vector<std::string>& words) {
  std::vector<std::string> bold;
  for (const std::string& word : words) bold.push_back(Bold(word));
  return Join(bold, ", ");
}

std::string Upper(std::string text) {
  for (char& c : text) {
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return text;
}

// With a line's end instead of a space where lines would become long.
std::string Wrap(std::string text) {
  constexpr size_t kMaxLine = 60;  // Escaped, it is a little longer.
  size_t line = 0;
  size_t space = std::string::npos;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') continue;
    if (i - line > kMaxLine && space != std::string::npos) {
      text[space] = '\n';
      line = space + 1;
    }
    space = i;
  }
  return text;
}

std::string Sentence(std::string text) {
  if (!text.empty() && text.back() != '.') text += '.';
  return Escape(Wrap(std::move(text)));
}

// "Generate text" to "generate text"; names as "FlashELM" stay.
std::string LowerFirst(std::string text) {
  if (text.size() > 1 && std::islower(static_cast<unsigned char>(text[1])) &&
      text.find("ELM") > text.find(' ')) {
    text[0] =
        static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  if (!text.empty() && text.back() == '.') text.pop_back();
  return text;
}

std::string Value(const FlagInfo& flag) {
  return flag.choices.empty() ? Italic(flag.value) : Escape(flag.value);
}

std::string FlagEntry(const FlagInfo& flag) {
  std::string out = ".TP\n";
  if (flag.is_positional) {
    out += Italic(flag.names.front());
  } else {
    out += BoldList(flag.names);
    if (!flag.value.empty()) out += " " + Value(flag);
  }
  out += "\n" + Sentence(flag.description) + "\n";
  if (flag.is_closed) out += "One of " + BoldList(flag.choices) + ".\n";
  if (flag.is_required) out += "Required.\n";
  if (!flag.default_value.empty()) {
    out += "Default: " + Bold(flag.default_value) + ".\n";
  }
  if (!flag.needs.empty()) out += "Needs " + BoldList(flag.needs) + ".\n";
  if (!flag.excludes.empty()) {
    out += "Not with " + BoldList(flag.excludes) + ".\n";
  }
  return out;
}

std::string Options(const VerbInfo& verb) {
  std::string out = ".SH OPTIONS\n";
  std::vector<std::string> groups;
  for (const FlagInfo& flag : verb.flags) {
    if (flag.group != "Options" &&
        std::find(groups.begin(), groups.end(), flag.group) == groups.end()) {
      groups.push_back(flag.group);
    }
  }
  for (const bool is_positional : {true, false}) {
    for (const FlagInfo& flag : verb.flags) {
      if (flag.group == "Options" && flag.is_positional == is_positional) {
        out += FlagEntry(flag);
      }
    }
  }
  for (const std::string& group : groups) {
    out += ".SS " + Escape(group) + "\n";
    for (const FlagInfo& flag : verb.flags) {
      if (flag.group == group) out += FlagEntry(flag);
    }
  }
  return out;
}

std::string Synopsis(const VerbInfo& verb) {
  const std::string name = Bold(Join(verb.words, " "));
  std::string out = ".SH SYNOPSIS\n";
  const bool is_command = verb.words.size() == 1;
  if (!is_command) {
    out += name + " [" + Italic("OPTION") + "]...";
    for (const FlagInfo& flag : verb.flags) {
      if (!flag.is_required) continue;
      out += " ";
      if (!flag.is_positional) out += Bold(flag.names.front()) + " ";
      out += Value(flag);
    }
    out += "\n";
    if (!verb.verbs.empty()) out += ".br\n";
  }
  if (!verb.verbs.empty()) {
    out += name + " " + Italic("VERB") + " [" + Italic("OPTION") + "]...\n";
  }
  if (is_command) {
    for (const FlagInfo& flag : verb.flags) {
      out += ".br\n" + name + " " + Bold(flag.names.back()) + "\n";
    }
  }
  return out;
}

std::string Description(const VerbInfo& verb) {
  std::string out = ".SH DESCRIPTION\n" + Sentence(verb.description) + "\n";
  for (const VerbInfo& sub : verb.verbs) {
    out += ".TP\n" + Bold(Join(sub.words, " ")) + "\n" +
           Sentence(sub.description) + "\n";
  }
  out +=
      ".PP\nAn unknown flag, or a value that cannot be honoured, is an error.\n"
      "Results go to standard output; progress, notes and errors to standard "
      "error.\n";
  return out;
}

bool TakesSize(const VerbInfo& verb) {
  for (const FlagInfo& flag : verb.flags) {
    if (flag.value.compare(0, 4, "SIZE") == 0) return true;
  }
  return false;
}

void AddReferences(const VerbInfo& verb, const VerbInfo& except,
                   std::vector<std::string>* out) {
  if (verb.words != except.words) out->push_back(Bold(PageName(verb)) + "(1)");
  for (const VerbInfo& sub : verb.verbs) AddReferences(sub, except, out);
}

}  // namespace

std::string PageName(const VerbInfo& verb) { return Join(verb.words, "-"); }

std::string ManPage(const VerbInfo& verb, const VerbInfo& command,
                    const FooterInfo& footer, const std::string& version) {
  // No date: the same sources give the same page.
  std::string out = ".TH " + Escape(Upper(PageName(verb))) + " 1 \"\" \"" +
                    Escape(version) + "\" \"User Commands\"\n";
  out += ".SH NAME\n" + Escape(PageName(verb)) + " \\- " +
         Escape(LowerFirst(verb.description)) + "\n";
  out += Synopsis(verb) + Description(verb) + Options(verb);
  if (&verb == &command || TakesSize(verb)) {
    out += ".SH SIZES\n" + Upper(footer.sizes.substr(0, 1)) +
           Sentence(footer.sizes.substr(1)) + "\n";
  }
  out += ".SH EXIT STATUS\n";
  for (const auto& [code, meaning] : footer.exit_codes) {
    out += ".TP\n" + Bold(code) + "\n" + Sentence(meaning) + "\n";
  }
  if (!verb.examples.empty()) {
    out += ".SH EXAMPLES\n";
    bool is_first = true;
    for (const std::string& example : verb.examples) {
      if (!is_first) out += ".PP\n";
      is_first = false;
      out += ".RS 4\n.nf\n" + Escape(example) + "\n.fi\n.RE\n";
    }
  }
  std::vector<std::string> references;
  AddReferences(command, verb, &references);
  out += ".SH SEE ALSO\n" + Join(references, ",\n") + "\n";
  return out;
}

}  // namespace flashelm::cli
