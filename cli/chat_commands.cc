#include "cli/chat_commands.h"

#include <charconv>
#include <cstdio>

#include "core/base/format.h"
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

constexpr char kHelp[] =
    "/help            this list\n"
    "/reset           forget the conversation\n"
    "/stats           figures of the last answer, and how full the context is\n"
    "/save FILE       write the conversation to a file\n"
    "/load FILE       go on with one that was saved from the same model\n"
    "/set             show what can be set\n"
    "/set KEY VALUE   set it\n"
    "/exit            end, as Ctrl-D does\n"
    "A line that ends with \\ goes on in the next one. // begins a message "
    "that "
    "\nbegins with /. Ctrl-C ends an answer and keeps the conversation.\n";

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// The first word, and the rest in `text`.
std::string_view TakeWord(std::string_view& text) {
  const std::string_view word = text.substr(0, text.find(' '));
  text = Trimmed(text.substr(word.size()));
  return word;
}

template <class T>
Status ParseValue(std::string_view key, std::string_view text, T& value) {
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument("/set ", key, ": \"", text,
                           "\" is no number of the kind expected");
  }
  return OkStatus();
}

Status SetOne(std::string_view key, std::string_view value,
              ConversationOptions& options) {
  SamplerOptions& sampler = options.sampler;
  if (key == "temp") return ParseValue(key, value, sampler.temperature);
  if (key == "top-k") return ParseValue(key, value, sampler.top_k);
  if (key == "top-p") return ParseValue(key, value, sampler.top_p);
  if (key == "min-p") return ParseValue(key, value, sampler.min_p);
  if (key == "repeat-penalty") {
    return ParseValue(key, value, sampler.repeat_penalty);
  }
  if (key == "seed") return ParseValue(key, value, sampler.seed);
  if (key == "n-predict") return ParseValue(key, value, options.n_predict);
  if (key == "keep") return ParseValue(key, value, options.keep);
  if (key == "ctx-full") {
    if (value != "stop" && value != "shift") {
      return InvalidArgument("/set ctx-full: \"", value,
                             "\" is neither stop nor shift");
    }
    options.shifts_context = value == "shift";
    return OkStatus();
  }
  return InvalidArgument("/set: there is no \"", key,
                         "\"; /set alone shows what there is");
}

Status Set(std::string_view rest, ConversationOptions& options) {
  const SamplerOptions& sampler = options.sampler;
  if (rest.empty()) {
    std::fputs(
        fmt::format("temp {}\ntop-k {}\ntop-p {}\nmin-p {}\nrepeat-penalty {}\n"
                    "seed {}\nn-predict {}\nctx-full {}\nkeep {}\n",
                    sampler.temperature, sampler.top_k, sampler.top_p,
                    sampler.min_p, sampler.repeat_penalty, sampler.seed,
                    options.n_predict,
                    options.shifts_context ? "shift" : "stop", options.keep)
            .c_str(),
        stderr);
    return OkStatus();
  }
  const std::string_view key = TakeWord(rest);
  ConversationOptions changed = options;
  FLASHELM_RETURN_IF_ERROR(SetOne(key, rest, changed));
  FLASHELM_RETURN_IF_ERROR(CheckConversationOptions(changed));
  options = changed;
  return OkStatus();
}

Status Save(const std::string& path, const Engine& engine,
            Conversation& conversation, const CancelToken& cancel) {
  FLASHELM_RETURN_IF_ERROR(CheckOutputPath(path, {engine.model().path()}));
  FLASHELM_RETURN_IF_ERROR(conversation.Save(path, cancel));
  std::fprintf(stderr, "%zu tokens were saved to %s\n",
               conversation.tokens().size(), path.c_str());
  return OkStatus();
}

Status Load(const std::string& path, Conversation& conversation) {
  FLASHELM_RETURN_IF_ERROR(conversation.Load(path));
  std::fprintf(stderr, "%zu tokens were loaded from %s\n",
               conversation.tokens().size(), path.c_str());
  return OkStatus();
}

void ShowStats(const Engine& engine, const Conversation& conversation) {
  std::fprintf(stderr, "context: %zu of %u tokens\n",
               conversation.tokens().size(), engine.plan().context);
  const std::string summary = conversation.Summary();
  if (!summary.empty()) {
    std::fprintf(stderr, "last answer: %s\n", summary.c_str());
  }
}

}  // namespace

Result<ChatCommandResult> RunChatCommand(std::string_view line,
                                         const Engine& engine,
                                         Conversation& conversation,
                                         const CancelToken& cancel) {
  std::string_view rest = Trimmed(line);
  const std::string_view command = TakeWord(rest);
  const bool takes_file = command == "/save" || command == "/load";
  const bool takes_any = takes_file || command == "/set";
  if (takes_file && rest.empty()) {
    return InvalidArgument(command, " needs the name of a file");
  }
  if (command != "/help" && command != "/reset" && command != "/stats" &&
      command != "/exit" && !takes_any) {
    return InvalidArgument("there is no command ", command,
                           "; /help lists those there are");
  }
  if (!takes_any && !rest.empty()) {
    return InvalidArgument(command, " takes nothing after it, found \"", rest,
                           "\"");
  }
  if (command == "/exit") return ChatCommandResult::kExit;
  if (command == "/help") std::fputs(kHelp, stderr);
  if (command == "/stats") ShowStats(engine, conversation);
  if (command == "/reset") conversation.Reset();
  if (command == "/set") {
    FLASHELM_RETURN_IF_ERROR(Set(rest, conversation.options()));
  }
  if (command == "/save") {
    FLASHELM_RETURN_IF_ERROR(
        Save(std::string(rest), engine, conversation, cancel));
  }
  if (command == "/load") {
    FLASHELM_RETURN_IF_ERROR(Load(std::string(rest), conversation));
  }
  return ChatCommandResult::kGoOn;
}

}  // namespace flashelm::cli
