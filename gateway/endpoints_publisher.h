// Tells others where we can be reached: writes our current endpoints to a file, and runs a command
// of the operator's, each time they change. The file is replaced by a rename, so that readers see
// a whole one. Both take time, so they have a thread of their own.
#ifndef RINGSOCK_GATEWAY_ENDPOINTS_PUBLISHER_H_
#define RINGSOCK_GATEWAY_ENDPOINTS_PUBLISHER_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/key.h"
#include "core/own_endpoints.h"
#include "io/fd.h"

namespace ringsock::gateway {

// What we know about ourselves at one time.
struct OwnState {
  std::optional<PublicKey> key;
  std::vector<OwnEndpoint> endpoints;
  std::optional<NetInfo> net_info;
  RegionId home = 0;  // without net_info, which has it too; 0: none
};
// As JSON text, a line at the end; docs/gateway.md has its format.
std::string ToJson(const OwnState& state);

struct PublishOptions {
  std::string file;                  // "" for none
  std::vector<std::string> command;  // empty for none
  Duration timeout = std::chrono::seconds(10);

  bool any() const { return !file.empty() || !command.empty(); }
  friend bool operator==(const PublishOptions&, const PublishOptions&) = default;
};

// What becomes known at nearly the same time is published once.
inline constexpr Duration kPublishSettle = std::chrono::milliseconds(100);

// All calls are safe on every thread, and none waits for the disk or the command but the
// destructor, which stops a command that runs.
class EndpointsPublisher {
 public:
  EndpointsPublisher();
  ~EndpointsPublisher();
  EndpointsPublisher(const EndpointsPublisher&) = delete;
  EndpointsPublisher& operator=(const EndpointsPublisher&) = delete;

  // What is known is published in the new way, if it is another one.
  void SetOptions(const PublishOptions& options);
  void SetKey(const std::optional<PublicKey>& key);
  void SetEndpoints(std::span<const OwnEndpoint> endpoints);
  void SetNetInfo(const NetInfo& info);
  // Counts only while the network has not been looked at.
  void SetHome(RegionId home);

  // How often something was published, or was tried to.
  uint64_t runs() const;

 private:
  // Notes that something has changed. The latest state wins: what comes while a command runs is
  // published once, after it.
  void Changed();
  void Run();
  void Publish(const PublishOptions& options, const std::string& text);

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  PublishOptions options_;
  OwnState state_;
  bool known_ = false;    // endpoints were set
  bool changed_ = false;  // since the thread last looked
  bool stop_ = false;
  uint64_t runs_ = 0;
  const io::Fd stop_event_;
  std::thread thread_;
};

// Replaces `file` by one with `text`, by way of a file beside it. "" or what went wrong.
std::string ReplaceFile(const std::string& file, const std::string& text);

}  // namespace ringsock::gateway

#endif  // RINGSOCK_GATEWAY_ENDPOINTS_PUBLISHER_H_
