#include "cli/docs/command_tree.h"

#include <algorithm>
#include <cctype>
#include <sstream>
#include <stdexcept>

namespace flashelm::cli {
namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    parts.push_back(part);
  }
  return parts;
}

bool IsWord(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::islower(static_cast<unsigned char>(c)) ||
           std::isdigit(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
}

// What `flag` takes, from a type as "FILE", "TEXT:{f32,bf16}", "K|auto" or
// "off|gate[:F]".
void ReadType(const std::string& type, FlagInfo* flag) {
  const size_t set = type.find(":{");
  if (set != std::string::npos && type.back() == '}') {
    flag->choices = Split(type.substr(set + 2, type.size() - set - 3), ',');
    flag->value = Join(flag->choices, "|");
    flag->is_closed = true;
    return;
  }
  flag->value = type;
  const std::string plain = type.substr(0, type.find('['));
  const std::vector<std::string> parts = Split(plain, '|');
  // Where a word may go on, as "gate:0.5", they are not all there are.
  flag->is_closed = parts.size() > 1 && plain == type;
  for (const std::string& part : parts) {
    if (part == "FILE") flag->kind = ValueKind::kFile;
    if (part == "DIR" || part == "SRC") flag->kind = ValueKind::kDirectory;
    if (parts.size() > 1 && IsWord(part)) {
      flag->choices.push_back(part);
    } else {
      flag->is_closed = false;
    }
  }
}

// As a person types it, the long name where there is one.
std::string LongName(const CLI::Option& option) {
  return option.get_lnames().empty() ? option.get_name()
                                     : "--" + option.get_lnames().front();
}

FlagInfo ReadFlag(const CLI::Option& option) {
  FlagInfo flag;
  flag.description = option.get_description();
  flag.group = option.get_group();
  flag.is_positional = option.get_positional();
  flag.is_required = option.get_required();
  flag.is_repeatable =
      option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
  flag.default_value = option.get_default_str();
  const bool takes_value = option.get_items_expected_max() > 0;
  if (takes_value) ReadType(option.get_type_name(), &flag);
  if (flag.is_positional) {
    flag.names = {flag.value};
  } else {
    for (const std::string& name : option.get_snames()) {
      flag.names.push_back("-" + name);
    }
    for (const std::string& name : option.get_lnames()) {
      flag.names.push_back("--" + name);
    }
  }
  for (const CLI::Option* other : option.get_needs()) {
    flag.needs.push_back(LongName(*other));
  }
  for (const CLI::Option* other : option.get_excludes()) {
    flag.excludes.push_back(LongName(*other));
  }
  // They are sets of pointers, so their order is that of addresses.
  std::sort(flag.needs.begin(), flag.needs.end());
  std::sort(flag.excludes.begin(), flag.excludes.end());
  return flag;
}

VerbInfo ReadVerb(const CLI::App& app, std::vector<std::string> words) {
  VerbInfo verb;
  words.push_back(app.get_name());
  verb.description = app.get_description();
  for (const CLI::Option* option : app.get_options()) {
    verb.flags.push_back(ReadFlag(*option));
  }
  for (const CLI::App* sub :
       app.get_subcommands(std::function<bool(const CLI::App*)>())) {
    verb.verbs.push_back(ReadVerb(*sub, words));
  }
  verb.words = std::move(words);
  return verb;
}

// The verb that a command's words name.
VerbInfo* FindVerb(const std::string& example, VerbInfo* command) {
  std::istringstream stream(example);
  std::string word;
  stream >> word;  // The command's own name.
  VerbInfo* found = command;
  while (stream >> word) {
    const auto next = std::find_if(
        found->verbs.begin(), found->verbs.end(),
        [&](const VerbInfo& verb) { return verb.words.back() == word; });
    if (next == found->verbs.end()) break;
    found = &*next;
  }
  return found;
}

std::string WithoutIndent(const std::string& line) {
  const size_t begin = line.find_first_not_of(' ');
  return begin == std::string::npos ? "" : line.substr(begin);
}

}  // namespace

std::string Join(const std::vector<std::string>& words,
                 const std::string& separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

std::string Summary(const std::string& description) {
  const std::string text = description.substr(0, description.find("; "));
  const size_t colon = text.find(": ");
  if (colon == std::string::npos) return text;
  // "low-rank: passes over the samples" begins with what it applies to.
  constexpr std::ptrdiff_t kMinSpaces = 3;
  const auto end = text.begin() + static_cast<std::ptrdiff_t>(colon);
  const bool is_enough = std::count(text.begin(), end, ' ') >= kMinSpaces;
  return is_enough ? text.substr(0, colon) : text;
}

VerbInfo ReadCommand(const CLI::App& app) { return ReadVerb(app, {}); }

FooterInfo ReadFooter(const std::string& footer) {
  const std::string sizes_key = "Sizes: ";
  const std::string codes_key = "\nExit codes: ";
  const size_t codes = footer.find(codes_key);
  if (footer.compare(0, sizes_key.size(), sizes_key) != 0 ||
      codes == std::string::npos) {
    throw std::runtime_error(
        "the end of --help is expected to be \"Sizes: ...\" and \"Exit codes: "
        "...\", and is:\n" +
        footer);
  }
  FooterInfo info;
  info.sizes = footer.substr(sizes_key.size(), codes - sizes_key.size());
  std::string list = footer.substr(codes + codes_key.size());
  std::replace(list.begin(), list.end(), '\n', ' ');
  list.erase(list.find_last_not_of(". ") + 1);
  for (const std::string& part : Split(list, ',')) {
    const std::string code = WithoutIndent(part);
    const size_t space = code.find(' ');
    if (space == std::string::npos || !std::isdigit(code[0])) {
      throw std::runtime_error(
          "an exit code in --help is expected to be a number and its meaning, "
          "and is: " +
          part);
    }
    info.exit_codes.emplace_back(code.substr(0, space), code.substr(space + 1));
  }
  return info;
}

void AddExamples(const std::string& markdown, VerbInfo* command) {
  const std::string start = command->words.front() + " ";
  std::istringstream stream(markdown);
  for (std::string line; std::getline(stream, line);) {
    if (line.compare(0, 4, "    ") != 0) continue;
    std::string text = WithoutIndent(line);
    if (text.compare(0, 2, "$ ") == 0) text.erase(0, 2);
    if (text.compare(0, start.size(), start) != 0) continue;
    while (text.back() == '\\' && std::getline(stream, line)) {
      text += "\n    " + WithoutIndent(line);
    }
    std::vector<std::string>& known = FindVerb(text, command)->examples;
    if (std::find(known.begin(), known.end(), text) == known.end()) {
      known.push_back(text);
    }
  }
}

}  // namespace flashelm::cli
