// A relay's own counters.
#include "bench/relay/metrics_page.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "io/fd.h"

namespace ringsock::bench {
namespace {

constexpr size_t kMaxPage = 4 << 20;

}  // namespace

Metrics ParseMetrics(absl::string_view text) {
  Metrics metrics;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    // A label's value may have blanks, so the name ends after its brace.
    const size_t brace = line.rfind('}');
    const size_t end = line.find(' ', brace == absl::string_view::npos ? 0 : brace);
    if (end == absl::string_view::npos) continue;
    const std::pair<absl::string_view, absl::string_view> rest =
        absl::StrSplit(absl::StripAsciiWhitespace(line.substr(end)), absl::MaxSplits(' ', 1));
    double value;
    if (absl::SimpleAtod(rest.first, &value)) metrics[std::string(line.substr(0, end))] = value;
  }
  return metrics;
}

absl::StatusOr<Metrics> FetchMetrics(const Endpoint& at) {
  sockaddr_storage address = {};
  const socklen_t length = at.ToSockaddr(&address);
  const io::Fd fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience = {.tv_sec = 30, .tv_usec = 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const std::string request = absl::StrCat("GET /metrics HTTP/1.1\r\nHost: ", at.ToString(),
                                           "\r\nConnection: close\r\n\r\n");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
          static_cast<ssize_t>(request.size())) {
    return absl::UnavailableError(
        absl::StrCat("metrics at ", at.ToString(), ": ", std::strerror(errno)));
  }
  std::string page;
  std::array<char, 16384> chunk;
  while (page.size() < kMaxPage) {
    const ssize_t n = recv(fd.get(), chunk.data(), chunk.size(), 0);
    if (n < 0 && errno == EINTR) continue;  // the process was stopped and goes on
    if (n <= 0) break;
    page.append(chunk.data(), static_cast<size_t>(n));
  }
  if (!absl::StrContains(page.substr(0, 20), " 200 ")) {
    return absl::UnavailableError(absl::StrCat("metrics at ", at.ToString(), ": no page"));
  }
  return ParseMetrics(page);
}

Metrics LossesBetween(const Metrics& before, const Metrics& after) {
  Metrics losses;
  for (const auto& [name, value] : after) {
    const auto was = before.find(name);
    const double grown = value - (was == before.end() ? 0 : was->second);
    const bool is_loss = absl::StrContains(name, "drop") || absl::StrContains(name, "lost") ||
                         absl::StrContains(name, "refused");
    if (is_loss && grown > 0) losses[name] = grown;
  }
  return losses;
}

}  // namespace ringsock::bench
