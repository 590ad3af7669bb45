// chat on pipes: what it says, keeps, saves and refuses.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"

namespace flashelm::test {
namespace {

class ChatTest : public CliFixture {
 protected:
  static std::vector<std::string> ChatArgs(
      const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"chat", "-m", Model(), "-t",
                                     "2",    "-s", "7"};
    if (std::find(more.begin(), more.end(), "-n") == more.end()) {
      args.insert(args.end(), {"-n", "25"});
    }
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static CommandResult Chat(const std::string& input,
                            const std::vector<std::string>& more = {}) {
    CommandOptions options;
    options.input = input;
    const CommandResult result = Flashelm(ChatArgs(more), options);
    for (const std::string& stream : {result.out, result.err}) {
      EXPECT_EQ(stream.find_first_of("\x1b\r"), std::string::npos) << stream;
      EXPECT_EQ(stream.find("> "), std::string::npos) << stream;
    }
    return result;
  }
  static std::string Run(const std::string& prompt, const std::string& count) {
    return Flashelm({"run", "-m", Model(), "-p", prompt, "-n", count, "-t", "2",
                     "-s", "7"})
        .out;
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  // "context: N of M tokens".
  static int ContextTokens(const CommandResult& result) {
    std::smatch match;
    EXPECT_TRUE(std::regex_search(result.err, match,
                                  std::regex("context: ([0-9]+) of")))
        << result.err;
    return match.empty() ? -1 : std::stoi(match[1]);
  }
};

TEST_F(ChatTest, ARawChatGoesOnWithTheText) {
  const auto result = Chat("Once upon a time\n\nThe dog was\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const std::string first = Run("Once upon a time", "25");
  ASSERT_EQ(result.out.substr(0, first.size()), first);
  // The second answer is that to all of it.
  std::string second = Run(
      "Once upon a time" + first.substr(0, first.size() - 1) + " The dog was",
      "25");
  EXPECT_EQ(result.out.substr(first.size()), second);
}

TEST_F(ChatTest, AnInputWithoutALastNewlineIsAnsweredToo) {
  EXPECT_EQ(Chat("Once upon a time").out, Run("Once upon a time", "25"));
  EXPECT_EQ(Chat("").out, "");
  EXPECT_EQ(Chat("\n\n").out, "");
}

TEST_F(ChatTest, ABackslashJoinsLines) {
  EXPECT_EQ(Chat("Once upon\\\na time\n").out, Run("Once upon\na time", "25"));
  EXPECT_EQ(Chat("Once upon\\\n").out, Run("Once upon\n", "25"));
  EXPECT_EQ(Chat("//help\n").out, Run("/help", "25"));
}

TEST_F(ChatTest, ExitAndResetDoWhatTheySay) {
  const std::string answer = Run("Once upon a time", "25");
  EXPECT_EQ(Chat("Once upon a time\n/exit\nMore\n").out, answer);
  const auto reset =
      Chat("One day\n/reset\n/stats\nOnce upon a time\n/stats\n");
  EXPECT_EQ(reset.out.substr(reset.out.size() - answer.size()), answer);
  EXPECT_NE(reset.err.find("context: 0 of 512"), std::string::npos);
  EXPECT_NE(reset.err.find("last answer: RAM peak"), std::string::npos);
  EXPECT_NE(reset.err.find("tokens/s"), std::string::npos) << reset.err;
}

TEST_F(ChatTest, SetChangesWhatItNames) {
  const auto result = Chat(
      "/set n-predict 3\nOnce upon a time\n/set temp 1\n/set ctx-full "
      "shift\n/set\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, Run("Once upon a time", "3"));
  for (const char* words : {"temp 1\n", "n-predict 3\n", "seed 7\n",
                            "ctx-full shift\n", "keep 1\n", "top-k 40\n"}) {
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  }
}

TEST_F(ChatTest, BadCommandsAreNamedAndChangeNothing) {
  const std::string answer = Run("Once upon a time", "25");
  for (const char* command : {"/foo",
                              "/",
                              "/save",
                              "/load",
                              "/exit now",
                              "/reset all",
                              "/set temp",
                              "/set temp hot",
                              "/set temp -1",
                              "/set temp nan",
                              "/set top-p 2",
                              "/set top-k 1.5",
                              "/set n-predict -2",
                              "/set seed -1",
                              "/set colour 3",
                              "/set ctx-full never",
                              "/set keep -1",
                              "/load /nowhere/x",
                              "/save /nowhere/x",
                              "/stats 1",
                              "/HELP"}) {
    const auto result = Chat(std::string(command) + "\nOnce upon a time\n");
    EXPECT_NE(result.exit_code, 0) << command;
    EXPECT_NE(result.err.find("flashelm: "), std::string::npos) << command;
    EXPECT_NE(result.err.find("1 of the lines failed"), std::string::npos)
        << result.err;
    EXPECT_EQ(result.out, answer) << command;
  }
  EXPECT_EQ(Chat("/save " + Model() + "\n").exit_code, 2);
  const auto help = Chat("/help\n");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_EQ(help.out, "");
  for (const char* command : {"/help", "/reset", "/stats", "/save FILE",
                              "/load FILE", "/set KEY VALUE", "/exit"}) {
    EXPECT_NE(help.err.find(command), std::string::npos) << command;
  }
}

TEST_F(ChatTest, ALoadedChatGoesOnToTheBitAsTheSaved) {
  const std::string session = File("chat.session");
  for (const char* temperature : {"0", "1"}) {
    const std::vector<std::string> temp = {"--temp", temperature};
    const auto saved =
        Chat("Once upon a time\n/save " + session + "\nThe dog was\nOne day\n",
             temp);
    ASSERT_EQ(saved.exit_code, 0) << saved.err;
    const auto first = Chat("Once upon a time\n", temp);
    const auto loaded = Chat(
        "Something else\n/load " + session + "\nThe dog was\nOne day\n", temp);
    ASSERT_EQ(loaded.exit_code, 0) << loaded.err;
    const auto other = Chat("Something else\n", temp);
    EXPECT_EQ(loaded.out.substr(other.out.size()),
              saved.out.substr(first.out.size()));
    EXPECT_NE(loaded.err.find("tokens were loaded from"), std::string::npos);
  }
}

TEST_F(ChatTest, ABadSessionFileChangesNothing) {
  const std::string session = File("bad.session");
  ASSERT_EQ(Chat("One day\n/save " + session + "\n").exit_code, 0);
  std::ifstream file(session, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(file), {});
  bytes[bytes.size() / 3] ^= 4;
  Write(session, bytes);
  const auto undisturbed = Chat("Once upon a time\nThe dog was\n");
  const auto result =
      Chat("Once upon a time\n/load " + session + "\nThe dog was\n");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("damaged"), std::string::npos) << result.err;
  EXPECT_EQ(result.out, undisturbed.out);
  EXPECT_EQ(Chat("/load " + Model() + "\n").exit_code, 3);
}

TEST_F(ChatTest, TemplatesComeBuiltInAndFromFiles) {
  // As zephyr, but for the names of the marks, of which there are none here.
  Write(File("t.json"), R"({"begin": "Once", "user": "upon {text}",
                            "stop": [" girl"]})");
  const auto result = Chat("a time\n/stats\n", {"--template", File("t.json")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, ", there was a little\n");
  // BOS, Once, upon, a, time and the answer without the mark that ended it.
  const int num_prompt = 5;
  const int num_answer = 5;
  EXPECT_EQ(ContextTokens(result), num_prompt + num_answer);

  Write(File("same.json"), R"({"user": "{text}"})");
  EXPECT_EQ(Chat("One day\n", {"--template", File("same.json")}).out,
            Chat("One day\n").out);
  // A message is a message, whatever it looks like.
  EXPECT_EQ(Chat("{eos}{text}\n", {"--template", File("same.json")}).out,
            Run("{eos}{text}", "25"));

  Write(File("zephyr.json"),
        R"({"user": "<|user|>\n{text}{eos}\n<|assistant|>\n",
            "answer_end": "{eos}\n",
            "stop": ["<|user|>", "<|assistant|>", "<|system|>", "</s>"]})");
  const std::string two = "One day\nThe dog\n/stats\n";
  const auto zephyr = Chat(two, {"--template", "zephyr"});
  const auto same = Chat(two, {"--template", File("zephyr.json")});
  EXPECT_EQ(zephyr.exit_code, 0) << zephyr.err;
  EXPECT_EQ(zephyr.out, same.out);
  EXPECT_EQ(ContextTokens(zephyr), ContextTokens(same));
  EXPECT_GT(ContextTokens(zephyr), ContextTokens(Chat(two)) + 40);
}

TEST_F(ChatTest, WrongTemplatesAreRefused) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "t.json"},
      {"{", "t.json"},
      {"[1]", "JSON object"},
      {R"({"user": "no place"})", "{text}"},
      {R"({"user": "{text} and {text}"})", "{text}"},
      {R"({"user": "{text}", "answer_end": "{text}"})", "{text}"},
      {R"({"user": 1})", "user"},
      {R"({"user": "{text}", "stop": "x"})", "stop"},
      {R"({"user": "{text}", "stop": [1]})", "stop"},
      {R"({"user": "{text}", "stop": [""]})", "empty"},
      {R"({"user": "{text}", "end": "x"})", "end"},
      {R"({"user": "{text}", "answer_end": ")" + std::string(65, 'x') + "\"}",
       "answer_end"},
  };
  for (const auto& [text, words] : cases) {
    Write(File("t.json"), text);
    const auto result = Chat("A\n", {"--template", File("t.json")});
    EXPECT_EQ(result.exit_code, 2) << text;
    EXPECT_NE(result.err.find("--template"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "");
  }
  EXPECT_EQ(Chat("A\n", {"--template", "vicuna"}).exit_code, 2);
}

