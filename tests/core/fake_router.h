// A router for tests of port mapping: speaks NAT-PMP and UPnP IGD as far as clients look at them,
// on a thread of its own, and remembers what was mapped.
#ifndef RINGSOCK_TESTS_CORE_FAKE_ROUTER_H_
#define RINGSOCK_TESTS_CORE_FAKE_ROUTER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace ringsock {

class FakeRouter {
 public:
  struct Options {
    bool nat_pmp = true;
    bool upnp = true;
    std::string address = "127.0.0.1";  // where it speaks NAT-PMP
    uint16_t result = 0;                // of NAT-PMP; 0: success
    uint32_t lifetime = 7200;           // that NAT-PMP grants, in seconds
    uint32_t ignore = 0;                // requests of NAT-PMP to leave unanswered first
    bool forge = false;                 // send nonsense before each answer
    bool late = false;                  // send answers to requests of before first
    bool permanent_only = false;        // UPnP error 725 for a lease that ends
    uint16_t taken = 0;                 // external port of somebody else: UPnP error 718
  };

  // Binds NAT-PMP to port 5351 and listens for SSDP on the device with address 10.0.0.1.
  explicit FakeRouter(const Options& options);
  ~FakeRouter();
  FakeRouter(const FakeRouter&) = delete;
  FakeRouter& operator=(const FakeRouter&) = delete;

  // Internal port by external port, of UDP mappings.
  std::map<uint16_t, uint16_t> mappings() const;
  uint64_t requests() const { return requests_.load(); }

 private:
  void Main();
  void AnswerNatPmp();
  void AnswerSearch();
  void AnswerHttp();
  std::string Soap(const std::string& request);

  const Options options_;
  int natpmp_ = -1;
  int ssdp_ = -1;
  int http_ = -1;
  int stop_ = -1;
  uint16_t http_port_ = 0;
  uint32_t ignored_ = 0;
  std::atomic<uint64_t> requests_{0};
  mutable std::mutex mutex_;
  std::map<uint16_t, uint16_t> mappings_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace ringsock

#endif  // RINGSOCK_TESTS_CORE_FAKE_ROUTER_H_
