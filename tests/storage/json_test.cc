#include "storage/json.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace flashelm {
namespace {

std::string Nested(size_t depth, const std::string& open,
                   const std::string& close) {
  std::string text;
  for (size_t i = 0; i < depth; ++i) text += open;
  text += "1";
  for (size_t i = 0; i < depth; ++i) text += close;
  return text;
}

Status Parse(const std::string& text, const JsonLimits& limits = {}) {
  const auto json = ParseJson(text, "the file", limits);
  return json ? OkStatus() : json.error();
}

void ExpectRefused(const Status& status, const std::string& says) {
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(status.message().rfind("the file", 0), 0u) << status.message();
  EXPECT_NE(status.message().find(says), std::string::npos) << status.message();
  EXPECT_LT(status.message().size(), 500u);
}

TEST(ParseJsonTest, TakesJson) {
  const auto json = ParseJson(
      R"({"a": [1, -2, 3.5, true, null], "b": {"c": "\u00e9"}})", "the file");
  ASSERT_TRUE(json) << json.error().message();
  EXPECT_EQ((*json)["a"].size(), 5u);
  EXPECT_EQ((*json)["b"]["c"], "\xc3\xa9");
  EXPECT_TRUE(ParseJson("18446744073709551615", "x").value() == UINT64_MAX);
}

TEST(ParseJsonTest, RefusesWhatIsNot) {
  for (const std::string text :
       {"",          " ",        "{",        "[1,", "[1}",     "{\"a\"}",
        "{\"a\":}",  "{'a':1}",  "nul",      "01",  "+1",      "1.",
        "NaN",       "Infinity", "1e999",    "\"",  "\"\\x\"", "\"\\ud800\"",
        "\"\xff\"",  "\"\xc3\"", "\"a\nb\"", "1 2", "{}{}",    "[1] // c",
        "/* c */ 1", "[1,]"}) {
    SCOPED_TRACE(text);
    ExpectRefused(Parse(text), "not valid JSON at byte");
  }
  ExpectRefused(Parse(std::string("1\0", 2)), "not valid JSON");
}

TEST(ParseJsonTest, MessagesStayShort) {
  const std::string megabyte(1u << 20, 'x');
  ExpectRefused(Parse("\"" + megabyte), "not valid JSON");
  ExpectRefused(Parse(megabyte), "not valid JSON");
  ExpectRefused(Parse("{\"" + megabyte + "\":1,\"" + megabyte + "\":2}"),
                "twice");
}

TEST(ParseJsonTest, KeepsToItsDepth) {
  JsonLimits limits;
  limits.max_depth = 5;
  EXPECT_TRUE(Parse(Nested(5, "[", "]"), limits).ok());
  ExpectRefused(Parse(Nested(6, "[", "]"), limits), "deeper than 5");
  EXPECT_TRUE(Parse(Nested(5, "{\"a\":", "}"), limits).ok());
  ExpectRefused(Parse(Nested(6, "{\"a\":", "}"), limits), "deeper than 5");
  // Side by side is not inside each other.
  EXPECT_TRUE(Parse("[[1],[1],[1],[1],[1],[1],[1]]", limits).ok());
  ExpectRefused(Parse(Nested(1000000, "[", "]")), "deeper");
  ExpectRefused(Parse(std::string(1000000, '[')), "deeper");
}

TEST(ParseJsonTest, KeepsToItsNumberOfValues) {
  JsonLimits limits;
  limits.max_values = 10;
  EXPECT_TRUE(Parse("[1,2,3,4,5,6,7,8,9]", limits).ok());
  ExpectRefused(Parse("[1,2,3,4,5,6,7,8,9,10]", limits), "more than 10");
  // Keys count, too.
  EXPECT_TRUE(Parse(R"({"a":1,"b":2,"c":3,"d":4})", limits).ok());
  ExpectRefused(Parse(R"({"a":1,"b":2,"c":3,"d":4,"e":5})", limits),
                "more than 10");
  ExpectRefused(Parse("[[],[],[],[],[],[],[],[],[],[]]", limits),
                "more than 10");
}

TEST(ParseJsonTest, RefusesAKeyTwiceInOneObject) {
  ExpectRefused(Parse(R"({"a":1,"b":2,"a":1})"), "\"a\" appears twice");
  ExpectRefused(Parse(R"({"a":1,"\u0061":1})"), "\"a\" appears twice");
  ExpectRefused(Parse(R"([{"b":{"a":1,"a":1}}])"), "\"a\" appears twice");
  EXPECT_TRUE(Parse(R"({"a":{"a":{"a":1}},"b":{"a":1}})").ok());
}

TEST(JsonMemberTest, GivesTheTypeAskedForOrSaysWhatIsThere) {
  const Json json = Json::parse(
      R"({"u": 7, "n": -7, "f": 7.0, "s": "x", "a": [1], "o": {"k": 1},
          "b": true, "z": null, "m": 18446744073709551615,
          "h": 18446744073709551616})");
  EXPECT_EQ(GetUint(json, "u", "x").value(), 7u);
  EXPECT_EQ(GetUint(json, "m", "x").value(), UINT64_MAX);
  EXPECT_EQ(GetString(json, "s", "x").value(), "x");
  EXPECT_EQ(GetArray(json, "a", "x").value()->size(), 1u);
  EXPECT_EQ(GetObject(json, "o", "x").value()->size(), 1u);
  for (const char* key : {"n", "f", "s", "a", "o", "b", "z", "h"}) {
    const auto got = GetUint(json, key, "the file");
    ASSERT_FALSE(got) << key;
    ExpectRefused(got.error(), key);
  }
  for (const char* key : {"u", "a", "o", "b", "z"}) {
    ASSERT_FALSE(GetString(json, key, "the file")) << key;
    ExpectRefused(GetString(json, key, "the file").error(), "a string");
  }
  for (const char* key : {"u", "s", "o", "z"}) {
    ASSERT_FALSE(GetArray(json, key, "the file")) << key;
    ExpectRefused(GetArray(json, key, "the file").error(), "an array");
  }
  for (const char* key : {"u", "s", "a", "z"}) {
    ASSERT_FALSE(GetObject(json, key, "the file")) << key;
    ExpectRefused(GetObject(json, key, "the file").error(), "an object");
  }
  ExpectRefused(GetUint(json, "nobody", "the file").error(),
                "\"nobody\" is missing");
  // Not an object at all.
  for (const Json& other : {Json(1), Json("x"), Json::array({1}), Json()}) {
    EXPECT_FALSE(GetUint(other, "u", "x"));
    EXPECT_FALSE(GetString(other, "u", "x"));
    EXPECT_FALSE(GetArray(other, "u", "x"));
    ExpectRefused(GetObject(other, "u", "the file").error(),
                  "expected an object");
  }
}

TEST(DescribeTest, IsShortAndPrintable) {
  EXPECT_EQ(Describe(Json(5)), "5");
  EXPECT_EQ(Describe(Json("a\"b")), R"("a\"b")");
  EXPECT_EQ(Describe(Json()), "null");
  EXPECT_EQ(Describe(Json::array({1, 2})), "an array of 2");
  EXPECT_EQ(Describe(Json{{"k", 1}}), "an object of 1");
  EXPECT_LT(Describe(Json(std::string(100000, 'x'))).size(), 100u);
  EXPECT_EQ(Describe(Json("\x1b[31m\n")), R"("\u001b[31m\n")");
  EXPECT_NE(Describe(Json("\xff")).find("fffd"), std::string::npos);
}

}  // namespace
}  // namespace flashelm
