// A model of random weights, for benchmarks that nobody gave a file.
#ifndef FLASHELM_BENCH_SMALL_MODEL_H_
#define FLASHELM_BENCH_SMALL_MODEL_H_

#include <memory>
#include <string>

#include "core/base/status.h"

namespace flashelm {

// Some 12 million weights as bf16, 23 MB, in a temporary directory that goes
// with it.
class SmallModel {
 public:
  // kResourceExhausted: no directory can be made, or there is no room in it.
  static Result<std::unique_ptr<SmallModel>> Write();
  // The same where `path` is empty, which then is that file's; null elsewhere.
  static Result<std::unique_ptr<SmallModel>> WriteUnlessGiven(
      std::string& path);
  ~SmallModel();
  SmallModel(const SmallModel&) = delete;
  SmallModel& operator=(const SmallModel&) = delete;

  // Of the model file.
  std::string path() const { return directory_ + "/small.felm"; }

 private:
  explicit SmallModel(std::string directory)
      : directory_(std::move(directory)) {}

  std::string directory_;
};

}  // namespace flashelm

#endif  // FLASHELM_BENCH_SMALL_MODEL_H_
