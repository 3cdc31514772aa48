// The HTTP exchange in front of DERP, both roles, and the helper pages.
#include "derp/http_upgrade.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/derp/vectors.h"

namespace ringsock::derp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

PublicKey ServerKey() { return PublicVector("server"); }

// The answer to a request given without its empty line.
HttpAnswer Answer(const std::string& head) { return AnswerHttp(head, ServerKey()); }
HttpAnswer Get(const std::string& path, const std::string& headers = "",
               const std::string& method = "GET") {
  return Answer(absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: relay\r\n", headers));
}

constexpr char kUpgrade[] = "Connection: Upgrade\r\nUpgrade: DERP\r\n";

// The result of a reply that comes in one piece; what is left over goes to `rest`.
absl::StatusOr<bool> ReadReply(const std::string& reply, std::string* rest = nullptr) {
  ByteVector bytes = FromText(reply);
  MutableBytes input = bytes;
  UpgradeReplyReader reader;
  auto result = reader.Read(&input);
  if (rest != nullptr) *rest = std::string(AsText(input));
  return result;
}
std::string ReplyError(const std::string& reply) {
  return std::string(ReadReply(reply).status().message());
}

// ---- The client's side ----

// spec: derp.md, Transport: Request; the bytes are those of the recorded session.
TEST(HttpUpgradeTest, RequestIsTheRecordedOne) {
  const auto request =
      UpgradeRequest({.host = "127.0.0.1:18081", .user_agent = "Go-http-client/1.1"});
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(*request, AsText(RecordedSession()[0].bytes));
}

TEST(HttpUpgradeTest, RequestOptions) {
  const auto request = UpgradeRequest({.host = "relay", .fast_start = true, .ideal_node = "1a"});
  EXPECT_EQ(*request,
            "GET /derp HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
            "Derp-Fast-Start: 1\r\nIdeal-Node: 1a\r\n\r\n");
}

TEST(HttpUpgradeTest, RequestTakesNoForeignHeaders) {
  EXPECT_FALSE(UpgradeRequest({.host = ""}).ok());
  EXPECT_FALSE(UpgradeRequest({.host = "a b"}).ok());
  EXPECT_FALSE(UpgradeRequest({.host = "a\r\nX: y"}).ok());
  EXPECT_FALSE(UpgradeRequest({.host = "a", .user_agent = "x\r\nY: z"}).ok());
  EXPECT_FALSE(UpgradeRequest({.host = "a", .ideal_node = "x\n"}).ok());
}

TEST(HttpUpgradeTest, RecordedReplyInAnyChunks) {
  const ByteVector recorded = RecordedSession()[1].bytes;
  SeededRandom random(5);
  for (size_t max : {1u, 3u, 64u, 4096u}) {
    UpgradeReplyReader reader;
    ByteVector frames;
    bool done = false;
    InChunks(recorded, max, random, [&](MutableBytes chunk) {
      if (!done) {
        const auto result = reader.Read(&chunk);
        ASSERT_TRUE(result.ok()) << result.status();
        done = *result;
      }
      Append(&frames, chunk);
    });
    EXPECT_TRUE(done);
    EXPECT_EQ(frames.size(), 45u);  // the ServerKey frame
    EXPECT_EQ(frames[0], std::byte{0x01});
  }
}

// spec: derp.md, Transport: "Any other status is a failed connection; its body is the reason."
TEST(HttpUpgradeTest, RefusalsSayWhy) {
  EXPECT_EQ(ReplyError("HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\n\r\nnot allowed"),
            "relay answered 403 Forbidden: not allowed");
  EXPECT_EQ(ReplyError("HTTP/1.1 502 \r\nContent-Length: 0\r\n\r\n"), "relay answered 502 ");
  EXPECT_EQ(ReplyError("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n\x1b[31mhi\r\nyo!"),
            "relay answered 200 OK: ?[31mhi  yo!");
  // A body without end or without length is waited for, but not for long.
  EXPECT_THAT(ReplyError("HTTP/1.1 500 Oops\r\n\r\n" + std::string(600, 'x')),
              HasSubstr(std::string(kMaxHttpReason, 'x')));
}

TEST(HttpUpgradeTest, RefusalWithoutLengthEndsWithTheStream) {
  ByteVector bytes = FromText("HTTP/1.1 404 Not Found\r\n\r\nwrong port");
  MutableBytes input = bytes;
  UpgradeReplyReader reader;
  EXPECT_EQ(reader.OnEnd().message(), "connection closed before the HTTP reply");
  const auto result = reader.Read(&input);
  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(*result);
  EXPECT_EQ(reader.OnEnd().message(), "relay answered 404 Not Found: wrong port");
}

TEST(HttpUpgradeTest, BadReplies) {
  for (const char* reply : {
           "HTTP/2 101 Switching\r\n\r\n",
           "HTTP/1.1 1O1 x\r\n\r\n",
           "HTTP/1.1 1011 x\r\n\r\n",
           "HTTP/1.1\r\n\r\n",
           "SSH-2.0-OpenSSH\r\n\r\n",
           "\r\n\r\n",
           "HTTP/1.1 101 x\r\nUpgrade DERP\r\n\r\n",
           "HTTP/1.1 101 x\r\n Upgrade: DERP\r\n\r\n",
           "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
           "HTTP/1.1 101 x\r\n\r\n",
       }) {
    EXPECT_THAT(ReplyError(reply), HasSubstr("HTTP reply: ")) << reply;
  }
}

TEST(HttpUpgradeTest, EndlessHeadersAreBounded) {
  UpgradeReplyReader reader;
  ByteVector line = FromText("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
  absl::StatusOr<bool> result = false;
  size_t sent = 0;
  while (result.ok() && sent <= kMaxHttpHead) {
    MutableBytes input = line;
    result = reader.Read(&input);
    sent += line.size();
  }
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("endless headers"));
  EXPECT_LE(sent, kMaxHttpHead + line.size());
}

// ---- The server's side ----

// spec: derp.md, Transport: Reply.
TEST(HttpUpgradeTest, UpgradeIsAnsweredAsRecorded) {
  ByteVector request = RecordedSession()[0].bytes;
  MutableBytes input = request;
  HttpHeadReader reader;
  ASSERT_EQ(reader.Read(&input), HttpHeadReader::Result::kDone);
  const PublicKey key =
      *PublicKey::Parse("628e4171be70f2c95d975e7ddcfa4b33de01dd2cad4f89fbda1fa5e6786e5e69");
  const HttpAnswer answer = AnswerHttp(reader.head(), key);
  EXPECT_EQ(answer.next, HttpAnswer::Next::kDerp);
  const ByteVector recorded = RecordedSession()[1].bytes;
  EXPECT_TRUE(absl::StartsWith(AsText(recorded), answer.reply)) << answer.reply;
  EXPECT_EQ(answer.reply.size() + 45, recorded.size());
}

TEST(HttpUpgradeTest, UpgradeVariants) {
  EXPECT_EQ(Get("/derp", "connection: keep-alive, upgrade\r\nUPGRADE: WebSocket\r\n").status, 101);
  EXPECT_EQ(Get("/derp?x=y", kUpgrade).status, 101);
  EXPECT_EQ(Get("http://relay/derp", kUpgrade).status, 101);
  EXPECT_EQ(Get("/derp", absl::StrCat(kUpgrade, "Content-Length: 0\r\n")).status, 101);
  EXPECT_EQ(Get("/derp", kUpgrade, "POST").status, 405);
}

// spec: derp.md, Transport: "No upgrade header: status 426."
TEST(HttpUpgradeTest, WithoutUpgradeIs426) {
  const HttpAnswer answer = Get("/derp");
  EXPECT_EQ(answer.status, 426);
  EXPECT_EQ(answer.next, HttpAnswer::Next::kClose);
  EXPECT_THAT(answer.reply, HasSubstr("HTTP/1.1 426 Upgrade Required\r\nUpgrade: DERP\r\n"));
  EXPECT_EQ(Get("/derp", "Upgrade: DERP\r\n").status, 426);
  EXPECT_EQ(Get("/derp", "Connection: Upgrade\r\nUpgrade: h2c\r\n").status, 426);
  EXPECT_EQ(Answer(absl::StrCat("GET /derp HTTP/1.0\r\n", kUpgrade)).status, 426);
}

// spec: derp.md, Transport: Fast start; Ideal-Node.
TEST(HttpUpgradeTest, FastStartIsAnsweredWithNothing) {
  const HttpAnswer answer =
      Get("/derp", absl::StrCat(kUpgrade, "Derp-Fast-Start: 1\r\nIdeal-Node: 1a\r\n"));
  EXPECT_EQ(answer.next, HttpAnswer::Next::kDerp);
  EXPECT_TRUE(answer.fast_start);
  EXPECT_EQ(answer.reply, "");
  EXPECT_EQ(answer.ideal_node, "1a");
  EXPECT_FALSE(Get("/derp", absl::StrCat(kUpgrade, "Derp-Fast-Start: 0\r\n")).fast_start);
}

// spec: derp.md, Transport: helpers.
TEST(HttpUpgradeTest, LatencyCheckAndProbe) {
  for (const char* path : {"/derp/latency-check", "/derp/probe"}) {
    for (const char* method : {"GET", "HEAD"}) {
      const HttpAnswer answer = Get(path, "", method);
      EXPECT_EQ(answer.status, 200);
      EXPECT_EQ(answer.next, HttpAnswer::Next::kClose);
      EXPECT_THAT(answer.reply, HasSubstr("\r\nAccess-Control-Allow-Origin: *\r\n"));
      EXPECT_THAT(answer.reply, HasSubstr("\r\nContent-Length: 0\r\n"));
      EXPECT_TRUE(absl::EndsWith(answer.reply, "\r\n\r\n"));
    }
    EXPECT_EQ(Get(path, "", "POST").status, 405);
  }
}

TEST(HttpUpgradeTest, Generate204) {
  const HttpAnswer plain = Get("/generate_204");
  EXPECT_EQ(plain.status, 204);
  EXPECT_THAT(plain.reply, HasSubstr("Cache-Control: no-cache"));
  EXPECT_THAT(plain.reply, Not(HasSubstr("Content-Length")));
  EXPECT_THAT(plain.reply, Not(HasSubstr("X-Tailscale-Response")));
  EXPECT_THAT(Get("/generate_204", "X-Tailscale-Challenge: ts_Derp-1.a:B\r\n").reply,
              HasSubstr("\r\nX-Tailscale-Response: response ts_Derp-1.a:B\r\n"));
  const std::string longest(64, 'a');
  EXPECT_THAT(Get("/generate_204", absl::StrCat("X-Tailscale-Challenge: ", longest, "\r\n")).reply,
              HasSubstr(longest));
  for (const std::string& bad : {longest + "a", std::string("a b"), std::string("<x>")}) {
    EXPECT_THAT(Get("/generate_204", absl::StrCat("X-Tailscale-Challenge: ", bad, "\r\n")).reply,
                Not(HasSubstr("X-Tailscale-Response")));
  }
}

TEST(HttpUpgradeTest, OthersAreNotFound) {
  for (const char* path : {"/", "/robots.txt", "/derp/", "/derpx", "*", "http://relay"}) {
    EXPECT_EQ(Get(path).status, 404) << path;
  }
  EXPECT_TRUE(absl::EndsWith(Get("/x").reply, "\r\n\r\nnot found\n"));
  EXPECT_TRUE(absl::EndsWith(Get("/x", "", "HEAD").reply, "\r\n\r\n"));
}

TEST(HttpUpgradeTest, BadRequests) {
  for (const char* head : {
           "",
           "\r\n",
           "GET\r\n",
           "GET /derp\r\n",
           "GET  /derp HTTP/1.1\r\n",
           "GET /derp HTTP/1.1 x\r\n",
           "G@T /derp HTTP/1.1\r\nHost: a\r\n",
           "GET /d\x01 HTTP/1.1\r\nHost: a\r\n",
           "GET /derp HTTP/1.1\r\n",
           "GET /derp HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
           "GET /derp HTTP/1.1\r\nHost : a\r\n",
           "GET /derp HTTP/1.1\r\nHost: a\r\n folded\r\n",
           "GET /derp HTTP/1.1\r\nHost: a\nX: b\r\n",
           "GET /derp HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n",
           "GET /derp HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n",
           "GET /derp HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
           "GET /derp SMTP\r\nHost: a\r\n",
       }) {
    EXPECT_EQ(Answer(head).status, 400) << head;
  }
  EXPECT_EQ(Answer("PRI * HTTP/2.0\r\n").status, 505);
  std::string many = "GET /derp HTTP/1.1\r\nHost: a\r\n";
  for (size_t i = 0; i < kMaxHttpHeaders; ++i) many += "X: y\r\n";
  EXPECT_EQ(Answer(many).status, 431);
}

TEST(HttpUpgradeTest, HeadReaderStopsAtTheEmptyLine) {
  const std::string head = "GET / HTTP/1.1\r\nHost: a\r\n";
  const ByteVector stream = FromText(head + "\r\nframes follow");
  SeededRandom random(9);
  for (size_t max : {1u, 2u, 5u, 100u}) {
    HttpHeadReader reader;
    ByteVector rest;
    bool done = false;
    InChunks(stream, max, random, [&](MutableBytes chunk) {
      if (!done) done = reader.Read(&chunk) == HttpHeadReader::Result::kDone;
      Append(&rest, chunk);
    });
    EXPECT_EQ(reader.head(), head);
    EXPECT_EQ(AsText(rest), "frames follow");
  }
}

}  // namespace
}  // namespace ringsock::derp
