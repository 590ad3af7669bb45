// Answers of an oracle, or of another machine, kept in a file.
#ifndef FLASHELM_TESTS_STORED_ANSWERS_H_
#define FLASHELM_TESTS_STORED_ANSWERS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flashelm {

// A test adds the answers it got, in a fixed order, and compares them with
// those in tests/data/NAME.txt; a name has a folder in front. Of thousands of
// answers the file has the beginnings of the first ones and, every so often, a
// digest of all that came before: enough to tell another answer from the
// oracle's, and where to look for it.
class StoredAnswers {
 public:
  explicit StoredAnswers(std::string name) : name_(std::move(name)) {}

  void Add(const std::vector<uint32_t>& ids);
  void Add(std::string_view text);
  // To the bit, but for which NaN a NaN is: processors differ in that.
  void Add(const std::vector<float>& values);

  bool is_empty() const { return num_answers_ == 0; }
  // Fails the test at the first line that the file has otherwise. What the file
  // would have to be is then written to the build directory.
  void ExpectStored();

 private:
  void Digest(std::string_view bytes);
  void EndAnswer(const std::string& shown);

  std::string name_;
  size_t num_answers_ = 0;
  uint64_t digest_ = 0xCBF29CE484222325u;  // FNV-1a's.
  std::vector<std::string> lines_;
};

}  // namespace flashelm

#endif  // FLASHELM_TESTS_STORED_ANSWERS_H_
