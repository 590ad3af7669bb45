#include "core/text_file.h"

#include <span>

#include "storage/file.h"
#include "storage/output_file.h"

namespace flashelm {

Result<std::string> ReadTextFile(const std::string& path) {
  return ReadWholeFile(path, kMaxTextBytes);
}

Status WriteTextFile(const std::string& path, std::string_view text) {
  FLASHELM_ASSIGN_OR_RETURN(OutputFile file,
                            OutputFile::Create(path, text.size()));
  FLASHELM_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(text))));
  return file.Commit();
}

}  // namespace flashelm
