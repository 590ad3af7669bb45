// chat as a person meets it, on a terminal.

#include <gtest/gtest.h>
#include <signal.h>

#include <regex>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/terminal_command.h"

namespace flashelm::test {
namespace {

constexpr char kUp[] = "\x1b[A";
constexpr char kCtrlC[] = "\x03";
constexpr char kCtrlD[] = "\x04";

class ChatTerminalTest : public CliFixture {
 protected:
  static std::vector<std::string> ChatArgs(
      const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"chat", "-m", Model(), "-t", "2"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  // The smallest budget on a terminal: the editor counts.
  static uint64_t EditorFloor(std::vector<std::string> args) {
    args.insert(args.end(), {"--mem-budget", "1"});
    TerminalCommand command(args);
    CommandResult refused;
    refused.exit_code = command.Wait();
    refused.err = command.output();
    EXPECT_EQ(refused.exit_code, 4);
    return NamedBudget(refused);
  }
  // The figure of the last "context: N of M tokens".
  static int ContextTokens(const TerminalCommand& chat) {
    const std::regex pattern("context: ([0-9]+) of");
    int count = -1;
    for (std::sregex_iterator at(chat.output().begin(), chat.output().end(),
                                 pattern);
         at != std::sregex_iterator(); ++at) {
      count = std::stoi((*at)[1]);
    }
    return count;
  }
};

TEST_F(ChatTerminalTest, CommandsAnswersAndTheEnd) {
  TerminalCommand chat(ChatArgs({"-n", "8", "--no-status"}));
  chat.Expect("Talking with ");
  chat.Expect("> ");
  chat.Type("Once upon a time\r");
  chat.Expect(", there was a little");
  chat.Expect("> ");
  chat.Type("/set n-predict 3\r");
  chat.Expect("> ");
  chat.Type("/set\r");
  chat.Expect("n-predict 3\r\n");
  chat.Type("/nonsense\r");
  chat.Expect("flashelm: there is no command /nonsense");
  chat.Type("/stats\r");
  chat.Expect("context: 13 of 512 tokens");
  chat.Type("/save " + File("t.session") + "\r");
  chat.Expect("13 tokens were saved to ");
  chat.Type("/reset\r");
  chat.Expect("> ");
  chat.Type("/stats\r");
  chat.Expect("context: 0 of");
  chat.Type("/load " + File("t.session") + "\r");
  chat.Expect("13 tokens were loaded from ");
  chat.Type("One line\\\r");
  chat.Expect(". ");
  chat.Type("and another\r");
  chat.Expect("> ");
  chat.Type("/exit\r");
  EXPECT_EQ(chat.Wait(), 0);
  EXPECT_EQ(chat.output().find("\x1b[1;23r"), std::string::npos);
}

TEST_F(ChatTerminalTest, CtrlDEndsIt) {
  TerminalCommand chat(ChatArgs());
  chat.Expect("> ");
  chat.Type(kCtrlD);
  EXPECT_EQ(chat.Wait(), 0);
}

TEST_F(ChatTerminalTest, ArrowsBringLinesBack) {
#if !FLASHELM_HAS_LIBEDIT
  GTEST_SKIP() << "built without libedit";
#endif
  TerminalCommand chat(ChatArgs());
  chat.Expect("> ");
  chat.Type("/stats\r");
  chat.Expect("context: 0 of");
  chat.Expect("> ");
  chat.Type("/set n-predict 5\r");
  chat.Expect("> ");
  chat.Type(std::string(kUp) + kUp + "\r");
  chat.Expect("context: 0 of");
  chat.Expect("> ");
  // Changed on the way: the last character goes, another comes.
  chat.Type(std::string(kUp) + kUp + "\x7f" + "4\r");
  chat.Expect("> ");
  chat.Type("/set\r");
  chat.Expect("n-predict 4\r\n");
  chat.Type("/exit\r");
  EXPECT_EQ(chat.Wait(), 0);
}

TEST_F(ChatTerminalTest, CtrlCEndsAnAnswerAndKeepsTheConversation) {
  std::vector<std::string> args =
      ChatArgs({"-n", "-1", "--ctx-full", "shift", "--temp", "1", "-s", "1"});
  args.insert(args.end(), {"--mem-budget", std::to_string(EditorFloor(args))});
  TerminalCommand chat(args);
  chat.Expect("> ");
  chat.Type("Once upon a time\r");
  chat.Expect("tok/s | RAM ");
  chat.Type(kCtrlC);
  chat.Expect("> ");
  chat.Type("/stats\r");
  chat.Expect("context: ");
  chat.Expect("> ");
  const int interrupted = ContextTokens(chat);
  EXPECT_GT(interrupted, 5);
  // It goes on from there.
  chat.Type("/set n-predict 4\r");
  chat.Expect("> ");
  chat.Type("The dog\r");
  chat.Expect("> ");
  chat.Type("/stats\r");
  chat.Expect("context: ");
  chat.Expect("> ");
  EXPECT_GE(ContextTokens(chat), interrupted + 3);
  EXPECT_LE(ContextTokens(chat), interrupted + 2 + 4);
  chat.Type("/exit\r");
  EXPECT_EQ(chat.Wait(), 0);
}

TEST_F(ChatTerminalTest, CtrlCAtThePromptDropsTheLine) {
  TerminalCommand chat(ChatArgs({"-n", "3"}));
  chat.Expect("> ");
  chat.Type("Never to be");
  chat.Expect("be");
  chat.Type(kCtrlC);
  chat.Expect("> ");
  chat.Type("/stats\r");
  chat.Expect("context: 0 of");
  chat.Expect("> ");
  chat.Signal(SIGTERM);
  EXPECT_EQ(chat.Wait(), 130);
}

TEST_F(ChatTerminalTest, KeepsItsBudgetWithAnEditor) {
#ifdef FLASHELM_FOREIGN_MEMORY
  GTEST_SKIP() << "a sanitizer or an emulator takes memory of its own";
#endif
  const uint64_t floor = EditorFloor(ChatArgs({"--no-status"}));
  TerminalCommand chat(ChatArgs(
      {"-n", "20", "--no-status", "--mem-budget", std::to_string(floor)}));
  chat.Expect("> ");
  for (int i = 0; i < 20; ++i) {
    chat.Type("/stats" + std::string(static_cast<size_t>(i), ' ') + "\r");
    chat.Expect("context: ");
    chat.Expect("> ");
  }
  // Longer than any line may be: the rest is not taken.
  for (int i = 0; i < 100; ++i) {
    chat.Type(std::string(200, 'x'));
    chat.Expect("x");
  }
  chat.Type("\r");
  chat.Expect("was left out");
  chat.Type("Once upon a time\r");
  chat.Expect("there was");
  chat.Expect("> ");
  chat.Type("/stats\r");
  chat.Expect("RAM peak ");
  chat.Expect(" MiB");
  chat.Type("/exit\r");
  EXPECT_EQ(chat.Wait(), 0);
  const std::string& output = chat.output();
  std::smatch match;
  ASSERT_TRUE(std::regex_search(output, match,
                                std::regex("RAM peak ([0-9.]+) MiB of")));
  EXPECT_LE(std::stod(match[1]) * (1 << 20), static_cast<double>(floor));
}

}  // namespace
}  // namespace flashelm::test
