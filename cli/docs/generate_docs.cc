// Writes the manual pages and the completions of flashelm, from the definitions
// that parse its command line. Run by the build, and no part of flashelm: code
// there counts against the memory budget.

#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "cli/args_common.h"
#include "cli/docs/command_tree.h"
#include "cli/docs/completion.h"
#include "cli/docs/man_page.h"

namespace flashelm::cli {
namespace {

namespace fs = std::filesystem;

std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file.is_open() || file.bad() || text.empty()) {
    throw std::runtime_error("cannot read " + path.string());
  }
  return text;
}

void WriteText(const fs::path& path, const std::string& text) {
  const fs::path partial = path.string() + ".tmp";
  std::ofstream file(partial, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw std::runtime_error("cannot write " + partial.string());
  fs::rename(partial, path);
}

void WritePages(const VerbInfo& verb, const VerbInfo& command,
                const FooterInfo& footer, const fs::path& directory) {
  WriteText(directory / (PageName(verb) + ".1"),
            ManPage(verb, command, footer, "flashelm " FLASHELM_VERSION));
  for (const VerbInfo& sub : verb.verbs) {
    WritePages(sub, command, footer, directory);
  }
}

void Generate(const CLI::App& app, const fs::path& readme,
              const fs::path& directory) {
  VerbInfo command = ReadCommand(app);
  AddExamples(ReadText(readme), &command);
  fs::create_directories(directory);
  WritePages(command, command, ReadFooter(app.get_footer()), directory);
  WriteText(directory / "flashelm.bash", BashCompletion(command));
  WriteText(directory / "_flashelm", ZshCompletion(command));
  WriteText(directory / "flashelm.fish", FishCompletion(command));
}

int GenerateFrom(CLI::App& app, const VerbFunction& /*verb*/, int /*argc*/,
                 char** argv) {
  Generate(app, argv[1], argv[2]);
  return 0;
}

}  // namespace

int Main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: flashelm_docs README.md DIRECTORY\n", stderr);
    return 2;
  }
  try {
    return WithCommand({GenerateFrom, argc, argv});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flashelm_docs: %s\n", error.what());
    return 1;
  }
}

}  // namespace flashelm::cli

int main(int argc, char** argv) { return flashelm::cli::Main(argc, argv); }
