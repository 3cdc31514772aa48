// A DNS server of a few lines for tests, on a loop of the test's: answers from a table, or badly.
#ifndef RINGSOCK_TESTS_DERP_DNS_SERVER_H_
#define RINGSOCK_TESTS_DERP_DNS_SERVER_H_

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/endpoint.h"
#include "io/loop.h"

namespace ringsock::derp {

class DnsServer final : public io::UdpHandler {
 public:
  static constexpr uint16_t kA = 1;
  static constexpr uint16_t kAaaa = 28;

  explicit DnsServer(io::Loop* loop, const IpAddress& at = IpAddress::V4(127, 0, 0, 1))
      : loop_(loop) {
    const auto socket = loop->OpenUdp({.bind = {at, 0, 0}}, this);
    EXPECT_TRUE(socket.ok()) << socket.status();
    socket_ = socket.value_or(0);
  }
  ~DnsServer() override { loop_->CloseUdp(socket_); }

  std::string at() const { return loop_->LocalEndpoint(socket_).ToString(); }
  void Set(const std::string& name, std::vector<IpAddress> addresses, uint32_t ttl = 60) {
    names_[name] = {std::move(addresses), ttl};
  }
  void Remove(const std::string& name) { names_.erase(name); }

  bool silent = false;
  uint8_t rcode = 0;  // in place of an answer, if not 0: 2 is SERVFAIL
  // Makes other bytes of a good answer; called as often as there are answers.
  std::function<std::vector<std::string>(const std::string& good)> spoil;
  const DnsServer* forge_from = nullptr;  // whose socket answers, in place of this one's
  int queries = 0;

  // A good answer to `query`, or NXDOMAIN, or one without addresses.
  std::string Answer(const std::string& query) const {
    size_t end = 12;
    std::string name;
    while (end < query.size() && query[end] != 0) {
      const auto length = static_cast<size_t>(query[end]);
      if (!name.empty()) name += '.';
      name += query.substr(end + 1, length);
      end += 1 + length;
    }
    const auto type = static_cast<uint16_t>(static_cast<uint8_t>(query[end + 1]) << 8 |
                                            static_cast<uint8_t>(query[end + 2]));
    const std::string question = query.substr(12, end + 5 - 12);
    const auto found = names_.find(name);
    std::string records;
    uint8_t count = 0;
    if (found != names_.end()) {
      for (const IpAddress& ip : found->second.first) {
        if (ip.IsV4() != (type == kA)) continue;
        const uint32_t ttl = found->second.second;
        records += std::string("\xc0\x0c", 2) + Two(type) + Two(1) + Two(ttl >> 16) + Two(ttl);
        const size_t skip = ip.IsV4() ? 12 : 0;
        records += Two(static_cast<uint32_t>(16 - skip));
        records.append(reinterpret_cast<const char*>(ip.bytes.data()) + skip, 16 - skip);
        ++count;
      }
    }
    const uint8_t code = rcode != 0 ? rcode : found == names_.end() ? 3 : 0;
    return query.substr(0, 2) + Two(0x8180u | code) + Two(1) + Two(count) + Two(0) + Two(0) +
           question + records;
  }

 private:
  static std::string Two(uint32_t value) {
    return {static_cast<char>(value >> 8), static_cast<char>(value)};
  }

  void OnReceive(io::SocketId, std::span<const io::RxTrain> trains) override {
    for (const io::RxTrain& train : trains) {
      for (uint32_t offset = 0; offset < train.size; offset += train.segment_size) {
        const uint32_t size = std::min(train.segment_size, train.size - offset);
        ++queries;
        if (silent) continue;
        const std::string query(reinterpret_cast<const char*>(train.data + offset), size);
        const std::string good = Answer(query);
        for (const std::string& text : spoil ? spoil(good) : std::vector<std::string>{good}) {
          const io::SocketId from = forge_from != nullptr ? forge_from->socket_ : socket_;
          loop_->Send(from, {.data = reinterpret_cast<const std::byte*>(text.data()),
                             .size = static_cast<uint32_t>(text.size()),
                             .to = train.from});
          loop_->Flush();
        }
      }
    }
  }
  void OnSendFailure(io::SocketId, const io::SendFailure&) override {}

  io::Loop* const loop_;
  io::SocketId socket_ = 0;
  std::map<std::string, std::pair<std::vector<IpAddress>, uint32_t>> names_;
};

}  // namespace ringsock::derp

#endif  // RINGSOCK_TESTS_DERP_DNS_SERVER_H_
