// A line of figures that stays at the bottom of the terminal while text runs.
#ifndef FLASHELM_CLI_STATUS_LINE_H_
#define FLASHELM_CLI_STATUS_LINE_H_

#include <chrono>
#include <string_view>

namespace flashelm::cli {

// On a terminal only. Where text goes to the same terminal, the last row is
// kept out of what scrolls, so text and line cannot meet: the cursor is saved,
// the line drawn, the cursor put back, in one write. Where text goes elsewhere,
// the line is the terminal's current one. Nothing on standard error that is no
// terminal, on one that says it is "dumb", or on one of under three rows. One
// at a time, one thread.
class StatusLine {
 public:
  explicit StatusLine(bool is_wanted);
  ~StatusLine() { End(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  // Whether another line is worth making: there is a place for it, and the last
  // one is a tenth of a second old.
  bool IsDue() const;
  // Draws `text`, ASCII, cut to the terminal's width.
  void Show(std::string_view text);
  // Gives the row back. Show() draws again after it.
  void End();

 private:
  using Clock = std::chrono::steady_clock;

  enum class Place { kNone, kHere, kLastRow };
  Place place_ = Place::kNone;
  int rows_ = 0;  // Of the terminal, when the last row was taken; 0: it is not.
  bool is_shown_ = false;
  Clock::time_point shown_at_;
};

// Gives the row back at once, and until End() nothing is drawn. For handlers of
// signals, after which the process may end.
void TakeDownStatusLine();

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_STATUS_LINE_H_
