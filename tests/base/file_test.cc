// Files that people name: what is read, and that every mistake names the file and the cure.
#include "base/file.h"

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ringsock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kPrivate[] = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=";

// A file of this test's own folder with the given bytes and mode.
std::string Write(const std::string& name, const std::string& text, mode_t mode = 0600) {
  const std::string path = std::string(std::getenv("TEST_TMPDIR")) + "/" + name;
  std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(chmod(path.c_str(), mode), 0);
  return path;
}

std::string ReadError(const std::string& path, size_t max_bytes) {
  const auto text = ReadFile(path, max_bytes);
  return text.ok() ? "no error" : std::string(text.status().message());
}

std::string KeyError(const std::string& path) {
  const auto key = ReadPrivateKeyFile(path);
  return key.ok() ? "no error" : std::string(key.status().message());
}

TEST(FileTest, ReadsTheWholeFile) {
  const std::string text(100'000, 'x');
  const auto read = ReadFile(Write("whole", text), text.size());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, text);
  EXPECT_EQ(*ReadFile(Write("empty", ""), 0), "");
}

TEST(FileTest, ErrorsNameTheFile) {
  const std::string large = Write("large", "12345");
  EXPECT_EQ(ReadError(large, 4), large + ": has more than 4 bytes, the most it may have");
  EXPECT_EQ(ReadError(large, 5), "no error");
  EXPECT_EQ(ReadError("no/such", 1), "no/such: cannot be read: No such file or directory");
  EXPECT_EQ(ReadError("/", 1), "/: cannot be read: Is a directory");
  // It has no end.
  EXPECT_THAT(ReadError("/dev/zero", 1 << 20), StartsWith("/dev/zero: has more than"));
}

TEST(FileTest, PrivateKeyAsItIsWritten) {
  const PrivateKey key = *PrivateKey::Parse(kPrivate);
  for (const char* around : {"", "\n", "\r\n", " \n\n"}) {
    const auto read = ReadPrivateKeyFile(Write("key", std::string(kPrivate) + around));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, key);
  }
  const std::string hex = "\n  a88bcc65b766c09f421337c20e5ac631c48fc67a8d712884951aad49f232005d\t";
  EXPECT_EQ(*ReadPrivateKeyFile(Write("key", hex, 0400)), key);
  // As service managers hand it over.
  EXPECT_EQ(*ReadPrivateKeyFile(Write("group", kPrivate, 0640)), key);
}

TEST(FileTest, PrivateKeyThatOthersCanReadIsRefusedWithTheCure) {
  for (const mode_t mode : {0644, 0604, 0602, 0666}) {
    const std::string path = Write("open" + std::to_string(mode), kPrivate, mode);
    EXPECT_THAT(KeyError(path), StartsWith(path + ": every user may read or write it (mode 06"));
    EXPECT_THAT(KeyError(path), HasSubstr("chmod 600"));
  }
}

TEST(FileTest, WhatIsNoPrivateKeyIsNotRepeated) {
  EXPECT_THAT(KeyError(Write("none", "")), HasSubstr("none: is empty; `wg genkey` makes a key"));
  EXPECT_THAT(KeyError("no/such"), StartsWith("no/such: cannot be read: "));
  const std::string secret = std::string(kPrivate).substr(0, 8);
  for (const std::string& text :
       {"PrivateKey = " + std::string(kPrivate), std::string(kPrivate) + "=",
        std::string(kPrivate) + "\n" + kPrivate,
        std::string(kPrivate) + std::string(2000, ' ') + "x", std::string(64, '0'),
        std::string(43, 'A') + "=", std::string(1, '\0')}) {
    const std::string error = KeyError(Write("bad", text));
    EXPECT_THAT(error, HasSubstr("/bad: "));
    EXPECT_THAT(error, HasSubstr("key"));
    EXPECT_THAT(error, Not(HasSubstr(secret)));
    EXPECT_THAT(error, Not(HasSubstr("\n")));
  }
}

}  // namespace
}  // namespace ringsock
