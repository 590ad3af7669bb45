#include "cli/prompt_cache.h"

#include <algorithm>

#include "core/session_file.h"

namespace flashelm::cli {

uint64_t PromptCacheBytes(uint32_t context) {
  // One after the other.
  return std::max(SessionFile::LoadBytes(context), SessionFile::SaveBytes());
}

Result<uint32_t> LoadPromptPrefix(const std::string& path,
                                  std::span<const TokenId> prompt,
                                  Session& session, bool* has_all) {
  *has_all = false;
  const auto file = SessionFile::Open(path, session);
  if (!file && file.error().code() == StatusCode::kNotFound) return 0u;
  if (!file) return Unexpected(file.error());
  const auto computed = file->tokens().first(
      std::min<size_t>(file->position(), file->tokens().size()));
  const auto shared =
      static_cast<uint32_t>(std::mismatch(computed.begin(), computed.end(),
                                          prompt.begin(), prompt.end())
                                .first -
                            computed.begin());
  *has_all = shared == prompt.size();
  const uint32_t reused =
      std::min(shared, static_cast<uint32_t>(prompt.size() - 1));
  if (reused > 0) FLASHELM_RETURN_IF_ERROR(file->Load(session, reused));
  return reused;
}

}  // namespace flashelm::cli
