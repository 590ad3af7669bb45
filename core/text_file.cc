#include "core/text_file.h"

#include <span>

#include "storage/file.h"

namespace flashelm {

Result<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  auto text = ReadWholeFile(path, max_bytes);
  if (!text && text.error().code() == StatusCode::kDataLoss) {
    return InvalidArgument(text.error().message());
  }
  return text;
}

Status WriteTextFile(const std::string& path, std::string_view text) {
  FLASHELM_ASSIGN_OR_RETURN(OutputFile file,
                            OutputFile::Create(path, text.size()));
  FLASHELM_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(text))));
  return file.Commit();
}

}  // namespace flashelm
