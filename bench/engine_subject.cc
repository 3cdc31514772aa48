// Runs the engine as a subject, as an embedder would: peers come from CreateEndpoints(), every
// train confirms its path (as WireGuard does with each packet it authenticates) and goes on by
// PeerId.
#include <cstring>
#include <string>

#include "base/log.h"
#include "bench/forwarder.h"
#include "bench/relay_access.h"
#include "bench/subject.h"
#include "core/engine.h"

namespace ringsock::bench {
namespace {

void Account(const Engine& engine, SubjectTotals* totals) {
  const CounterSnapshot counters = engine.Counters();
  for (const CounterSnapshot::Path& path : counters.paths) {
    totals->received += path.rx_packets;
    totals->sent += path.tx_packets;
  }
  for (size_t i = 0; i < kDrops; ++i) {
    totals->AddReason(DropName(static_cast<Drop>(i)), counters.drops[i]);
  }
  totals->AddReason("rx_unknown_source", counters.rx_unknown_source);
}

}  // namespace

absl::Status RunEngineSubject(const SubjectConfig& config, SubjectShared* shared,
                              const SubjectHooks& hooks) {
  Log().set_level(spdlog::level::warn);
  Forwarder forwarder(config.traffic, &shared->received);
  auto engine = Engine::Start(EngineOptionsOf(config), &forwarder);
  if (!engine.ok()) return engine.status();
  absl::Status status = AddPeers(config, engine->get(), &forwarder);
  if (status.ok() && config.relay != nullptr) {
    status = ConnectToRelay(*config.relay, engine->get());
  }
  if (!status.ok()) return status;
  forwarder.Open();
  shared->port = (*engine)->port();
  const std::string backend = (*engine)->Status().backend;
  std::strncpy(shared->totals.note.data(), backend.c_str(), shared->totals.note.size() - 1);
  hooks.ready(hooks.context);
  hooks.wait(hooks.context);
  (*engine)->Close();
  Account(**engine, &shared->totals);
  return absl::OkStatus();
}

}  // namespace ringsock::bench
