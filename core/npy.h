// Arrays in NumPy's file format, version 1.0.
#ifndef FLASHELM_CORE_NPY_H_
#define FLASHELM_CORE_NPY_H_

#include <cstdint>
#include <span>
#include <string>

#include "core/base/status.h"
#include "storage/output_file.h"

namespace flashelm {

// Writes a float32 matrix row by row. The file appears at Commit(). One thread.
class NpyWriter {
 public:
  // What a writer takes of memory: the buffer of its file.
  static constexpr uint64_t kBytes = OutputFile::kBufferBytes + 4096;

  // Errors as OutputFile::Create().
  static Result<NpyWriter> Create(const std::string& path, uint64_t rows,
                                  uint64_t cols);

  // `values`: whole rows, the next ones.
  Status Append(std::span<const float> values);

  // kInternal: the array is not complete.
  Status Commit();

 private:
  NpyWriter(OutputFile file, uint64_t num_left)
      : file_(std::move(file)), num_left_(num_left) {}

  OutputFile file_;
  uint64_t num_left_;  // Values.
};

}  // namespace flashelm

#endif  // FLASHELM_CORE_NPY_H_
