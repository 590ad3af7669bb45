// Compares every #include line with the table of rooms in CONTRIBUTING.md, so
// that an arrow that points the wrong way shows up the day it is drawn.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Room {
  std::vector<std::string> projects;   // Prefixes of our own headers.
  std::vector<std::string> libraries;  // Prefixes of third-party headers.
  bool may_use_system = true;          // Headers of the operating system.
};

// The longest matching folder counts: core/base/ is a room of its own.
const std::map<std::string, Room> kRooms = {
    {"cli/",
     {{"cli/", "include/flashelm/", "core/"},
      {"CLI/", "histedit.h", "nlohmann/"}}},
    {"examples/", {{"flashelm/"}, {}}},
    {"include/flashelm/", {{"flashelm/"}, {}, false}},
    {"core/",
     {{"core/", "predictor/", "storage/", "kernels/", "include/flashelm/"},
      {}}},
    {"core/base/", {{"core/base/"}, {"fmt/", "tl/"}}},
    {"predictor/", {{"predictor/", "core/base/", "kernels/"}, {"Eigen/"}}},
    {"storage/",
     {{"storage/", "core/base/"},
      {"liburing.h", "zstd.h", "xxhash.h", "nlohmann/"}}},
    {"kernels/", {{"kernels/"}, {"hwy/"}, false}},
    {"kernels/cpu.cc", {{"kernels/"}, {"hwy/"}}},
};

// Third-party headers that look like the system's, as they have no folder.
const std::set<std::string> kBareLibraries = {"liburing.h", "zstd.h",
                                              "xxhash.h", "histedit.h"};

bool HasPrefix(const std::string& text, const std::vector<std::string>& list) {
  for (const std::string& prefix : list) {
    if (text.compare(0, prefix.size(), prefix) == 0) return true;
  }
  return false;
}

// Why `room` may not include `header`; empty when it may.
std::string Complaint(const Room& room, const std::string& header,
                      bool is_quoted) {
  // Highway's own way of including itself is in quotes.
  if (is_quoted && header.compare(0, 4, "hwy/") != 0) {
    return HasPrefix(header, room.projects) ? "" : "another room";
  }
  // The standard library has neither a folder nor a suffix; C headers and the
  // system's end in .h, some in sys/ or linux/.
  const bool is_standard = header.find('.') == std::string::npos &&
                           header.find('/') == std::string::npos;
  if (is_standard) return "";
  const bool is_system = (header.find('/') == std::string::npos &&
                          !kBareLibraries.count(header)) ||
                         HasPrefix(header, {"sys/", "linux/"});
  if (is_system) {
    static const std::set<std::string> kC = {"stddef.h", "stdint.h",
                                             "stdbool.h", "stdio.h"};
    return room.may_use_system || kC.count(header) ? ""
                                                   : "the operating system";
  }
  return HasPrefix(header, room.libraries) ? "" : "a library";
}

const Room* RoomOf(const std::string& path) {
  const Room* found = nullptr;
  size_t longest = 0;
  for (const auto& [folder, room] : kRooms) {
    if (path.compare(0, folder.size(), folder) == 0 &&
        folder.size() > longest) {
      found = &room;
      longest = folder.size();
    }
  }
  return found;
}

TEST(IncludeRulesTest, EveryRoomIncludesOnlyWhatItMay) {
  const fs::path root(FLASHELM_SOURCE_DIR);
  const std::regex include(R"re(^\s*#\s*include\s*([<"])([^>"]+)[>"])re");
  int num_files = 0;
  for (const char* top : {"cli", "examples", "include", "core", "predictor",
                          "storage", "kernels"}) {
    if (!fs::exists(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".cc" && extension != ".h" && extension != ".hpp" &&
          extension != ".c") {
        continue;
      }
      ++num_files;
      const std::string path = fs::relative(entry.path(), root).string();
      const Room* room = RoomOf(path);
      ASSERT_NE(room, nullptr) << path << " stands in no room";
      std::ifstream file(entry.path());
      std::string line;
      for (int number = 1; std::getline(file, line); ++number) {
        std::smatch match;
        if (!std::regex_search(line, match, include)) continue;
        const std::string complaint =
            Complaint(*room, match[2], match[1] == "\"");
        EXPECT_EQ(complaint, "") << path << ":" << number << ": " << line;
      }
    }
  }
  EXPECT_GT(num_files, 50) << "the sources were not found";
}

TEST(IncludeRulesTest, NoticesArrowsThatPointTheWrongWay) {
  struct Case {
    const char* path;
    const char* header;
    bool is_quoted;
    bool is_allowed;
  };
  for (const Case& c : {
           Case{"kernels/a.cc", "kernels/b.h", true, true},
           Case{"kernels/a.cc", "core/base/status.h", true, false},
           Case{"kernels/a.cc", "hwy/highway.h", false, true},
           Case{"kernels/a.cc", "unistd.h", false, false},
           Case{"kernels/cpu.cc", "sys/auxv.h", false, true},
           Case{"storage/a.cc", "core/base/status.h", true, true},
           Case{"storage/a.cc", "core/engine.h", true, false},
           Case{"storage/a.cc", "kernels/matmul.h", true, false},
           Case{"core/base/a.cc", "core/engine.h", true, false},
           Case{"core/a.cc", "storage/file.h", true, true},
           Case{"core/a.cc", "nlohmann/json.hpp", false, false},
           Case{"core/a.cc", "cli/args.h", true, false},
           Case{"cli/a.cc", "storage/file.h", true, false},
           Case{"cli/a.cc", "CLI/CLI.hpp", false, true},
           Case{"predictor/a.cc", "Eigen/Dense", false, true},
           Case{"include/flashelm/a.h", "stdint.h", false, true},
           Case{"include/flashelm/a.h", "unistd.h", false, false},
       }) {
    EXPECT_EQ(Complaint(*RoomOf(c.path), c.header, c.is_quoted).empty(),
              c.is_allowed)
        << c.path << " includes " << c.header;
  }
}

}  // namespace
