// Uses one symbol of every system library, so that a missing package, a wrong link option or a
// second TLS library in the process shows here and not in the middle of something else.

#include <absl/container/flat_hash_map.h>
#include <absl/flags/flag.h>
#include <absl/hash/hash.h>
#include <absl/random/random.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/clock.h>
#include <ares.h>
#include <benchmark/benchmark.h>
#include <blake2.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libmnl/libmnl.h>
#include <liburing.h>
#include <openssl/base.h>
#include <openssl/ssl.h>
#include <prometheus/counter.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sodium.h>
#include <spdlog/spdlog.h>

#include <array>
#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>

#if defined(__x86_64__)
#include <intel-ipsec-mb.h>
#endif

ABSL_FLAG(int, smoke, 7, "a flag, to link the flags library");

namespace ringsock {
namespace {

absl::StatusOr<int> Positive(int value) {
  if (value <= 0) return absl::InvalidArgumentError(absl::StrFormat("%d is not positive", value));
  return value;
}

TEST(ThirdPartyTest, Absl) {
  EXPECT_EQ(*Positive(3), 3);
  EXPECT_EQ(Positive(-3).status().message(), "-3 is not positive");
  absl::flat_hash_map<std::string, int> map;
  for (int i = 0; i < 1000; ++i) map[absl::StrCat("key", i)] = i;
  EXPECT_EQ(map.size(), 1000u);
  EXPECT_EQ(map.at("key7"), absl::GetFlag(FLAGS_smoke));
  EXPECT_NE(absl::HashOf(1), absl::HashOf(2));
  absl::Mutex mutex;
  {
    absl::MutexLock lock(&mutex);
    mutex.AssertHeld();
  }
  absl::BitGen random;
  EXPECT_LT(absl::Uniform(random, 0, 10), 10);
  EXPECT_GT(absl::Now(), absl::UnixEpoch());
}

TEST(ThirdPartyTest, Uring) {
  io_uring_params params = {};
  io_uring ring = {};
  const int result = io_uring_queue_init_params(4, &ring, &params);
  // A machine may forbid io_uring; linking is what is checked here.
  if (result == 0) io_uring_queue_exit(&ring);
  EXPECT_THAT(result, ::testing::AnyOf(0, -EPERM, -ENOSYS, -ENOMEM));
}

TEST(ThirdPartyTest, BoringSsl) {
#ifndef OPENSSL_IS_BORINGSSL
#error "the headers of another TLS library were found first"
#endif
  SSL_CTX* context = SSL_CTX_new(TLS_method());
  ASSERT_NE(context, nullptr);
  SSL* ssl = SSL_new(context);
  EXPECT_NE(ssl, nullptr);
  SSL_free(ssl);
  SSL_CTX_free(context);
}

TEST(ThirdPartyTest, OpenSslStaysOut) {
  std::ifstream maps("/proc/self/maps");
  std::stringstream text;
  text << maps.rdbuf();
  EXPECT_THAT(text.str(), ::testing::HasSubstr("android/libssl.so.0"));
  EXPECT_THAT(text.str(), ::testing::Not(::testing::HasSubstr("libssl.so.3")));
  EXPECT_THAT(text.str(), ::testing::Not(::testing::HasSubstr("libcrypto.so.3")));
}

TEST(ThirdPartyTest, IpsecMb) {
#if defined(__x86_64__)
  IMB_MGR* manager = alloc_mb_mgr(0);
  ASSERT_NE(manager, nullptr);
  IMB_ARCH arch = IMB_ARCH_NONE;
  init_mb_mgr_auto(manager, &arch);
  EXPECT_EQ(imb_get_errno(manager), 0);
  EXPECT_NE(arch, IMB_ARCH_NONE);
  free_mb_mgr(manager);
#endif
}

TEST(ThirdPartyTest, SodiumAndBlake2s) {
  ASSERT_GE(sodium_init(), 0);
  std::array<unsigned char, crypto_box_SECRETKEYBYTES> secret = {};
  std::array<unsigned char, crypto_box_PUBLICKEYBYTES> key = {};
  EXPECT_EQ(crypto_box_keypair(key.data(), secret.data()), 0);
  std::array<unsigned char, 32> digest = {};
  EXPECT_EQ(blake2s(digest.data(), "abc", nullptr, digest.size(), 3, 0), 0);
  EXPECT_EQ(digest[0], 0x50);  // RFC 7693, appendix B
  EXPECT_EQ(digest[31], 0x82);
}

TEST(ThirdPartyTest, CaresAndNetlink) {
  EXPECT_EQ(ares_library_init(ARES_LIB_INIT_ALL), ARES_SUCCESS);
  ares_library_cleanup();
  std::array<char, 256> buffer = {};
  const nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
  EXPECT_EQ(header->nlmsg_len, MNL_NLMSG_HDRLEN);
}

TEST(ThirdPartyTest, JsonLogAndMetrics) {
  EXPECT_EQ(nlohmann::json::parse(R"({"port": 3478})")["port"], 3478);
  spdlog::info("smoke {}", 1);
  prometheus::Registry registry;
  prometheus::BuildCounter()
      .Name("packets")
      .Register(registry)
      .Add({{"path", "direct"}})
      .Increment(2);
  EXPECT_THAT(prometheus::TextSerializer().Serialize(registry.Collect()),
              ::testing::HasSubstr("packets{path=\"direct\"} 2"));
}

TEST(ThirdPartyTest, Benchmark) {
  const int value = 3;
  benchmark::DoNotOptimize(value);
  EXPECT_EQ(value, 3);
}

TEST(ThirdPartyTest, ThreadsShareMemory) {
  std::atomic<int> ready = 0;
  int value = 0;
  std::thread writer([&] {
    value = 1;
    ready.store(1, std::memory_order_release);
  });
  while (ready.load(std::memory_order_acquire) == 0) std::this_thread::yield();
  EXPECT_EQ(value, 1);
  writer.join();
}

}  // namespace
}  // namespace ringsock
