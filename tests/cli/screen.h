// What a terminal would show of the bytes written to it.
#ifndef FLASHELM_TESTS_CLI_SCREEN_H_
#define FLASHELM_TESTS_CLI_SCREEN_H_

#include <string>
#include <string_view>
#include <vector>

namespace flashelm::test {

// As much of a VT100 as flashelm uses: ASCII, wrapping at the last column, a
// scrolling region, saving the cursor. Anything else fails the test.
class Screen {
 public:
  Screen(int rows, int columns);
  void Write(std::string_view bytes);

  // Rows that scrolled out at the top, then those on the screen, each without
  // the blanks at its end.
  std::vector<std::string> Rows() const;
  std::string LastRow() const { return Rows().back(); }
  // Whether all rows scroll.
  bool scrolls_whole() const { return bottom_ == rows_ - 1; }

 private:
  struct Cursor {
    int row = 0;
    int column = 0;
    bool wraps = false;  // Before the next character.
  };
  void Put(char c);
  void LineFeed();
  void Escape(std::string_view& bytes);
  void Control(std::string_view parameters, char final);

  const int rows_;
  const int columns_;
  int bottom_;  // Of the scrolling region, which begins at the top.
  Cursor cursor_;
  Cursor saved_;
  std::vector<std::string> scrolled_;
  std::vector<std::string> screen_;
};

}  // namespace flashelm::test

#endif  // FLASHELM_TESTS_CLI_SCREEN_H_
