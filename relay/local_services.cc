#include "relay/local_services.h"

#include <pthread.h>

#include <utility>

#include "core/new_thread.h"

namespace ringsock::relay {

LocalServices::LocalServices(Options options, std::unique_ptr<io::Loop> loop)
    : options_(std::move(options)), loop_(std::move(loop)) {}

LocalServices::~LocalServices() {
  stopping_.store(true);
  loop_->Wake();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::unique_ptr<LocalServices>> LocalServices::Start(Options options) {
  io::BackendChoice choice;  // the workers' loops have said it
  absl::StatusOr<std::unique_ptr<io::Loop>> loop = io::CreateLoop(options.loop, &choice);
  if (!loop.ok()) return loop.status();
  std::unique_ptr<LocalServices> services(new LocalServices(std::move(options), *std::move(loop)));
  if (absl::Status opened = services->Open(); !opened.ok()) return opened;
  absl::StatusOr<std::thread> thread = NewThread([raw = services.get()] { raw->Run(); });
  if (!thread.ok()) return thread.status();
  services->thread_ = *std::move(thread);
  return services;
}

absl::Status LocalServices::Open() {
  if (!options_.stun.empty()) {
    stun_ = std::make_unique<stun::Server>(loop_.get(), stun::Dialect::kRfc);
    for (const Endpoint& address : options_.stun) {
      if (absl::Status opened = stun_->Open(address); !opened.ok()) return opened;
    }
    stun_endpoints_ = stun_->endpoints();
  }
  if (!options_.metrics.has_value()) return absl::OkStatus();
  if (loop_->streams() == nullptr) {
    return absl::UnimplementedError("metrics: this loop has no streams");
  }
  http_ = std::make_unique<LocalHttp>(loop_.get(), [this](absl::string_view path) {
    return options_.pages(path, stun_ == nullptr ? nullptr : &stun_->stats());
  });
  if (absl::Status listening = http_->Listen(*options_.metrics); !listening.ok()) return listening;
  metrics_endpoint_ = http_->endpoint();
  return absl::OkStatus();
}

void LocalServices::Run() {
  pthread_setname_np(pthread_self(), "rs-services");
  while (!stopping_.load()) {
    const Instant next = http_ == nullptr ? Instant::max() : http_->Tick(loop_->clock().Now());
    loop_->Poll(next);
  }
  // The loop is this thread's, and so is closing what is open on it.
  http_.reset();
  stun_.reset();
}

}  // namespace ringsock::relay
