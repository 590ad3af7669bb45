// flashelm doctor: it goes on where something cannot be checked, and leaves
// nothing behind.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class DoctorTest : public CliFixture {
 protected:
  static std::vector<std::string> Doctor(const std::string& path,
                                         std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"doctor", path, "--time", "1",
                                     "-c",     "64", "-t",     "1"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static json Examine(const std::string& path, CommandOptions options = {}) {
    const auto result = Flashelm(Doctor(path, {"--json"}), options);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }
};

TEST_F(DoctorTest, MeasuresADirectoryAndLeavesItAsItWas) {
  const TempDirectory directory;
  const json found = Examine(directory.path());
  EXPECT_TRUE(directory.List().empty());
  EXPECT_EQ(found["models"].size(), 12u);
  if (!found["storage"]["error"].is_null()) {
    GTEST_SKIP() << found["storage"]["error"];
  }
  EXPECT_GT(found["storage"]["rates"].size(), 10u);
  for (const json& model : found["models"]) {
    if (!model["planned_bytes"].is_null()) {
      EXPECT_GT(model["gen_tps"].get<double>(), 0);
    }
    EXPECT_LE(model["minimum_budget_bytes"], model["resident_budget_bytes"]);
  }
}

TEST_F(DoctorTest, WritesAProfileThatPlanTakes) {
  const std::string profile = File("doctor.json");
  const auto result = Flashelm(Doctor(Model(), {"-o", profile}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* words :
       {"Machine", "Memory", "Storage of", "3B", "What to change", "SIMD"}) {
    EXPECT_NE(result.out.find(words), std::string::npos) << words;
  }
  const auto planned =
      Flashelm({"plan", "--shape", "270M", "-c", "64", "--mem-budget", "25%",
                "--device-profile", profile, "--json"});
  ASSERT_EQ(planned.exit_code, 0) << planned.err;
  const json plan = json::parse(planned.out);
  EXPECT_EQ(plan["read_rate_source"], "profile");
  EXPECT_GT(plan["forecasts"][0]["gen_tps"]["device"].get<double>(), 0);
}

// Nobody can make a file there.
TEST_F(DoctorTest, GoesOnWhereNothingCanBeWritten) {
  const json found = Examine("/proc");
  EXPECT_NE(found["storage"]["error"].get<std::string>().find("/proc"),
            std::string::npos);
  EXPECT_TRUE(found["storage"]["direct_io"].is_null());
  EXPECT_TRUE(found["storage"]["rates"].empty());
  EXPECT_EQ(found["models"].size(), 12u);
  bool is_advised = false;
  for (const json& advice : found["advice"]) {
    is_advised |= advice["key"] == "measure-storage";
  }
  EXPECT_TRUE(is_advised);
  // What was asked for is not there, so this failed.
  const auto result = Flashelm(Doctor("/proc", {"-o", File("never.json")}));
  EXPECT_NE(result.exit_code, 0);
  EXPECT_NE(result.out.find("What to change"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(File("never.json")));
}

TEST_F(DoctorTest, GoesOnWhereThereIsNoRoom) {
  const TempDirectory directory;
  CommandOptions options;
  options.max_file_bytes = 1 << 20;
  const json found = Examine(directory.path(), options);
  EXPECT_FALSE(found["storage"]["error"].is_null());
  EXPECT_TRUE(directory.List().empty());
  EXPECT_EQ(found["models"].size(), 12u);
}

TEST_F(DoctorTest, RefusesAPlaceThatThereIsNot) {
  const auto result = Flashelm(Doctor(File("none")));
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("none"), std::string::npos);
}

}  // namespace
}  // namespace flashelm::test
