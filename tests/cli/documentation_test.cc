// Manual pages and completions, which the build writes, against --help.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/help.h"
#include "tests/temp_directory.h"

namespace flashelm::test {
namespace {

std::string Documentation(const std::string& name) {
  return FLASHELM_DOCS_DIR "/" + name;
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

struct ShellResult {
  int exit_code = -1;
  std::string out;  // And stderr.
};

ShellResult Shell(const std::string& command) {
  ShellResult result;
  FILE* const pipe = popen(("{ " + command + "\n} 2>&1").c_str(), "r");
  if (pipe == nullptr) return result;
  for (int c; (c = std::fgetc(pipe)) != EOF;) {
    result.out += static_cast<char>(c);
  }
  const int status = pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

bool HasProgram(const std::string& name) {
  return Shell("command -v " + name).exit_code == 0;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  std::sort(lines.begin(), lines.end());
  return lines;
}

// What bash offers for the last of these words.
std::vector<std::string> BashOffers(const std::vector<std::string>& words,
                                    const std::string& directory = ".") {
  std::string quoted;
  for (const std::string& word : words) quoted += " '" + word + "'";
  const TempDirectory place;
  std::ofstream(place.File("offer.sh"))
      << "cd '" << directory << "' && source '"
      << Documentation("flashelm.bash") << "'\n"
      << "complete -p flashelm >/dev/null || exit 1\n"
      << "COMP_WORDS=(" << quoted << ")\n"
      << "COMP_CWORD=" << words.size() - 1 << "\n"
      << "_flashelm\n"
      << "((${#COMPREPLY[@]} == 0)) || printf '%s\\n' \"${COMPREPLY[@]}\"\n";
  const ShellResult result =
      Shell("bash --norc -u '" + place.File("offer.sh") + "'");
  EXPECT_EQ(result.exit_code, 0) << result.out;
  return Lines(result.out);
}

using Offers = std::vector<std::string>;

TEST(ManPageTest, HasEveryFlagOfItsVerb) {
  for (const HelpVerb& verb : HelpVerbs()) {
    std::string page = ReadText(Documentation(verb.Name("-") + ".1"));
    for (const char* section : {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS",
                                "EXIT STATUS", "SEE ALSO"}) {
      EXPECT_NE(page.find("\n.SH " + std::string(section) + "\n"),
                std::string::npos)
          << verb.Name() << " " << section;
    }
    for (size_t at; (at = page.find("\\-")) != std::string::npos;) {
      page.replace(at, 2, "-");
    }
    for (const HelpFlag& flag : verb.flags) {
      std::string entry = "\n.TP\n";
      for (size_t i = 0; i < flag.names.size(); ++i) {
        entry += (i > 0 ? ", \\fB" : "\\fB") + flag.names[i] + "\\fR";
      }
      EXPECT_NE(page.find(entry), std::string::npos) << verb.Name() << entry;
    }
  }
}

TEST(ManPageTest, HasDefaultsChoicesSizesAndExamples) {
  const std::string page = ReadText(Documentation("flashelm-run.1"));
  for (const char* text :
       {"\\fB\\-\\-kv\\-type\\fR f32|bf16\n",
        "One of \\fBf32\\fR, \\fBbf16\\fR.", "Default: \\fBf32\\fR.",
        "Not with \\fB\\-\\-prompt\\fR.", "\n.SS Sampling\n", "\n.SH SIZES\n",
        "\n.SH EXAMPLES\n", "flashelm run \\-m",
        "\n.TP\n\\fB130\\fR\ninterrupted.\n"}) {
    EXPECT_NE(page.find(text), std::string::npos) << text;
  }
}

TEST(ManPageTest, ThereIsOneForEachVerb) {
  std::set<std::string> expected;
  for (const HelpVerb& verb : HelpVerbs()) {
    expected.insert(verb.Name("-") + ".1");
  }
  std::set<std::string> found;
  for (const auto& entry :
       std::filesystem::directory_iterator(FLASHELM_DOCS_DIR)) {
    if (entry.path().extension() == ".1") {
      found.insert(entry.path().filename());
    }
  }
  EXPECT_EQ(found, expected);
}

TEST(ManPageTest, RoffHasNoWarnings) {
  if (!HasProgram("man")) GTEST_SKIP() << "there is no man";
  for (const HelpVerb& verb : HelpVerbs()) {
    const ShellResult result =
        Shell("LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l '" +
              Documentation(verb.Name("-") + ".1") + "' >/dev/null");
    EXPECT_EQ(result.exit_code, 0) << verb.Name();
    EXPECT_EQ(result.out, "") << verb.Name();
  }
}

// That there is no date is wanted: the same sources give the same pages.
TEST(ManPageTest, MandocHasNoWarnings) {
  if (!HasProgram("mandoc")) GTEST_SKIP() << "there is no mandoc";
  const ShellResult result =
      Shell("mandoc -T lint -W warning " FLASHELM_DOCS_DIR
            "/*.1 | grep -v 'missing date'");
  EXPECT_EQ(result.out, "");
}

TEST(BashCompletionTest, OffersTheFlagsOfAVerbAndNoOthers) {
  if (!HasProgram("bash")) GTEST_SKIP() << "there is no bash";
  for (const HelpVerb& verb : HelpVerbs()) {
    std::vector<std::string> words = {"flashelm"};
    words.insert(words.end(), verb.words.begin(), verb.words.end());
    words.push_back("-");
    EXPECT_EQ(BashOffers(words), verb.FlagNames()) << verb.Name();
  }
}

TEST(BashCompletionTest, OffersVerbsAndValues) {
  if (!HasProgram("bash")) GTEST_SKIP() << "there is no bash";
  Offers verbs;
  for (const HelpVerb& verb : HelpVerbs()) {
    if (verb.words.size() == 1) verbs.push_back(verb.words[0]);
  }
  std::sort(verbs.begin(), verbs.end());
  EXPECT_EQ(BashOffers({"flashelm", ""}), verbs);
  EXPECT_EQ(BashOffers({"flashelm", "pe"}), Offers{"perplexity"});
  EXPECT_EQ(BashOffers({"flashelm", "bench", ""}), Offers{"io"});
  EXPECT_EQ(BashOffers({"flashelm", "bench", "io", ""}), Offers{});
  EXPECT_EQ(BashOffers({"flashelm", "bench", "-r", "3", ""}), Offers{});
  EXPECT_EQ(BashOffers({"flashelm", "run", ""}), Offers{});
  EXPECT_EQ(BashOffers({"flashelm", "nonsense", "-"}),
            Offers({"--help", "--version", "-h"}));
  EXPECT_EQ(BashOffers({"flashelm", "run", "-m", "x", "--kv-type", ""}),
            Offers({"bf16", "f32"}));
  EXPECT_EQ(BashOffers({"flashelm", "run", "--io", "u"}), Offers{"uring"});
  // As bash cuts --io=u.
  EXPECT_EQ(BashOffers({"flashelm", "run", "--io", "=", "u"}), Offers{"uring"});
  EXPECT_EQ(BashOffers({"flashelm", "run", "--io", "="}),
            Offers({"auto", "mmap", "pread", "uring"}));
  EXPECT_EQ(BashOffers({"flashelm", "run", "--temp", ""}), Offers{});
}

TEST(BashCompletionTest, OffersFilesWhereTheyAreExpected) {
  if (!HasProgram("bash")) GTEST_SKIP() << "there is no bash";
  const TempDirectory place;
  std::ofstream(place.File("a file.felm")) << "x";
  std::ofstream(place.File("b.felm")) << "x";
  std::filesystem::create_directory(place.File("checkpoint"));
  const Offers all = {"a file.felm", "b.felm", "checkpoint"};
  const std::string& in = place.path();
  EXPECT_EQ(BashOffers({"flashelm", "run", "-m", ""}, in), all);
  EXPECT_EQ(BashOffers({"flashelm", "run", "--model", "a"}, in),
            Offers{"a file.felm"});
  EXPECT_EQ(BashOffers({"flashelm", "convert", ""}, in), Offers{"checkpoint"});
  EXPECT_EQ(BashOffers({"flashelm", "synth", "-o", ""}, in),
            Offers{"checkpoint"});
  EXPECT_EQ(BashOffers({"flashelm", "chat", "--template", ""}, in),
            Offers({"a file.felm", "b.felm", "checkpoint", "raw", "zephyr"}));
}

TEST(ZshCompletionTest, HasEveryFlag) {
  const std::string text = ReadText(Documentation("_flashelm"));
  EXPECT_EQ(text.compare(0, 18, "#compdef flashelm\n"), 0);
  for (const HelpVerb& verb : HelpVerbs()) {
    const std::string head = "\n_" + verb.Name("_") + "() {\n";
    const size_t begin = text.find(head);
    ASSERT_NE(begin, std::string::npos) << head;
    const std::string function =
        text.substr(begin, text.find("\n}\n", begin) - begin);
    for (const HelpFlag& flag : verb.flags) {
      std::string names = flag.names[0];
      if (flag.names.size() == 2)
        names = "{" + names + "," + flag.names[1] + "}";
      EXPECT_NE(function.find("'" + names + "'["), std::string::npos)
          << verb.Name() << " " << names;
    }
  }
}

TEST(ZshCompletionTest, ZshReadsIt) {
  if (!HasProgram("zsh")) GTEST_SKIP() << "there is no zsh";
  const ShellResult result =
      Shell("zsh -n '" + Documentation("_flashelm") + "'");
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_EQ(result.out, "");
}

TEST(FishCompletionTest, HasEveryFlag) {
  const std::string text = ReadText(Documentation("flashelm.fish"));
  for (const HelpVerb& verb : HelpVerbs()) {
    std::string place = "'__flashelm_at ";
    for (const std::string& word : verb.words) {
      place += (word == verb.words[0] ? "" : " ") + word;
    }
    for (const HelpFlag& flag : verb.flags) {
      std::string line = "\ncomplete -c flashelm -n " + place + "'";
      for (const std::string& name : flag.names) {
        line += name.compare(0, 2, "--") == 0 ? " -l " + name.substr(2)
                                              : " -s " + name.substr(1);
      }
      EXPECT_NE(text.find(line + " "), std::string::npos) << line;
    }
  }
}

TEST(FishCompletionTest, FishReadsIt) {
  if (!HasProgram("fish")) GTEST_SKIP() << "there is no fish";
  const ShellResult result =
      Shell("fish --no-execute '" + Documentation("flashelm.fish") + "'");
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_EQ(result.out, "");
}

}  // namespace
}  // namespace flashelm::test
