#include "gateway/endpoints_publisher.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "derp/json.h"
#include "gateway/command.h"
#include "gateway/config.h"
#include "gateway/json_object.h"

namespace ringsock::gateway {
namespace {

using Json = nlohmann::ordered_json;

// Of its output, in the log.
constexpr size_t kMaxLines = 20;

Json AnswerJson(stun::Answer answer) {
  if (answer == stun::Answer::kUnknown) return nullptr;
  return answer == stun::Answer::kYes;
}

double Milliseconds(Duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

std::string Problem(absl::string_view what) {
  return absl::StrCat(what, ": ", std::strerror(errno));
}

}  // namespace

std::string ToJson(const OwnState& state) {
  Json endpoints = Json::array();
  for (const OwnEndpoint& one : state.endpoints) {
    endpoints.push_back(
        {{"address", one.endpoint.ToString()}, {"source", EndpointSourceName(one.source)}});
  }
  Json net = nullptr;
  if (state.net_info.has_value()) {
    const NetInfo& info = *state.net_info;
    Json latency = Json::object();
    for (const auto& [name, time] : info.latency) latency[name] = Milliseconds(time);
    net = {{"udp", info.udp},
           {"ipv6", info.ipv6},
           {"mapping_varies", AnswerJson(info.mapping_varies)},
           {"hairpin", AnswerJson(info.hairpin)},
           {"latency_ms", latency}};
  }
  const RegionId home = state.net_info.has_value() ? state.net_info->home : state.home;
  const Json all = {{"version", 1},
                    {"public_key", state.key.has_value() ? Json(state.key->ToBase64()) : nullptr},
                    {"derp_region", home == 0 ? Json(nullptr) : Json(home)},
                    {"endpoints", endpoints},
                    {"net", net}};
  return all.dump(2) + "\n";
}

std::string ReplaceFile(const std::string& file, const std::string& text) {
  const std::string beside = NewFileBeside(file);
  {
    // Not through a link that somebody left there: the folder may be shared.
    unlink(beside.c_str());
    const io::Fd fd(
        open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!fd.valid()) return Problem(beside);
    for (size_t at = 0; at < text.size();) {
      const ssize_t size = write(fd.get(), text.data() + at, text.size() - at);
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) return Problem(beside);
      at += static_cast<size_t>(size);
    }
  }
  return rename(beside.c_str(), file.c_str()) == 0 ? "" : Problem(file);
}

EndpointsPublisher::EndpointsPublisher()
    : stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_(&EndpointsPublisher::Run, this) {}

EndpointsPublisher::~EndpointsPublisher() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_event_.get(), &one, sizeof(one));
  wake_.notify_one();
  thread_.join();
}

void EndpointsPublisher::Changed() {
  changed_ = true;
  wake_.notify_one();
}

void EndpointsPublisher::SetOptions(const PublishOptions& options) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (options == options_) return;
  options_ = options;
  Changed();
}

void EndpointsPublisher::SetKey(const std::optional<PublicKey>& key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (key == state_.key) return;
  state_.key = key;
  Changed();
}

void EndpointsPublisher::SetEndpoints(std::span<const OwnEndpoint> endpoints) {
  const std::lock_guard<std::mutex> lock(mutex_);
  state_.endpoints.assign(endpoints.begin(), endpoints.end());
  known_ = true;
  Changed();
}

void EndpointsPublisher::SetNetInfo(const NetInfo& info) {
  const std::lock_guard<std::mutex> lock(mutex_);
  state_.net_info = info;
  Changed();
}

void EndpointsPublisher::SetHome(RegionId home) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (home == state_.home) return;
  state_.home = home;
  if (!state_.net_info.has_value()) Changed();
}

uint64_t EndpointsPublisher::runs() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return runs_;
}

void EndpointsPublisher::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    wake_.wait(lock, [this] { return stop_ || changed_; });
    wake_.wait_for(lock, kPublishSettle, [this] { return stop_; });
    changed_ = false;
    if (stop_ || !known_ || !options_.any()) continue;
    const PublishOptions options = options_;
    const std::string text = ToJson(state_);
    lock.unlock();
    Publish(options, text);
    lock.lock();
    ++runs_;
  }
}

void EndpointsPublisher::Publish(const PublishOptions& options, const std::string& text) {
  if (!options.file.empty()) {
    const std::string problem = ReplaceFile(options.file, text);
    if (!problem.empty()) {
      Log().error("endpoints_file: {}; it is written again with the next change", problem);
    }
  }
  if (!options.command.empty()) {
    std::vector<std::string> environment;
    if (!options.file.empty()) environment.push_back("RINGSOCK_ENDPOINTS_FILE=" + options.file);
    const CommandResult result =
        RunCommand(options.command, text, environment, options.timeout, stop_event_.get());
    size_t lines = 0;
    for (const absl::string_view line : absl::StrSplit(result.output, '\n', absl::SkipEmpty())) {
      if (++lines > kMaxLines) break;
      Log().info("endpoints_command: {}", MaskKeys(derp::CleanText(line, kMaxCommandOutput)));
    }
    if (!result.ok) {
      Log().error("endpoints_command: {}: {}; it runs again with the next change",
                  options.command[0], result.problem);
    }
  }
  Log().flush();
}

}  // namespace ringsock::gateway
