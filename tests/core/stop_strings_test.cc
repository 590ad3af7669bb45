#include "core/stop_strings.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace flashelm {
namespace {

struct StopCase {
  const char* name;
  std::vector<std::string> stop;
  std::vector<std::string> pieces;
  std::string shown;
  bool stopped;
};

TEST(StopStringsTest, ShowsTheTextBeforeTheFirstStopString) {
  const StopCase cases[] = {
      {"no stop strings", {}, {"ab", "c"}, "abc", false},
      {"an empty one", {""}, {"ab"}, "ab", false},
      {"in one piece", {"STOP"}, {"go STOP on"}, "go ", true},
      {"over pieces", {"STOP"}, {"go S", "T", "OP on"}, "go ", true},
      {"only begun", {"STOP"}, {"go STO"}, "go STO", false},
      {"begun twice", {"aab"}, {"a", "a", "a", "b"}, "a", true},
      {"earliest of two", {"yy", "x"}, {"a", "yx", "yy"}, "ay", true},
      {"at the very start", {"a"}, {"a", "b"}, "", true},
      {"text after the stop", {"a"}, {"xa", "b", "c"}, "x", true},
  };
  for (const StopCase& c : cases) {
    SCOPED_TRACE(c.name);
    StopStrings stop(c.stop);
    std::string shown;
    for (const std::string& piece : c.pieces) shown += stop.Push(piece);
    shown += stop.Finish();
    EXPECT_EQ(shown, c.shown);
    EXPECT_EQ(stop.stopped(), c.stopped);
  }
}

TEST(StopStringsTest, HoldsBackNoMoreThanItMust) {
  StopStrings stop({"\nQ:"});
  EXPECT_EQ(stop.Push("hello"), "hello");
  EXPECT_EQ(stop.Push(" there\n"), " there");
  EXPECT_EQ(stop.Push("A"), "\nA");
}

}  // namespace
}  // namespace flashelm
