// What was computed of a prompt, kept in a file from one run to the next.
#ifndef FLASHELM_CLI_PROMPT_CACHE_H_
#define FLASHELM_CLI_PROMPT_CACHE_H_

#include <cstdint>
#include <span>
#include <string>

#include "core/session.h"

namespace flashelm::cli {

// What the calls below take, for the plan.
uint64_t PromptCacheBytes(uint32_t context);

// Puts into the new session as many of the prompt's first tokens as the file
// at `path` has, but not the last one, whose logits are wanted, and returns how
// many these are; 0 where there is no file yet. `*has_all`: whether the file
// has the whole prompt, so that nothing is to be saved. Errors as
// SessionFile::Open() and Load().
Result<uint32_t> LoadPromptPrefix(const std::string& path,
                                  std::span<const TokenId> prompt,
                                  Session& session, bool* has_all);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_PROMPT_CACHE_H_
