// Every verb with every flag of any verb: --help is right about which of them
// it takes. Only parsed, in this process, as there are thousands of pairs.

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/args_common.h"
#include "tests/cli/help.h"

namespace flashelm::test {
namespace {

enum class Answer {
  kTaken,
  kUnknownFlag,
  kMissingOrExcluded,  // Another flag is needed, or in the way.
  kWrongValue,
};

struct Parsed {
  Answer answer = Answer::kTaken;
  std::string message;
};

Parsed& LastParsed() {
  static Parsed parsed;
  return parsed;
}

int ParseOnly(CLI::App& app, const cli::VerbFunction& /*verb*/, int argc,
              char** argv) {
  Parsed& parsed = LastParsed();
  parsed = {};
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ExtrasError& error) {
    parsed = {Answer::kUnknownFlag, error.what()};
  } catch (const CLI::RequiresError& error) {
    parsed = {Answer::kMissingOrExcluded, error.what()};
  } catch (const CLI::ExcludesError& error) {
    parsed = {Answer::kMissingOrExcluded, error.what()};
  } catch (const CLI::ParseError& error) {
    // Such as --help.
    if (error.get_exit_code() == 0) return 0;
    parsed = {Answer::kWrongValue, error.what()};
  }
  return 0;
}

Parsed Parse(const std::vector<std::string>& args) {
  std::vector<std::string> words = {"flashelm"};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  cli::WithCommand({ParseOnly, static_cast<int>(words.size()), argv.data()});
  return LastParsed();
}

std::vector<std::string> With(std::vector<std::string> args,
                              const std::vector<std::string>& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// Values of which parsing takes one, whatever the flag is for.
std::vector<std::string> ValuesFor(const HelpFlag& flag) {
  const size_t set = flag.type.find('{');
  if (set == std::string::npos) return {"1", "100", "0.5", "x", "2,1"};
  return {
      flag.type.substr(set + 1, flag.type.find_first_of(",}", set) - set - 1)};
}

// What is on the command line at least.
std::vector<std::string> TakenArguments(const HelpVerb& verb) {
  std::vector<std::string> args =
      With(verb.words, std::vector<std::string>(verb.num_positionals, "x"));
  for (const HelpFlag& flag : verb.flags) {
    if (!flag.is_required) continue;
    args.push_back(flag.names.front());
    args.push_back(ValuesFor(flag).front());
  }
  // Required of bench, but not of the verb below it, which help cannot say.
  if (verb.Name() == "flashelm bench") args = With(args, {"-m", "x"});
  return args;
}

bool IsNamed(const std::string& flag, const std::string& message) {
  const size_t at = message.find(flag);
  if (at == std::string::npos) return false;
  const size_t end = at + flag.size();
  return end == message.size() ||
         std::string(" ,:=\n").find(message[end]) != std::string::npos;
}

std::set<std::string> NamesOfAllFlags() {
  std::set<std::string> names;
  for (const HelpVerb& verb : HelpVerbs()) {
    for (const std::string& name : verb.FlagNames()) names.insert(name);
  }
  return names;
}

TEST(VerbsAndFlagsTest, TheLeastArgumentsAreTaken) {
  for (const HelpVerb& verb : HelpVerbs()) {
    if (verb.words.empty()) continue;
    const Parsed parsed = Parse(TakenArguments(verb));
    EXPECT_EQ(parsed.answer, Answer::kTaken)
        << verb.Name() << ": " << parsed.message;
  }
}

TEST(VerbsAndFlagsTest, AVerbTakesTheFlagsOfItsHelp) {
  for (const HelpVerb& verb : HelpVerbs()) {
    if (verb.words.empty()) continue;
    const std::vector<std::string> least = TakenArguments(verb);
    for (const HelpFlag& flag : verb.flags) {
      for (const std::string& name : flag.names) {
        // Once is enough.
        if (std::find(least.begin(), least.end(), flag.names.front()) !=
            least.end()) {
          continue;
        }
        std::vector<std::vector<std::string>> forms;
        if (flag.type.empty()) {
          forms.push_back({name});
        } else {
          for (const std::string& value : ValuesFor(flag)) {
            forms.push_back({name, value});
          }
        }
        std::vector<std::string> messages;
        const bool is_taken =
            std::any_of(forms.begin(), forms.end(), [&](const auto& form) {
              const Parsed parsed = Parse(With(least, form));
              messages.push_back(parsed.message);
              return parsed.answer == Answer::kTaken ||
                     (parsed.answer == Answer::kMissingOrExcluded &&
                      IsNamed(flag.names.back(), parsed.message));
            });
        EXPECT_TRUE(is_taken) << verb.Name() << " " << name << ": "
                              << testing::PrintToString(messages);
      }
    }
  }
}

TEST(VerbsAndFlagsTest, AVerbTakesNoFlagOfAnother) {
  const std::set<std::string> all = NamesOfAllFlags();
  for (const HelpVerb& verb : HelpVerbs()) {
    if (verb.words.empty()) continue;
    const std::vector<std::string> least = TakenArguments(verb);
    const std::vector<std::string> own = verb.FlagNames();
    for (const std::string& name : all) {
      if (std::binary_search(own.begin(), own.end(), name)) continue;
      std::vector<std::vector<std::string>> forms = {{name, "1"}};
      if (name.compare(0, 2, "--") == 0) forms.push_back({name + "=1"});
      for (const std::vector<std::string>& form : forms) {
        const Parsed parsed = Parse(With(least, form));
        EXPECT_TRUE(parsed.answer == Answer::kUnknownFlag &&
                    IsNamed(name, parsed.message))
            << verb.Name() << " " << testing::PrintToString(form) << ": "
            << parsed.message;
      }
    }
  }
}

TEST(VerbsAndFlagsTest, AFlagInFrontOfTheVerbIsNotTaken) {
  for (const HelpVerb& verb : HelpVerbs()) {
    if (verb.words.size() != 1) continue;
    const std::vector<std::string> root = HelpVerbs().front().FlagNames();
    for (const std::string& name : verb.FlagNames()) {
      if (std::binary_search(root.begin(), root.end(), name)) continue;
      const Parsed parsed = Parse(With({name}, TakenArguments(verb)));
      EXPECT_EQ(parsed.answer, Answer::kUnknownFlag) << verb.Name() << name;
      EXPECT_TRUE(IsNamed(name, parsed.message)) << parsed.message;
    }
  }
}

// It would mean that the flag was not given, and happens where a script's
// variable is not set.
TEST(VerbsAndFlagsTest, NoPathMayBeEmpty) {
  size_t num_flags = 0;
  for (const HelpVerb& verb : HelpVerbs()) {
    std::vector<std::string> least = TakenArguments(verb);
    if (verb.num_positionals > 0) {
      std::vector<std::string> args = least;
      args[verb.words.size()] = "";
      EXPECT_EQ(Parse(args).answer, Answer::kWrongValue) << verb.Name();
    }
    for (const HelpFlag& flag : verb.flags) {
      if (flag.type.find("FILE") == std::string::npos && flag.type != "DIR") {
        continue;
      }
      ++num_flags;
      std::vector<std::string> args = least;
      const auto at = std::find(args.begin(), args.end(), flag.names.front());
      if (at == args.end()) {
        args = With(args, {flag.names.front(), ""});
      } else {
        *std::next(at) = "";
      }
      const Parsed parsed = Parse(args);
      EXPECT_EQ(parsed.answer, Answer::kWrongValue)
          << verb.Name() << " " << flag.names.front() << ": " << parsed.message;
      EXPECT_TRUE(IsNamed(flag.names.back(), parsed.message)) << parsed.message;
    }
  }
  EXPECT_GT(num_flags, 20u);
}

}  // namespace
}  // namespace flashelm::test
