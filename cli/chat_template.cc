#include "cli/chat_template.h"

#include <algorithm>
#include <utility>

#include "cli/generator.h"
#include "core/model_config.h"  // For its reader of JSON.
#include "core/text_file.h"

namespace flashelm::cli {
namespace {

constexpr std::string_view kText = "{text}";
constexpr std::string_view kEos = "{eos}";
constexpr std::string_view kBos = "{bos}";
constexpr uint64_t kMaxFileBytes = uint64_t{16} << 10;
// What a text may have: less than the tokens that a session file takes behind
// its last position.
constexpr size_t kMaxAnswerEndBytes = 64;
constexpr size_t kMaxTextBytes = 4096;

std::string Replaced(std::string text, std::string_view what,
                     std::string_view by) {
  const size_t at = text.find(what);
  if (at != std::string::npos) text.replace(at, what.size(), by);
  return text;
}

// Appends the tokens of `pattern`, of which the parts between special tokens
// are encoded one by one.
void AppendTokens(const Tokenizer& tokenizer, std::string_view pattern,
                  std::string_view message, std::vector<TokenId>& tokens) {
  while (!pattern.empty()) {
    const size_t at = std::min(pattern.find(kEos), pattern.find(kBos));
    if (at > 0) {
      const std::vector<TokenId> some = tokenizer.Encode(
          Replaced(std::string(pattern.substr(0, at)), kText, message),
          /*add_bos=*/false);
      tokens.insert(tokens.end(), some.begin(), some.end());
    }
    if (at == std::string_view::npos) return;
    const bool is_eos = pattern.substr(at, kEos.size()) == kEos;
    tokens.push_back(is_eos ? tokenizer.eos_id() : tokenizer.bos_id());
    pattern.remove_prefix(at + (is_eos ? kEos : kBos).size());
  }
}

ErrorStatus WrongKind(std::string_view name, std::string_view key,
                      std::string_view kind) {
  return InvalidArgument("--template: ", name, ": \"", key, "\" is no ", kind);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::Load(const std::string& name_or_file) {
  ChatTemplate result;
  if (name_or_file == "raw") return result;
  if (name_or_file == "zephyr") {
    result.user_ = "<|user|>\n{text}{eos}\n<|assistant|>\n";
    result.answer_end_ = "{eos}\n";
    result.stop_ = {"<|user|>", "<|assistant|>", "<|system|>", "</s>"};
    result.answer_is_apart_ = true;
    return result;
  }
  const auto text = ReadTextFile(name_or_file, kMaxFileBytes);
  if (!text) {
    return InvalidArgument("--template: ", text.error().message(),
                           "; expected raw, zephyr or a file");
  }
  const auto json = ParseJson(*text, name_or_file);
  if (!json) {
    return InvalidArgument("--template: ", json.error().message());
  }
  if (!json->is_object()) {
    return InvalidArgument("--template: ", name_or_file,
                           ": expected a JSON object");
  }
  for (const auto& [key, value] : json->items()) {
    if (key == "stop") {
      if (!value.is_array()) return WrongKind(name_or_file, key, "list");
      for (const auto& stop : value) {
        if (!stop.is_string()) {
          return WrongKind(name_or_file, key, "list of texts");
        }
        result.stop_.push_back(stop.get<std::string>());
      }
      continue;
    }
    std::string* const target = key == "begin"        ? &result.begin_
                                : key == "user"       ? &result.user_
                                : key == "answer_end" ? &result.answer_end_
                                                      : nullptr;
    if (target == nullptr) {
      return InvalidArgument("--template: ", name_or_file, ": \"", key,
                             "\" is none of begin, user, answer_end and stop");
    }
    if (!value.is_string()) return WrongKind(name_or_file, key, "text");
    *target = value.get<std::string>();
  }
  FLASHELM_RETURN_IF_ERROR(result.Check(name_or_file));
  return result;
}

Status ChatTemplate::Check(std::string_view name) {
  const size_t at = user_.find(kText);
  if (at == std::string::npos ||
      user_.find(kText, at + 1) != std::string::npos) {
    return InvalidArgument("--template: ", name,
                           ": \"user\" is to have {text} in it once");
  }
  if (begin_.find(kText) != std::string::npos ||
      answer_end_.find(kText) != std::string::npos) {
    return InvalidArgument("--template: ", name,
                           ": {text} is for \"user\" alone");
  }
  for (const std::string* text : {&begin_, &user_}) {
    if (text->size() > kMaxTextBytes) {
      return InvalidArgument("--template: ", name, ": a text of ", text->size(),
                             " bytes, expected at most ", kMaxTextBytes);
    }
  }
  if (answer_end_.size() > kMaxAnswerEndBytes) {
    return InvalidArgument("--template: ", name, ": \"answer_end\" has ",
                           answer_end_.size(), " bytes, expected at most ",
                           kMaxAnswerEndBytes);
  }
  const Status stops = CheckStopStrings(stop_);
  if (!stops.ok()) {
    return InvalidArgument("--template: ", name, ": ", stops.message());
  }
  answer_is_apart_ = at + kText.size() < user_.size();
  return OkStatus();
}

std::vector<TokenId> ChatTemplate::Begin(const Tokenizer& tokenizer) const {
  std::vector<TokenId> tokens = {tokenizer.bos_id()};
  AppendTokens(tokenizer, begin_, "", tokens);
  return tokens;
}

std::vector<TokenId> ChatTemplate::Message(const Tokenizer& tokenizer,
                                           std::string_view message) const {
  std::vector<TokenId> tokens;
  AppendTokens(tokenizer, user_, message, tokens);
  return tokens;
}

std::vector<TokenId> ChatTemplate::AnswerEnd(const Tokenizer& tokenizer) const {
  std::vector<TokenId> tokens;
  AppendTokens(tokenizer, answer_end_, "", tokens);
  return tokens;
}

uint64_t ChatTemplate::num_bytes() const {
  uint64_t total = begin_.size() + user_.size() + answer_end_.size();
  for (const std::string& stop : stop_) total += stop.size();
  return total;
}

}  // namespace flashelm::cli
