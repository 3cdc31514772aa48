#include "io/sim_trace.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ringsock::io {
namespace {

constexpr std::array<const char*, kSimEvents> kNames = {
    "sent",         "delivered",     "duplicated", "lost",        "queue full",
    "too big",      "no route",      "no socket",  "partitioned", "UDP blocked",
    "NAT filtered", "NAT exhausted", "no hairpin", "socket full"};

uint64_t Mix(uint64_t hash, uint64_t word) {
  const auto product =
      static_cast<unsigned __int128>(hash ^ word ^ 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

const char* SimEventName(SimEvent event) { return kNames[static_cast<size_t>(event)]; }

void SimTrace::Record(SimEvent event, const Datagram& datagram, Instant now) {
  ++counts_[static_cast<size_t>(event)];
  hash_ = Mix(hash_, static_cast<uint64_t>(now.time_since_epoch().count()));
  hash_ = Mix(hash_, static_cast<uint64_t>(event));
  for (const Endpoint& endpoint : {datagram.from, datagram.to}) {
    for (const uint64_t word : endpoint.Words()) hash_ = Mix(hash_, word);
  }
  hash_ = Mix(hash_, datagram.payload.size());
  for (size_t i = 0; i < datagram.payload.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, datagram.payload.data() + i,
                std::min(sizeof(word), datagram.payload.size() - i));
    hash_ = Mix(hash_, word);
  }
  if (last_.size() == kKept) last_.pop_front();
  last_.push_back({now, event, datagram.from, datagram.to, datagram.payload.size()});
}

std::string SimTrace::ToString() const {
  std::string text;
  for (size_t i = 0; i < kSimEvents; ++i) {
    if (counts_[i] != 0) absl::StrAppend(&text, kNames[i], "=", counts_[i], " ");
  }
  for (const Line& line : last_) {
    absl::StrAppend(&text, "\n", line.at.time_since_epoch().count(), " ns ", line.from.ToString(),
                    " > ", line.to.ToString(), " ", line.size,
                    " bytes: ", SimEventName(line.event));
  }
  return text;
}

}  // namespace ringsock::io
