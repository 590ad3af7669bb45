#include "core/npy.h"

#include <utility>

namespace flashelm {

Result<NpyWriter> NpyWriter::Create(const std::string& path, uint64_t rows,
                                    uint64_t cols) {
  // Magic, version, length of what follows; the whole header is a multiple of
  // 64 bytes, filled with spaces and ended by a newline.
  constexpr size_t kPrefixBytes = 10;
  constexpr size_t kAlignment = 64;
  std::string dictionary =
      StatusMessage::Join("{'descr': '<f4', 'fortran_order': False, 'shape': (",
                          rows, ", ", cols, "), }");
  const size_t unpadded = kPrefixBytes + dictionary.size() + 1;
  dictionary.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
  dictionary.push_back('\n');
  std::string header("\x93NUMPY\x01\x00", 8);
  header.push_back(static_cast<char>(dictionary.size() & 0xFF));
  header.push_back(static_cast<char>(dictionary.size() >> 8));
  header += dictionary;

  FLASHELM_ASSIGN_OR_RETURN(
      OutputFile file,
      OutputFile::Create(path, header.size() + rows * cols * sizeof(float)));
  FLASHELM_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(header))));
  return NpyWriter(std::move(file), rows * cols);
}

Status NpyWriter::Append(std::span<const float> values) {
  if (values.size() > num_left_) {
    return Internal(file_.path(), ": ", values.size(), " values where ",
                    num_left_, " are missing");
  }
  num_left_ -= values.size();
  return file_.Append(std::as_bytes(values));
}

Status NpyWriter::Commit() {
  if (num_left_ != 0) {
    return Internal(file_.path(), ": ", num_left_, " values are missing");
  }
  return file_.Commit();
}

}  // namespace flashelm
