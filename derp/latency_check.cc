#include "derp/latency_check.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "derp/http_upgrade.h"
#include "derp/json.h"
#include "derp/relay_transport.h"

namespace ringsock::derp {
namespace {

// What is read of an answer: "HTTP/1.1 200". Headers and body do not matter, however many there
// are.
constexpr size_t kStatusSize = 12;

std::string HostHeader(const RelayNode& node, const Endpoint& remote) {
  std::string host = node.host_name.empty() ? remote.ip.ToString() : node.host_name;
  if (absl::StrContains(host, ":")) host = absl::StrCat("[", host, "]");
  return node.port() == kDefaultDerpPort ? host : absl::StrCat(host, ":", node.port());
}

}  // namespace

// One life: waiting ─▶ dialing ─▶ TLS ─▶ asked ─▶ over, or any ─▶ over.
class LatencyChecks::Check final : public TransportEvents {
 public:
  Check(LatencyChecks* owner, const RelayNode& node, Done done)
      : owner_(owner),
        node_(node),
        deadline_(owner->context_.clock->Now() + owner->options_.timeout),
        done_(std::move(done)),
        over_(owner->context_.timers, [this] { OnTimer(); }) {
    over_.Schedule(deadline_);
  }

  void Begin() {
    stage_ = "no TCP connection";
    dialer_ = std::make_unique<NodeDialer>(
        &owner_->context_, &node_, deadline_,
        [this](absl::StatusOr<std::unique_ptr<RelayTransport>> result) {
          OnDialed(std::move(result));
        });
  }
  Done TakeDone() { return std::move(done_); }
  // `why`, and where it was; what dialing says is named already.
  absl::Status Named(const absl::Status& why) const {
    const std::string prefix = absl::StrCat("node ", node_.name, ": ");
    if (absl::StartsWith(why.message(), prefix)) return why;
    return {why.code(), absl::StrCat(prefix, why.message())};
  }
  // Ends the connection as the protocols want it, in the background.
  void Close() {
    if (transport_ != nullptr) transport_->Close();
  }

 private:
  void OnDialed(absl::StatusOr<std::unique_ptr<RelayTransport>> result) {
    if (!result.ok()) return owner_->Finish(this, result.status());
    transport_ = std::move(*result);
    transport_->set_events(this);
    stage_ = "TLS handshake not done";
    if (owner_->options_.plain_http_for_tests) {
      transport_->StartPlain();
      return OnTransportReady();
    }
    const absl::Status status = transport_->StartTls(owner_->tls_, TlsTarget::Of(node_));
    if (!status.ok()) owner_->Finish(this, status);
  }

  // TransportEvents
  void OnTransportConnected() override {}
  void OnTransportReady() override {
    const auto request = LatencyRequest(HostHeader(node_, transport_->remote()));
    if (!request.ok()) return FinishLater(request.status());
    // Far shorter than what a transport takes at once.
    const auto bytes = std::as_bytes(std::span(request->data(), request->size()));
    if (transport_->Send(bytes) != bytes.size()) {
      return FinishLater(absl::InternalError("the request was not taken"));
    }
    stage_ = "no answer to the request";
    asked_ = now();
  }
  absl::Status OnTransportBytes(std::span<std::byte> bytes) override {
    if (result_.has_value() || bytes.empty()) return absl::OkStatus();
    if (!asked_.has_value()) return absl::InvalidArgumentError("an answer before the request");
    if (head_.empty()) latency_ = now() - *asked_;
    const size_t take = std::min(bytes.size(), kStatusSize - head_.size());
    head_.append(reinterpret_cast<const char*>(bytes.data()), take);
    if (head_.size() < kStatusSize) return absl::OkStatus();
    if (!absl::StartsWith(head_, "HTTP/1.") || head_[8] != ' ') {
      return absl::InvalidArgumentError("what answers does not speak HTTP");
    }
    const std::string code = head_.substr(9);
    if (code != "200") {
      return absl::UnavailableError(absl::StrCat("answered ", CleanText(code, code.size())));
    }
    FinishLater(latency_);
    return absl::OkStatus();
  }
  void OnTransportBytesEnd() override {}
  void OnTransportWritable() override {}
  void OnTransportClosed(const absl::Status& why) override {
    if (result_.has_value()) return;  // the timer brings it
    owner_->Finish(this, why.ok() ? absl::UnavailableError("closed the connection") : why);
  }

  Instant now() const { return owner_->context_.clock->Now(); }
  // A transport may not be destroyed from inside its calls.
  void FinishLater(absl::StatusOr<Duration> result) {
    result_ = std::move(result);
    over_.Schedule(now());
  }
  void OnTimer() {
    if (result_.has_value()) return owner_->Finish(this, *std::move(result_));
    owner_->Finish(this, absl::DeadlineExceededError(absl::StrCat(stage_, " in time")));
  }

  LatencyChecks* const owner_;
  const RelayNode node_;
  const Instant deadline_;
  Done done_;
  const char* stage_ = "no turn";
  std::unique_ptr<NodeDialer> dialer_;
  std::unique_ptr<RelayTransport> transport_;
  std::optional<Instant> asked_;
  std::string head_;  // kStatusSize at most
  Duration latency_{};
  std::optional<absl::StatusOr<Duration>> result_;
  Timer over_;
};

LatencyChecks::LatencyChecks(const DialContext& context, TlsClientContext* tls,
                             const LatencyCheckOptions& options)
    : context_(context), tls_(tls), options_(options) {}

LatencyChecks::~LatencyChecks() = default;

absl::Status LatencyChecks::Start(const RelayNode& node, Done done) {
  if (waiting_.size() >= options_.max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat(options_.max_waiting, " latency checks are waiting"));
  }
  waiting_.push_back(std::make_unique<Check>(this, node, std::move(done)));
  StartWaiting();
  return absl::OkStatus();
}

void LatencyChecks::CancelAll() {
  running_.clear();
  waiting_.clear();
}

void LatencyChecks::StartWaiting() {
  while (running_.size() < options_.max_running && !waiting_.empty()) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    running_.back()->Begin();
  }
}

std::unique_ptr<LatencyChecks::Check> LatencyChecks::Take(Check* check) {
  const auto is_it = [check](const auto& other) { return other.get() == check; };
  std::unique_ptr<Check> taken;
  if (const auto at = std::find_if(running_.begin(), running_.end(), is_it); at != running_.end()) {
    taken = std::move(*at);
    running_.erase(at);
  } else if (const auto w = std::find_if(waiting_.begin(), waiting_.end(), is_it);
             w != waiting_.end()) {
    taken = std::move(*w);
    waiting_.erase(w);
  }
  return taken;
}

void LatencyChecks::Finish(Check* check, absl::StatusOr<Duration> result) {
  const std::unique_ptr<Check> finished = Take(check);
  finished->Close();
  StartWaiting();
  // The last thing that touches this: `done` may destroy it.
  if (!result.ok()) result = finished->Named(result.status());
  finished->TakeDone()(std::move(result));
}

}  // namespace ringsock::derp
