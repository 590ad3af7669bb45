#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "cli/chat_commands.h"
#include "cli/chat_template.h"
#include "cli/conversation.h"
#include "cli/engine_setup.h"
#include "cli/generator.h"
#include "cli/line_reader.h"
#include "cli/status_line.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace flashelm::cli {
namespace {

// A message is memory that the plan has to know; about 4000 words.
constexpr uint64_t kMaxMessageBytes = uint64_t{16} << 10;

// Reads and answers until the input ends.
class Chat {
 public:
  Chat(const Engine& engine, Conversation& conversation, LineReader& reader,
       uint64_t max_message_bytes, const CancelToken& cancel)
      : engine_(engine),
        conversation_(conversation),
        reader_(reader),
        max_message_bytes_(max_message_bytes),
        cancel_(cancel) {}

  // Without a person to see them, errors of lines are also the result's.
  Status Run() {
    while (true) {
      const auto event = ReadMessage();
      Status status = event ? OkStatus() : event.error();
      if (event && *event == LineEvent::kEnd) return FinalStatus();
      if (event && *event == LineEvent::kInterrupted) {
        if (IsAskedToEnd() || !reader_.is_interactive()) {
          return Cancelled("stopped while waiting for a message");
        }
        ClearInterrupt();
        continue;
      }
      if (status.ok()) {
        bool is_over = false;
        status = Handle(&is_over);
        if (is_over) return FinalStatus();
      }
      FLASHELM_RETURN_IF_ERROR(Report(status));
    }
  }

 private:
  // Lines until one does not end with a backslash.
  Result<LineEvent> ReadMessage() {
    message_.clear();
    for (const char* prompt = "> ";; prompt = ". ") {
      FLASHELM_ASSIGN_OR_RETURN(const LineEvent event,
                                reader_.Read(prompt, line_));
      if (event == LineEvent::kEnd && !message_.empty()) {
        return LineEvent::kLine;
      }
      if (event != LineEvent::kLine) return event;
      const bool goes_on = !line_.empty() && line_.back() == '\\';
      if (goes_on) line_.back() = '\n';
      if (message_.size() + line_.size() > max_message_bytes_) {
        return InvalidArgument("a message of more than ", max_message_bytes_,
                               " bytes was left out");
      }
      message_ += line_;
      if (!goes_on) return LineEvent::kLine;
    }
  }

  Status Handle(bool* is_over) {
    std::string_view text = message_;
    if (text.empty()) return OkStatus();
    if (text.front() == '/' && text.substr(0, 2) != "//") {
      FLASHELM_ASSIGN_OR_RETURN(
          const ChatCommandResult result,
          RunChatCommand(text, engine_, conversation_, cancel_));
      *is_over = result == ChatCommandResult::kExit;
      return OkStatus();
    }
    if (text.front() == '/') text.remove_prefix(1);
    const Status status = conversation_.Say(text, cancel_);
    if (status.code() != StatusCode::kInvalidArgument) {
      FLASHELM_RETURN_IF_ERROR(WriteOut("\n"));
    }
    if (conversation_.num_forgotten() > 0) {
      std::fprintf(
          stderr,
          "flashelm: the context was full: %llu of the oldest tokens "
          "were forgotten\n",
          static_cast<unsigned long long>(conversation_.num_forgotten()));
    }
    if (status.ok() && conversation_.stop_reason() == "context_full") {
      std::fprintf(stderr,
                   "flashelm: stopped: the context of %u positions is full; "
                   "/reset begins anew\n",
                   engine_.plan().context);
    }
    return status;
  }

  // Says what went wrong, and returns it where the chat cannot go on.
  Status Report(const Status& status) {
    if (status.ok()) return status;
    if (status.code() == StatusCode::kCancelled) {
      if (IsAskedToEnd() || !reader_.is_interactive()) return status;
      ClearInterrupt();
      return OkStatus();
    }
    if (status.code() == StatusCode::kInternal) return status;
    std::fprintf(stderr, "flashelm: %s\n", status.message().c_str());
    ++num_errors_;
    if (first_error_.ok()) first_error_ = status;
    // Of standard output, mostly: nobody would see the next answer.
    return status.code() == StatusCode::kResourceExhausted &&
                   std::ferror(stdout) != 0
               ? status
               : OkStatus();
  }

  Status FinalStatus() const {
    if (first_error_.ok() || reader_.is_interactive()) return OkStatus();
    return ErrorStatus(
        first_error_.code(),
        StatusMessage::Join(num_errors_, " of the lines failed; the first: ",
                            first_error_.message()));
  }

  const Engine& engine_;
  Conversation& conversation_;
  LineReader& reader_;
  const uint64_t max_message_bytes_;
  const CancelToken& cancel_;
  std::string line_;
  std::string message_;
  Status first_error_;
  uint64_t num_errors_ = 0;
};

}  // namespace

Status RunChat(const ChatArgs& args) {
  FLASHELM_RETURN_IF_ERROR(CheckIo(args.engine));
  FLASHELM_RETURN_IF_ERROR(CheckStopStrings(args.stop));
  ConversationOptions options = {args.sampler, args.n_predict,
                                 args.ctx_full == "shift", args.keep};
  options.sampler.seed = ChooseSeed(args.seed);
  FLASHELM_RETURN_IF_ERROR(CheckConversationOptions(options));
  FLASHELM_ASSIGN_OR_RETURN(const ChatTemplate chat_template,
                            ChatTemplate::Load(args.chat_template));
  const CancelToken& cancel = RepeatedInterruptToken();
  FLASHELM_ASSIGN_OR_RETURN(ModelFile model,
                            ModelFile::Open(args.engine.model));
  const uint32_t context = ContextOf(args.engine, model.config());
  const uint64_t max_message_bytes =
      std::min(kMaxMessageBytes, MaxTextBytes(model.tokenizer(), context));
  // Before the plan: it counts the code that is there.
  const std::unique_ptr<LineReader> reader =
      LineReader::Create(max_message_bytes);
  EngineNeeds needs;
  // A line and a message, each of which may have grown to twice what it needs,
  // from half of that.
  needs.caller_bytes =
      Conversation::NumBytes(model.config(), context, chat_template,
                             max_message_bytes) +
      StopBytes(args.stop) + 6 * max_message_bytes + reader->num_bytes();
  FLASHELM_ASSIGN_OR_RETURN(
      const std::unique_ptr<Engine> engine,
      LoadEngine(std::move(model), args.engine, needs, cancel));
  FLASHELM_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                            Session::Create(*engine));

  StatusLine status_line(!args.no_status);
  Conversation conversation(*engine, *session, chat_template, options,
                            args.stop, status_line);
  if (reader->is_interactive()) {
    std::fprintf(stderr, "Talking with %s. /help lists commands.\n",
                 engine->model().path().c_str());
  }
  return Chat(*engine, conversation, *reader, max_message_bytes, cancel).Run();
}

}  // namespace flashelm::cli