TEST_F(ChatTest, AFullContextStopsOrShifts) {
  const std::vector<std::string> small = {"-c", "32", "-n", "40"};
  const std::vector<std::string> brief = {"-c", "32", "-n", "2", "--ctx-full"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), small.begin(), small.end());
    return more;
  };
  const auto stops = Chat("Once upon a time\nThe dog\n", small);
  EXPECT_EQ(stops.exit_code, 2);
  EXPECT_NE(stops.err.find("the context of 32 positions is full"),
            std::string::npos)
      << stops.err;
  EXPECT_NE(stops.err.find("/reset begins anew"), std::string::npos);
  EXPECT_EQ(stops.out, Flashelm({"run", "-m", Model(), "-p", "Once upon a time",
                                 "-n", "40", "-c", "32"})
                           .out);

  const auto shifts = Chat("Once upon a time\n/stats\nThe dog\n/stats\n",
                           with({"--ctx-full", "shift", "--keep", "5"}));
  EXPECT_EQ(shifts.exit_code, 0) << shifts.err;
  EXPECT_NE(shifts.err.find("of the oldest tokens were forgotten"),
            std::string::npos)
      << shifts.err;
  EXPECT_GT(shifts.out.size(), 2 * stops.out.size());
  EXPECT_EQ(shifts.out.substr(0, stops.out.size() - 1),
            stops.out.substr(0, stops.out.size() - 1));
  EXPECT_LE(ContextTokens(shifts), 33);
  // Batches do not matter, nor does the budget.
  std::vector<std::string> floor =
      with({"--ctx-full", "shift", "--keep", "5", "-b", "3"});
  floor.insert(floor.end(),
               {"--mem-budget", std::to_string(Floor(ChatArgs(floor)))});
  EXPECT_EQ(Chat("Once upon a time\nThe dog\n", floor).out, shifts.out);

  // Nothing that may be forgotten makes room for this one.
  std::string novel;
  for (int i = 0; i < 40; ++i) novel += "dog ";
  for (const char* policy : {"stop", "shift"}) {
    std::vector<std::string> args = brief;
    args.push_back(policy);
    const auto refused = Chat("Once\n" + novel + "\n", args);
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("the message has "), std::string::npos)
        << refused.err;
    EXPECT_EQ(refused.out, Run("Once", "2"));
  }
}

