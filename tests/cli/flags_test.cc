// Every flag of every verb: known flags are tried by some test, and others are
// refused.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "tests/cli/command.h"
#include "tests/cli/help.h"

namespace flashelm::test {
namespace {

namespace fs = std::filesystem;

// A value that parsing takes.
std::string ValueFor(const HelpFlag& flag) {
  const size_t set = flag.type.find('{');
  if (set == std::string::npos) return "x";
  return flag.type.substr(set + 1,
                          flag.type.find_first_of(",}", set) - set - 1);
}

// What is on the command line at least, so that nothing is wrong but what a
// test adds.
std::vector<std::string> LeastArguments(const HelpVerb& verb) {
  std::vector<std::string> args = verb.words;
  args.insert(args.end(), verb.num_positionals, "x");
  for (const HelpFlag& flag : verb.flags) {
    if (!flag.is_required) continue;
    args.push_back(flag.names.front());
    args.push_back(ValueFor(flag));
  }
  return args;
}

// Words that look like a flag.
std::set<std::string> FlagWords(const std::string& text) {
  const std::string letters =
      "abcdefghijklmnopqrstuvwxyz0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ_";
  std::set<std::string> words;
  for (size_t at = text.find('-'); at != std::string::npos;) {
    const size_t end =
        std::min(text.find_first_not_of(letters, at), text.size());
    const bool begins =
        at == 0 || letters.find(text[at - 1]) == std::string::npos;
    if (begins) words.insert(text.substr(at, end - at));
    at = text.find('-', std::max(end, at + 1));
  }
  return words;
}

std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::set<std::string> FlagsOfTests() {
  std::set<std::string> words;
  const fs::path tests = fs::path(FLASHELM_SOURCE_DIR) / "tests";
  for (const auto& entry : fs::recursive_directory_iterator(tests)) {
    const std::string extension = entry.path().extension();
    if (extension == ".cc" || extension == ".h" || extension == ".py") {
      words.merge(FlagWords(ReadText(entry.path())));
    }
  }
  return words;
}

TEST(FlagsTest, HelpListsVerbsAndFlags) {
  std::set<std::string> names;
  for (const HelpVerb& verb : HelpVerbs()) {
    names.insert(verb.Name());
    EXPECT_FALSE(verb.flags.empty()) << verb.Name();
  }
  EXPECT_TRUE(names.count("flashelm run"));
  EXPECT_TRUE(names.count("flashelm bench io"));
  EXPECT_EQ(names.size(), HelpVerbs().size());
}

// A flag has one name or two; either will do.
TEST(FlagsTest, EveryFlagIsUsedByATestAndTold) {
  const std::set<std::string> tests = FlagsOfTests();
  const std::set<std::string> readme =
      FlagWords(ReadText(fs::path(FLASHELM_SOURCE_DIR) / "README.md"));
  ASSERT_TRUE(tests.count("--mem-budget")) << "the tests were not found";
  for (const HelpVerb& verb : HelpVerbs()) {
    for (const HelpFlag& flag : verb.flags) {
      const auto is_in = [&flag](const std::set<std::string>& words) {
        return std::any_of(
            flag.names.begin(), flag.names.end(),
            [&words](const std::string& name) { return words.count(name); });
      };
      EXPECT_TRUE(is_in(tests))
          << verb.Name() << " " << flag.names.back() << " is used by no test";
      EXPECT_TRUE(is_in(readme))
          << verb.Name() << " " << flag.names.back() << " is not in the README";
    }
  }
}

TEST(FlagsTest, VerbsRefuseUnknownFlags) {
  for (const HelpVerb& verb : HelpVerbs()) {
    for (const std::string flag :
         {"--no-such-flag", "--no-such-flag=1", "--modle", "-Z"}) {
      std::vector<std::string> args = LeastArguments(verb);
      args.push_back(flag);
      const CommandResult result = Flashelm(args);
      EXPECT_EQ(result.exit_code, 2) << verb.Name() << " " << flag;
      EXPECT_EQ(result.out, "") << verb.Name() << " " << flag;
      if (!verb.words.empty()) {
        EXPECT_NE(result.err.find(flag.substr(0, flag.find('='))),
                  std::string::npos)
            << verb.Name() << ": " << result.err;
      }
    }
  }
}

// Flags of other verbs. All at once: a flag that was understood would be
// missing from the message.
TEST(FlagsTest, VerbsRefuseFlagsOfOthers) {
  std::set<std::string> all;
  for (const HelpVerb& verb : HelpVerbs()) {
    for (const std::string& name : verb.FlagNames()) all.insert(name);
  }
  for (const HelpVerb& verb : HelpVerbs()) {
    if (verb.words.empty()) continue;  // Needs a verb, and then is that one.
    const std::vector<std::string> own = verb.FlagNames();
    std::vector<std::string> foreign;
    std::set_difference(all.begin(), all.end(), own.begin(), own.end(),
                        std::back_inserter(foreign));
    ASSERT_FALSE(foreign.empty());
    std::vector<std::string> args = LeastArguments(verb);
    args.insert(args.end(), foreign.begin(), foreign.end());
    const CommandResult result = Flashelm(args);
    EXPECT_EQ(result.exit_code, 2) << verb.Name();
    EXPECT_EQ(result.out, "") << verb.Name();
    const std::set<std::string> named = FlagWords(result.err);
    for (const std::string& flag : foreign) {
      EXPECT_TRUE(named.count(flag))
          << verb.Name() << " takes " << flag << ": " << result.err;
    }
  }
}

}  // namespace
}  // namespace flashelm::test
