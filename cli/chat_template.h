// What stands around the messages of a chat.
#ifndef FLASHELM_CLI_CHAT_TEMPLATE_H_
#define FLASHELM_CLI_CHAT_TEMPLATE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/tokenizer.h"

namespace flashelm::cli {

// Texts in which "{eos}" and "{bos}" stand for those tokens and, in `user`,
// "{text}" for the message. A message is never looked at for these.
class ChatTemplate {
 public:
  // A name of those built in, "raw" or "zephyr", or else a JSON file: an object
  // with "user" and, where wanted, "begin", "answer_end", "stop", a list of
  // texts. kInvalidArgument: neither; no such object; no "{text}", or two;
  // texts that are too long.
  static Result<ChatTemplate> Load(const std::string& name_or_file);

  // What comes before the first message: BOS and "begin".
  std::vector<TokenId> Begin(const Tokenizer& tokenizer) const;
  // A message as the model is to see it.
  std::vector<TokenId> Message(const Tokenizer& tokenizer,
                               std::string_view message) const;
  // What ends an answer, however that ended.
  std::vector<TokenId> AnswerEnd(const Tokenizer& tokenizer) const;
  // Texts that the model writes where an answer is over.
  const std::vector<std::string>& stop() const { return stop_; }
  // Whether an answer is a text of its own, and not the rest of the message.
  bool answer_is_apart() const { return answer_is_apart_; }

  // Bytes of all texts together.
  uint64_t num_bytes() const;

 private:
  Status Check(std::string_view name);

  std::string begin_;
  std::string user_ = "{text}";
  std::string answer_end_;
  std::vector<std::string> stop_;
  bool answer_is_apart_ = false;
};

}  // namespace flashelm::cli

#endif  // FLASHELM_CLI_CHAT_TEMPLATE_H_
