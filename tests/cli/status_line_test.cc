// The line at the bottom of the terminal, which never meets the text.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/screen.h"
#include "tests/cli/terminal_command.h"

namespace flashelm::test {
namespace {

// Rows of the terminal that these characters fill.
std::vector<std::string> Wrapped(const std::string& text, size_t columns) {
  std::vector<std::string> rows(1);
  for (const char c : text) {
    if (c != '\n' && rows.back().size() < columns) {
      rows.back() += c;
      continue;
    }
    rows.emplace_back();
    if (c != '\n') rows.back() += c;
  }
  for (std::string& row : rows) row.erase(row.find_last_not_of(' ') + 1);
  return rows;
}

class StatusLineTest : public CliFixture {
 protected:
  // In the smallest budget, where text takes a while on every machine.
  static std::vector<std::string> Run() {
    std::vector<std::string> args = {
        "run", "-m",     Model(),  "-p", "Once upon a time",
        "-n",  "120",    "--temp", "1",  "-s",
        "3",   "--echo", "-t",     "1",  "--ignore-eos"};
    args.insert(args.end(), {"--mem-budget", std::to_string(Floor(args))});
    return args;
  }
};

TEST_F(StatusLineTest, TextOnTheTerminalIsWhatAPipeGets) {
  const std::string text = Flashelm(Run()).out;
  ASSERT_GT(text.size(), 300u);
  for (const bool has_status : {true, false}) {
    std::vector<std::string> args = Run();
    if (!has_status) args.push_back("--no-status");
    TerminalCommand run(args);
    EXPECT_EQ(run.Wait(), 0);
    // The bar of loading comes before the text and has its own ways.
    std::string output = run.output();
    const size_t begin = output.find("Once upon");
    ASSERT_NE(begin, std::string::npos) << output;
    EXPECT_EQ(output.find("tok/s | RAM") != std::string::npos, has_status);
    EXPECT_EQ(output.find('\x1b', begin) != std::string::npos, has_status);

    Screen screen(24, 80);
    // Begins in the last row, as terminals that have been used for a while do.
    screen.Write(std::string(23, '\n'));
    screen.Write(output.substr(begin));
    EXPECT_TRUE(screen.scrolls_whole());
    EXPECT_EQ(screen.LastRow().find("tok/s |"), std::string::npos);
    const auto rows = screen.Rows();
    const auto expected = Wrapped(text, 80);
    // What is left of `rows`: blank ones above, the summary below.
    const auto first = std::find(rows.begin(), rows.end(), expected.front());
    ASSERT_GE(rows.end() - first, static_cast<ptrdiff_t>(expected.size()));
    for (size_t i = 0; i + 1 < expected.size(); ++i) {
      ASSERT_EQ(first[static_cast<ptrdiff_t>(i)], expected[i]) << "row " << i;
    }
  }
}

TEST_F(StatusLineTest, WhereTextGoesElsewhereTheLineIsTheCurrentOne) {
  const std::string text = Flashelm(Run()).out;
  TerminalCommand run(Run(), File("text.txt"));
  EXPECT_EQ(run.Wait(), 0);
  std::ifstream file(File("text.txt"), std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
  EXPECT_NE(run.output().find("tok/s | RAM "), std::string::npos);
  EXPECT_EQ(run.output().find("\x1b[1;23r"), std::string::npos);
  // Taken away before the summary.
  EXPECT_NE(run.output().find("\r\x1b[KRAM peak"), std::string::npos)
      << run.output();
}

TEST_F(StatusLineTest, NothingOfItOnAPipe) {
  const auto result = Flashelm(Run());
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
  EXPECT_EQ(result.err.find('\x1b'), std::string::npos);
  EXPECT_EQ(result.err.find(" | "), std::string::npos);
}

TEST_F(StatusLineTest, ASignalGivesTheRowBackAtOnce) {
  TerminalCommand run(Run());
  run.Expect("tok/s | RAM");
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130);
  const std::string& output = run.output();
  const size_t given_back = output.rfind("\x1b[r");
  ASSERT_NE(given_back, std::string::npos);
  EXPECT_EQ(output.find("\x1b[1;23r", given_back), std::string::npos);
}

}  // namespace
}  // namespace flashelm::test
