// The local web server on a real loop: pages, refusals, and its bounds.
#include "relay/local_http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "io/loop.h"

namespace ringsock::relay {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// A client on the server's own loop.
class Client final : public io::StreamHandler {
 public:
  Client(io::Loop* loop, const Endpoint& to) : loop_(loop) {
    stream_ = *loop->streams()->Connect({.to = to}, this);
  }
  ~Client() override { loop_->streams()->Abort(stream_); }

  void Send(absl::string_view text) {
    loop_->streams()->Send(stream_, std::as_bytes(std::span(text.data(), text.size())));
  }
  void EndSending() { loop_->streams()->Shutdown(stream_); }
  void StopReading() { loop_->streams()->SetReceiving(stream_, false); }

  void OnConnect(io::StreamId) override { connected = true; }
  void OnReceive(io::StreamId, std::span<std::byte> bytes) override {
    answer.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void OnWritable(io::StreamId) override {}
  void OnEnd(io::StreamId) override { done = true; }
  void OnClose(io::StreamId, const absl::Status& why) override {
    done = true;
    closed = why;
  }

  bool connected = false;
  bool done = false;
  absl::Status closed;
  std::string answer;

 private:
  io::Loop* const loop_;
  io::StreamId stream_;
};

class LocalHttpTest : public testing::Test {
 protected:
  LocalHttpTest() {
    io::BackendChoice choice;
    io::LoopOptions options;
    options.backend = io::Backend::kMmsg;
    auto loop = io::CreateLoop(options, &choice);
    EXPECT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
    start_ = loop_->clock().Now();
    http_ = std::make_unique<LocalHttp>(loop_.get(), [this](absl::string_view path) -> LocalPage {
      ++pages_;
      if (path == "/metrics") return {.status = 200, .body = body_};
      if (path == "/healthz") return {.status = 503, .body = "stopping\n"};
      return {};
    });
    EXPECT_TRUE(http_->Listen({IpAddress::V4(127, 0, 0, 1), 0}).ok());
  }

  std::unique_ptr<Client> Connect() {
    return std::make_unique<Client>(loop_.get(), http_->endpoint());
  }
  // Turns the loop until `condition` holds. The server is told a time at which nobody is late: a
  // busy machine may take longer.
  template <typename Condition>
  void Until(Condition condition) {
    while (!condition()) {
      http_->Tick(start_);
      loop_->Poll(loop_->clock().Now() + std::chrono::milliseconds(10));
    }
  }
  std::string Get(absl::string_view request) {
    auto client = Connect();
    client->Send(request);
    Until([&] { return client->done; });
    return client->answer;
  }

  std::unique_ptr<io::Loop> loop_;
  Instant start_;
  std::unique_ptr<LocalHttp> http_;
  std::string body_ = "a 1\n";
  int pages_ = 0;
};

TEST_F(LocalHttpTest, PagesAndWhatIsNone) {
  const std::string page = Get("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(page, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(page, HasSubstr("\r\nContent-Length: 4\r\n"));
  EXPECT_THAT(page, EndsWith("\r\n\r\na 1\n"));
  EXPECT_THAT(Get("GET /healthz HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(Get("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  const std::string head = Get("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("Content-Length: 4"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n")) << "no body";
}

TEST_F(LocalHttpTest, RefusesWhatIsNoRequest) {
  EXPECT_THAT(Get("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
              testing::AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: GET, HEAD")));
  EXPECT_THAT(Get("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Get("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(9000, 'x')),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_EQ(pages_, 0);
}

TEST_F(LocalHttpTest, ABodyLargerThanTheQueueComesWhole) {
  body_ = std::string(3 << 20, 'x');
  const std::string page = Get("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_GT(page.size(), body_.size());
  EXPECT_EQ(page.substr(page.size() - body_.size()), body_);
}

TEST_F(LocalHttpTest, PiecesAndHalfClose) {
  auto client = Connect();
  for (const char piece : std::string("GET /metrics HTTP/1.1\r\nHost: a\r\n\r")) {
    client->Send({&piece, 1});
    http_->Tick(start_);
    loop_->Poll(loop_->clock().Now());
  }
  client->Send("\n");
  client->EndSending();
  Until([&] { return client->done; });
  EXPECT_THAT(client->answer, EndsWith("a 1\n"));
  // An end before a request is no request.
  auto empty = Connect();
  empty->EndSending();
  Until([&] { return empty->done; });
  EXPECT_EQ(empty->answer, "");
}

TEST_F(LocalHttpTest, OneConnectionTooManyIsReset) {
  std::vector<std::unique_ptr<Client>> idle;
  for (uint32_t i = 0; i < LocalHttp::kMaxConnections; ++i) idle.push_back(Connect());
  Until([&] {
    return std::all_of(idle.begin(), idle.end(), [](const auto& one) { return one->connected; });
  });
  auto more = Connect();
  Until([&] { return more->done; });
  EXPECT_FALSE(more->closed.ok());
  for (const auto& one : idle) EXPECT_FALSE(one->done);
  // A place that is free again is used again.
  idle.pop_back();
  std::string answer;
  Until([&] {
    answer = Get("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    return !answer.empty();
  });
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
}

TEST_F(LocalHttpTest, WhoTakesTooLongIsReset) {
  auto silent = Connect();
  body_ = std::string(64 << 20, 'x');
  auto stalled = Connect();
  stalled->StopReading();
  stalled->Send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
  Until([&] { return silent->connected && pages_ == 1; });
  const Instant now = loop_->clock().Now();
  const Instant next = http_->Tick(start_);
  EXPECT_GE(next, start_ + LocalHttp::kTimeout);
  EXPECT_LE(next, now + LocalHttp::kTimeout);
  // Not the clock's time: the one it is told.
  EXPECT_EQ(http_->Tick(now + LocalHttp::kTimeout), Instant::max());
  Until([&] { return silent->done; });
  EXPECT_FALSE(silent->closed.ok());
}

}  // namespace
}  // namespace ringsock::relay
