// The allow-list: what it takes, and what its errors name.
#include "relay/allow_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/relay/temporary_directory.h"

namespace ringsock::relay {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr char kBase64[] = "u1D/noKldM+/gg6X9g+5wUPsdBXPUU+M/Zjv9Z4FlhQ=";
constexpr char kHex[] = "45c7c1e397281f9127fa60004895aa23089586fae0301a101aa37a6120ec0f0f";

std::string Error(const std::string& text) {
  const auto list = ParseAllowList(text);
  return list.ok() ? "no error" : std::string(list.status().message());
}

TEST(AllowListTest, KeysCommentsAndEmptyLines) {
  const auto list = ParseAllowList(std::string("# gateways\n\n  ") + kBase64 + "  # berlin\r\n\t" +
                                   kHex + "\n" + kHex + "#twice\n#end");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->size(), 2u);
  EXPECT_TRUE(list->contains(*PublicKey::Parse(kBase64)));
  EXPECT_TRUE(list->contains(*PublicKey::Parse(kHex)));
}

TEST(AllowListTest, LastLineNeedsNoEnd) {
  EXPECT_EQ(ParseAllowList(kHex)->size(), 1u);
  EXPECT_EQ(ParseAllowList("")->size(), 0u);
  EXPECT_EQ(ParseAllowList("\n\n# nobody\n")->size(), 0u);
}

TEST(AllowListTest, ErrorsNameTheLineAndHideWhatStandsThere) {
  EXPECT_EQ(Error(std::string(kHex) + "\n\nnonsense\n"),
            "line 3: \"nons...\": is no public key (base64 or hex)");
  EXPECT_THAT(Error("x"), StartsWith("line 1: \"x\": "));
  EXPECT_THAT(Error("\x01\x02"), StartsWith("line 1: \"\\x01\\x02\": "));
  EXPECT_THAT(Error(std::string("#\n") + std::string(64, '0')), HasSubstr("line 2"));
  // Two keys on a line; a key with one character too many; a binary file.
  EXPECT_THAT(Error(std::string(kHex) + " " + kHex), HasSubstr("line 1"));
  EXPECT_THAT(Error(std::string(kBase64) + "="), Not(HasSubstr(std::string(kBase64).substr(4))));
  EXPECT_THAT(Error(std::string(100000, '\0')), HasSubstr("line 1"));
}

TEST(AllowListTest, FileErrorsNameTheFile) {
  const TemporaryDirectory dir;
  EXPECT_TRUE(absl::IsNotFound(LoadAllowList(dir / "none").status()));
  const std::string file = dir.Write("allowed", "oops\n", 0644);
  EXPECT_THAT(std::string(LoadAllowList(file).status().message()), StartsWith(file + " line 1: "));
  dir.Write("allowed", kHex, 0644);
  EXPECT_EQ(LoadAllowList(file)->size(), 1u);
}

}  // namespace
}  // namespace ringsock::relay
