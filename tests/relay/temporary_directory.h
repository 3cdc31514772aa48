// A directory of a test's own, gone when it ends.
#ifndef RINGSOCK_TESTS_RELAY_TEMPORARY_DIRECTORY_H_
#define RINGSOCK_TESTS_RELAY_TEMPORARY_DIRECTORY_H_

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace ringsock::relay {

class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(testing::TempDir() + "/relay.XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  // Writes a file and returns its path.
  std::string Write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    const std::string file = *this / name;
    std::ofstream(file, std::ios::trunc) << text;
    EXPECT_EQ(chmod(file.c_str(), mode), 0);
    return file;
  }
  static std::string Read(const std::string& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  static mode_t Mode(const std::string& file) {
    struct stat info = {};
    EXPECT_EQ(stat(file.c_str(), &info), 0);
    return info.st_mode & 07777;
  }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_),
                                             std::filesystem::directory_iterator()));
  }

 private:
  std::string path_;
};

}  // namespace ringsock::relay

#endif  // RINGSOCK_TESTS_RELAY_TEMPORARY_DIRECTORY_H_
