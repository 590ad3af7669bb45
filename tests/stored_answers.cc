#include "tests/stored_answers.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>

namespace flashelm {
namespace {

// Answers that the file shows, and how much of each.
constexpr size_t kShownAnswers = 40;
constexpr size_t kShownIds = 24;
constexpr size_t kShownBytes = 80;
constexpr size_t kShownFloats = 6;
// Answers from one digest to the next.
constexpr size_t kDigestStep = 1000;

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F && c != '\\') {
      out += c;
    } else {
      out += fmt::format("\\x{:02X}", byte);
    }
  }
  return out;
}

std::vector<std::string> ReadLines(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

}  // namespace

void StoredAnswers::Digest(std::string_view bytes) {
  for (const char c : bytes) {
    digest_ ^= static_cast<unsigned char>(c);
    digest_ *= 0x100000001B3u;
  }
}

void StoredAnswers::EndAnswer(const std::string& shown) {
  if (num_answers_ < kShownAnswers) lines_.push_back(shown);
  ++num_answers_;
  if (num_answers_ % kDigestStep == 0) {
    lines_.push_back(fmt::format("{} answers: {:016x}", num_answers_, digest_));
  }
}

void StoredAnswers::Add(const std::vector<uint32_t>& ids) {
  // As text, which is the same on every machine, with an end.
  Digest(fmt::format("{};", fmt::join(ids, " ")));
  const size_t num_shown = std::min(ids.size(), kShownIds);
  EndAnswer(fmt::format(
      "{} ids: {}", ids.size(),
      fmt::join(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(num_shown),
                " ")));
}

void StoredAnswers::Add(std::string_view text) {
  Digest(fmt::format("{}:", text.size()));
  Digest(text);
  EndAnswer(fmt::format("{} bytes: \"{}\"", text.size(),
                        Printable(text.substr(0, kShownBytes))));
}

void StoredAnswers::Add(const std::vector<float>& values) {
  std::string words;
  std::string shown = fmt::format("{} floats:", values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string word =
        std::isnan(values[i])
            ? "nan"
            : fmt::format("{:08x}", std::bit_cast<uint32_t>(values[i]));
    words += word;
    if (i < kShownFloats) shown += " " + word;
  }
  Digest(fmt::format("{}:{}", values.size(), words));
  EndAnswer(shown);
}

void StoredAnswers::ExpectStored() {
  std::vector<std::string> lines = lines_;
  lines.push_back(
      fmt::format("all {} answers: {:016x}", num_answers_, digest_));
  const std::string path = FLASHELM_SOURCE_DIR "/tests/data/" + name_ + ".txt";
  const std::vector<std::string> stored = ReadLines(path);
  if (lines == stored) return;

  const std::string written =
      FLASHELM_BINARY_DIR "/tests/data/" + name_ + ".txt";
  std::filesystem::create_directories(
      std::filesystem::path(written).parent_path());
  std::ofstream file(written);
  for (const std::string& line : lines) file << line << '\n';
  const size_t num_common = std::min(lines.size(), stored.size());
  for (size_t i = 0; i < num_common; ++i) {
    ASSERT_EQ(lines[i], stored[i])
        << path << ":" << i + 1 << "; the answers are in " << written;
  }
  FAIL() << path << " has " << stored.size() << " lines instead of "
         << lines.size() << "; the answers are in " << written;
}

}  // namespace flashelm
