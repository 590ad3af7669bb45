// --device-profile: what was measured on one device, used on another.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"
#include "tests/core/checkpoint_builder.h"

namespace flashelm::test {
namespace {

using nlohmann::json;

class DeviceProfileCliTest : public CliFixture {
 protected:
  // A profile of the device that the model is on, as the command wrote it.
  json Measure() {
    const auto measured = Flashelm({"bench", "io", "-m", Model(), "--time", "1",
                                    "--save", File("device.json")});
    EXPECT_EQ(measured.exit_code, 0) << measured.err;
    return json::parse(ReadFile(File("device.json")));
  }
  std::string Save(const std::string& name, const json& profile) {
    WriteFile(File(name), profile.dump() + "\n");
    return File(name);
  }
};

TEST_F(DeviceProfileCliTest, AnotherDevicesIsUsedWithAWarning) {
  json profile = Measure();
  const auto own_id = profile["device_id"].get<uint64_t>();
  ASSERT_NE(own_id, 0u);
  // Nobody measures that, so it is known whose figure is used.
  constexpr uint64_t kRate = 123456789012;
  json rate = profile["best"].back();
  ASSERT_EQ(rate["backend"], "pread");
  rate["bytes_per_second"] = kRate;
  profile["rates"] = profile["best"] = {rate};

  struct Case {
    const char* name;
    uint64_t device_id;
    bool is_warned_of;
  };
  for (const Case& c :
       {Case{"own.json", own_id, false}, Case{"other.json", own_id + 1, true},
        Case{"unknown.json", 0, false}}) {
    SCOPED_TRACE(c.name);
    profile["device_id"] = c.device_id;
    const std::string path = Save(c.name, profile);
    const auto plan = Flashelm({"plan", "-m", Model(), "--json", "--io",
                                "pread", "--device-profile", path});
    ASSERT_EQ(plan.exit_code, 0) << plan.err;
    const json printed = json::parse(plan.out);
    EXPECT_EQ(printed["read_rate_source"], "profile");
    EXPECT_EQ(printed["read_bytes_per_second"], kRate);

    const std::vector<std::string> run = {
        "run",    "-m", Model(), "-p",    "Once upon a time", "-n", "3",
        "--temp", "0",  "--io",  "pread", "--device-profile", path};
    const auto ran = Flashelm(run);
    EXPECT_EQ(ran.exit_code, 0) << ran.err;
    const std::string warning =
        "flashelm: " + path + " was measured on another device than that of " +
        Model() + ", with " + Model() + "; it is used nevertheless\n";
    for (const CommandResult& result : {plan, ran}) {
      EXPECT_EQ(result.err.find(warning) != std::string::npos, c.is_warned_of)
          << result.err;
      EXPECT_EQ(result.out.find("another device"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace flashelm::test
