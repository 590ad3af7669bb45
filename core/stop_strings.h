// Ends generation at given strings.
#ifndef FLASHELM_CORE_STOP_STRINGS_H_
#define FLASHELM_CORE_STOP_STRINGS_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace flashelm {

// Passes text through until one of the strings appears in it. Text that may be
// the beginning of one is held back until that is decided. One thread.
class StopStrings {
 public:
  // Empty strings are ignored.
  explicit StopStrings(std::vector<std::string> strings);

  // Nothing is allocated from here on as long as what is held back and what is
  // added next have at most so many bytes.
  void Reserve(size_t num_bytes);

  // Adds text. Returns what can be shown, up to and without a stop string,
  // until the next call.
  std::string_view Push(std::string_view text);

  // What is still held back, once no more text comes.
  std::string_view Finish();

  bool stopped() const { return stopped_; }
  // Whether text waits that may be the beginning of a stop string.
  bool is_holding() const { return !held_.empty(); }

 private:
  std::vector<std::string> strings_;
  std::string held_;   // Not decided yet.
  std::string shown_;  // What the last call returned.
  bool stopped_ = false;
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_STOP_STRINGS_H_
