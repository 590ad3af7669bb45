#include "tests/cli/screen.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace flashelm::test {

Screen::Screen(int rows, int columns)
    : rows_(rows),
      columns_(columns),
      bottom_(rows - 1),
      screen_(static_cast<size_t>(rows),
              std::string(static_cast<size_t>(columns), ' ')) {}

void Screen::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const char c = bytes.front();
    bytes.remove_prefix(1);
    if (c == '\x1b') {
      Escape(bytes);
    } else if (c == '\r') {
      cursor_.column = 0;
      cursor_.wraps = false;
    } else if (c == '\n') {
      LineFeed();
    } else {
      ASSERT_TRUE(c >= ' ' && c <= '~') << "byte " << static_cast<int>(c);
      Put(c);
    }
  }
}

void Screen::Put(char c) {
  if (cursor_.wraps) {
    cursor_.column = 0;
    LineFeed();
  }
  screen_[cursor_.row][cursor_.column] = c;
  cursor_.wraps = cursor_.column == columns_ - 1;
  if (!cursor_.wraps) ++cursor_.column;
}

void Screen::LineFeed() {
  cursor_.wraps = false;
  if (cursor_.row == bottom_) {
    scrolled_.push_back(screen_.front());
    const auto end = screen_.begin() + bottom_;
    std::rotate(screen_.begin(), screen_.begin() + 1, end + 1);
    end->assign(static_cast<size_t>(columns_), ' ');
  } else if (cursor_.row < rows_ - 1) {
    ++cursor_.row;
  }
}

void Screen::Escape(std::string_view& bytes) {
  ASSERT_FALSE(bytes.empty());
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  if (kind == '7') {
    saved_ = cursor_;
  } else if (kind == '8') {
    cursor_ = saved_;
  } else if (kind == 'D') {
    LineFeed();
  } else {
    ASSERT_EQ(kind, '[');
    const size_t size = bytes.find_first_not_of("0123456789;");
    ASSERT_NE(size, std::string_view::npos);
    Control(bytes.substr(0, size), bytes[size]);
    bytes.remove_prefix(size + 1);
  }
}

void Screen::Control(std::string_view parameters, char final) {
  const std::string text(parameters);
  const size_t semicolon = text.find(';');
  const int first = std::atoi(text.c_str());
  const int second = semicolon == std::string::npos
                         ? 0
                         : std::atoi(text.c_str() + semicolon + 1);
  std::string& row = screen_[cursor_.row];
  switch (final) {
    case 'A':
      cursor_.row = std::max(0, cursor_.row - std::max(1, first));
      cursor_.wraps = false;
      break;
    case 'H':
      cursor_ = {std::clamp(first, 1, rows_) - 1,
                 std::clamp(second, 1, columns_) - 1, false};
      break;
    case 'K':
      std::fill(row.begin() + (first == 2 ? 0 : cursor_.column), row.end(),
                ' ');
      break;
    case 'r':
      ASSERT_LE(first, 1) << "regions begin at the top";
      bottom_ = second == 0 ? rows_ - 1 : second - 1;
      cursor_ = {};
      break;
    default:
      FAIL() << "no such sequence: " << text << final;
  }
}

std::vector<std::string> Screen::Rows() const {
  std::vector<std::string> rows = scrolled_;
  rows.insert(rows.end(), screen_.begin(), screen_.end());
  for (std::string& row : rows) row.erase(row.find_last_not_of(' ') + 1);
  return rows;
}

}  // namespace flashelm::test
