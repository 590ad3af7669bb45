// The command as its documentation needs it: verbs and flags as plain values,
// read from the definitions that parse the command line.
#ifndef FLASHELM_CLI_DOCS_COMMAND_TREE_H_
#define FLASHELM_CLI_DOCS_COMMAND_TREE_H_

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

namespace flashelm::cli {

// What a shell can offer where a value is expected.
enum class ValueKind { kText, kFile, kDirectory };

struct FlagInfo {
  std::vector<std::string> names;  // "-m", "--model"; of a positional: "SRC".
  std::string description;
  std::string group;
  std::string value;  // "FILE"; empty where the flag takes none.
  std::string default_value;
  std::vector<std::string> choices;   // Words it takes, as far as they are few.
  bool is_closed = false;             // It takes those words and no others.
  ValueKind kind = ValueKind::kText;  // Of what it takes besides.
  bool is_positional = false;
  bool is_required = false;
  bool is_repeatable = false;
  std::vector<std::string> needs;     // Other flags, as "--model".
  std::vector<std::string> excludes;  // The same.
};

struct VerbInfo {
  std::vector<std::string> words;  // "flashelm", "bench", "io"
  std::string description;
  std::vector<FlagInfo> flags;        // As --help lists them.
  std::vector<VerbInfo> verbs;        // Below this one.
  std::vector<std::string> examples;  // Commands; may have several lines.
};

// The end of --help, in parts.
struct FooterInfo {
  std::string sizes;
  std::vector<std::pair<std::string, std::string>> exit_codes;
};

// Words with `separator` between them.
std::string Join(const std::vector<std::string>& words,
                 const std::string& separator);
// The part of a description that fits into a list: up to where it explains.
std::string Summary(const std::string& description);

VerbInfo ReadCommand(const CLI::App& app);
// Throws std::runtime_error where the footer has another form.
FooterInfo ReadFooter(const std::string& footer);

// Takes from a Markdown text the commands that its indented blocks show, and
// gives each to the verb, the deepest, that it names.
void AddExamples(const std::string& markdown, VerbInfo* command);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_DOCS_COMMAND_TREE_H_
