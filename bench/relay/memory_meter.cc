// Memory of a process, and the kernel's for its connections.
#include "bench/relay/memory_meter.h"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace ringsock::bench {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

uint64_t FindKilobytes(absl::string_view text, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, name) || !absl::ConsumePrefix(&line, ":")) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    uint64_t kilobytes = 0;
    if (words.empty() || !absl::SimpleAtoi(words[0], &kilobytes)) return 0;
    return kilobytes * 1024;
  }
  return 0;
}

uint64_t TcpMemory(absl::string_view sockstat) {
  for (const absl::string_view line : absl::StrSplit(sockstat, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    if (words.empty() || words[0] != "TCP:") continue;
    for (size_t i = 1; i + 1 < words.size(); ++i) {
      uint64_t pages = 0;
      if (words[i] == "mem" && absl::SimpleAtoi(words[i + 1], &pages)) {
        return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
      }
    }
  }
  return 0;
}

MemoryReading ReadMemory(pid_t process) {
  const std::string rollup = ReadFile(absl::StrCat("/proc/", process, "/smaps_rollup"));
  const std::string host = ReadFile("/proc/meminfo");
  return {
      .rss = FindKilobytes(rollup, "Rss"),
      .pss = FindKilobytes(rollup, "Pss"),
      .page_tables = FindKilobytes(ReadFile(absl::StrCat("/proc/", process, "/status")), "VmPTE"),
      .slab = FindKilobytes(host, "Slab"),
      .tcp_buffers = TcpMemory(ReadFile("/proc/net/sockstat"))};
}

}  // namespace ringsock::bench
