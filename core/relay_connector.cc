#include "core/relay_connector.h"

namespace ringsock {
namespace {

class Connector final : public RelayConnector {
 public:
  absl::Status Prepare() override { return absl::OkStatus(); }
  std::unique_ptr<derp::RegionConnection> Connect(const derp::RelayRegion&, const PrivateKey&,
                                                  derp::RegionEvents*) override {
    return nullptr;
  }
};

}  // namespace

std::unique_ptr<RelayConnector> NewRelayConnector(io::Loop*, TimerQueue*, const RelayOptions&) {
  return std::make_unique<Connector>();
}

}  // namespace ringsock