TEST_F(ChatTest, LongLinesAreLeftOutAndTheNextIsRead) {
  const auto result = Chat(std::string(100000, 'x') + "\nOnce upon a time\n");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("was left out"), std::string::npos) << result.err;
  EXPECT_EQ(result.out, Run("Once upon a time", "25"));
}

TEST_F(ChatTest, AnInterruptEndsAChatOnAPipe) {
  CommandOptions options;
  options.input = "Once upon a time\nThe dog\n";
  options.interrupt_after_bytes = 10;
  std::vector<std::string> args = ChatArgs({"-n", "-1"});
  args.insert(args.end(), {"--mem-budget", std::to_string(Floor(args))});
  EXPECT_EQ(Flashelm(args, options).exit_code, 130);
}

TEST_F(ChatTest, KeepsTheBudgetThatItNames) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  std::vector<std::string> more = {
      "--temp", "1", "--template", "zephyr", "--ctx-full", "shift", "-n", "10"};
  const uint64_t floor = Floor(ChatArgs(more));
  more.insert(more.end(), {"--mem-budget", std::to_string(floor)});
  std::string text;
  while (text.size() < 300) text += "The dog and the cat saw a bird. ";
  const std::string session = File("floor.session");
  const auto result =
      Chat(text + "\nOne day\n" + std::string(8000, 'x') + "\n/save " +
               session + "\n/load " + session + "\nThe bird\n/stats\n",
           more);
  std::smatch match;
  ASSERT_TRUE(std::regex_search(result.err, match,
                                std::regex("RAM peak ([0-9.]+) MiB of")))
      << result.err;
  EXPECT_NE(result.err.find("were loaded"), std::string::npos) << result.err;
  EXPECT_LE(std::stod(match[1]) * (1 << 20), static_cast<double>(floor));
}

TEST_F(ChatTest, HelpAndUsage) {
  const std::string help = Flashelm({"chat", "--help"}).out;
  for (const char* flag : {"--template", "--ctx-full", "--keep", "--no-status",
                           "--n-predict", "--stop", "--temp", "--mem-budget"}) {
    EXPECT_NE(help.find(flag), std::string::npos) << flag;
  }
  const std::string run_help = Flashelm({"run", "--help"}).out;
  for (const char* flag : {"--prompt-cache", "--no-status"}) {
    EXPECT_NE(run_help.find(flag), std::string::npos) << flag;
  }
  EXPECT_NE(Flashelm({"--help"}).out.find("chat"), std::string::npos);
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"chat"},
        {"chat", "-m", Model(), "--ctx-full", "grow"},
        {"chat", "-m", Model(), "--keep", "-1"},
        {"chat", "-m", Model(), "--stop", ""},
        {"chat", "-m", Model(), "--temp", "-1"},
        {"chat", "-m", Model(), "-p", "A"}}) {
    EXPECT_EQ(Flashelm(args).exit_code, 2) << args.back();
  }
}

}  // namespace
}  // namespace flashelm::test
