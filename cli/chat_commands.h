// What a line that begins with "/" does in a chat.
#ifndef FLASHELM_CLI_CHAT_COMMANDS_H_
#define FLASHELM_CLI_CHAT_COMMANDS_H_

#include <string>
#include <string_view>

#include "cli/conversation.h"
#include "core/base/cancel.h"
#include "core/base/status.h"
#include "core/engine.h"

namespace flashelm::cli {

enum class ChatCommandResult { kGoOn, kExit };

// Runs `line`, which begins with "/"; what there is to say goes to standard
// error. kInvalidArgument: there is no such command, or its arguments are
// wrong; nothing was changed. Other errors as Conversation has them.
Result<ChatCommandResult> RunChatCommand(std::string_view line,
                                         const Engine& engine,
                                         Conversation& conversation,
                                         const CancelToken& cancel);

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CHAT_COMMANDS_H_
