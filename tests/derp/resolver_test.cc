// Names through c-ares on real loops, against a DNS server that answers, lies and keeps silent.
#include "derp/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/derp/dns_server.h"
#include "tests/io/loop_world.h"

namespace ringsock::derp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class ResolverTest : public testing::TestWithParam<io::WorldParam> {
 protected:
  void SetUp() override {
    world_ = GetParam().factory.make();
    loop_ = &world_->Add({});
    server_ = std::make_unique<DnsServer>(loop_, world_->Address(0, GetParam().v4));
    options_.servers = server_->at();
    // This thread may not run for a while: where an answer comes, no time limit is to come first.
    options_.timeout = seconds(20);
    options_.tries = 2;
    options_.stale_after = seconds(20);
  }
  // For servers that do not answer.
  void GiveUpSoon(int tries = 2) {
    options_.timeout = milliseconds(50);
    options_.tries = tries;
  }
  void Open() {
    auto made = NewResolver(loop_, &timers_, options_);
    ASSERT_TRUE(made.ok()) << made.status();
    resolver_ = *std::move(made);
  }
  // What came of a request: "192.0.2.1 192.0.2.2", with " stale", or the error.
  std::string* Ask(const std::string& name, AddressFamily family = AddressFamily::kV4) {
    auto text = std::make_shared<std::string>();
    texts_.push_back(text);
    last_ = resolver_->Resolve(name, family, [text](const absl::StatusOr<Resolved>& resolved) {
      EXPECT_EQ(*text, "") << "called twice";
      if (!resolved.ok()) {
        *text = resolved.status().ToString();
        return;
      }
      for (const IpAddress& ip : resolved->addresses) {
        *text += (text->empty() ? "" : " ") + ip.ToString();
      }
      if (resolved->stale) *text += " stale";
    });
    EXPECT_EQ(*text, "") << "not from inside the call";
    return text.get();
  }
  void Turn() {
    const Instant now = loop_->clock().Now();
    loop_->Poll(std::min(timers_.NextDeadline(), now + milliseconds(1)));
    timers_.RunDue(loop_->clock().Now());
  }
  const std::string& Await(const std::string* text) {
    for (const Instant end = SystemClock().Now() + seconds(30); SystemClock().Now() < end;) {
      if (!text->empty()) return *text;
      Turn();
    }
    ADD_FAILURE() << "no answer";
    return *text;
  }
  const std::string& Get(const std::string& name, AddressFamily family = AddressFamily::kV4) {
    return Await(Ask(name, family));
  }

  std::unique_ptr<io::World> world_;
  io::Loop* loop_ = nullptr;
  TimerQueue timers_;
  std::unique_ptr<DnsServer> server_;
  ResolverOptions options_;
  std::unique_ptr<Resolver> resolver_;
  std::vector<std::shared_ptr<std::string>> texts_;
  Resolver::RequestId last_ = 0;
  const IpAddress one_ = IpAddress::V4(192, 0, 2, 1);
  const IpAddress two_ = IpAddress::V4(192, 0, 2, 2);
  const IpAddress six_ = IpAddress::Parse("2001:db8::1").value();
};

INSTANTIATE_TEST_SUITE_P(Worlds, ResolverTest, testing::ValuesIn(io::RealWorldsAndFamilies()),
                         io::ParamName);

TEST_P(ResolverTest, AnswersEachFamilyAndRemembers) {
  Open();
  server_->Set("relay.example.test", {one_, six_, two_});
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1 192.0.2.2");
  EXPECT_EQ(Get("relay.example.test", AddressFamily::kV6), "2001:db8::1");
  const int queries = server_->queries;
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1 192.0.2.2");
  EXPECT_EQ(Get("relay.example.test", AddressFamily::kV6), "2001:db8::1");
  EXPECT_EQ(server_->queries, queries);
}

TEST_P(ResolverTest, RequestsForOneNameAreOneQuery) {
  Open();
  server_->Set("relay.example.test", {one_});
  std::vector<std::string*> asked;
  for (int i = 0; i < 20; ++i) asked.push_back(Ask("relay.example.test"));
  for (const std::string* text : asked) EXPECT_EQ(Await(text), "192.0.2.1");
  EXPECT_EQ(server_->queries, 1);
}

TEST_P(ResolverTest, NoSuchNameAndNoSuchAddress) {
  Open();
  server_->Set("four.example.test", {one_});
  EXPECT_THAT(Get("none.example.test."), HasSubstr("NOT_FOUND: DNS: no such name"));
  EXPECT_THAT(Get("four.example.test.", AddressFamily::kV6), HasSubstr("no IPv6 address"));
  const int queries = server_->queries;
  server_->Set("none.example.test", {one_});
  EXPECT_THAT(Get("none.example.test."), HasSubstr("NOT_FOUND"));
  EXPECT_EQ(server_->queries, queries) << "errors are remembered too";
  resolver_->OnLinkChange();
  EXPECT_EQ(Get("none.example.test."), "192.0.2.1") << "but not beyond a link change";
  EXPECT_THAT(Get("a..b"), testing::Not(HasSubstr("192.")));
  EXPECT_THAT(Get(std::string(300, 'x')), testing::Not(HasSubstr("192.")));
}

TEST_P(ResolverTest, ASilentServerIsGivenUpAndTheNextOneAsked) {
  GiveUpSoon();
  Open();
  server_->silent = true;
  EXPECT_THAT(Get("relay.example.test"), HasSubstr("UNAVAILABLE: DNS: relay.example.test: "));
  EXPECT_GE(server_->queries, 2);
  DnsServer other(loop_, world_->Address(0, GetParam().v4));
  other.Set("relay.example.test", {two_});
  options_.servers = server_->at() + "," + other.at();
  GiveUpSoon(/*tries=*/8);  // each twice as patient as the one before
  resolver_.reset();
  Open();
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.2");
  server_->silent = false;
  server_->rcode = 2;
  resolver_.reset();
  Open();
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.2") << "after a server failure too";
}

TEST_P(ResolverTest, GarbageIsNoAnswer) {
  Open();
  server_->Set("relay.example.test", {one_});
  // Cuts of a good answer, foreign ids, other questions, noise; then the good one.
  server_->spoil = [](const std::string& good) {
    std::vector<std::string> answers;
    for (size_t size = 1; size < 12; ++size) answers.push_back(good.substr(0, size));
    for (const size_t at : {0u, 1u, 13u, 20u}) {
      answers.push_back(good);
      answers.back()[at] = static_cast<char>(answers.back()[at] ^ 1);
    }
    answers.emplace_back(512, '\xff');
    answers.emplace_back(1, '\0');
    answers.push_back(good);
    return answers;
  };
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1");
  // Broken behind its header it is an error, and no address.
  server_->Set("other.example.test", {one_});
  server_->spoil = [](const std::string& good) {
    return std::vector<std::string>{good.substr(0, good.size() - 3)};
  };
  EXPECT_THAT(Get("other.example.test"), testing::Not(HasSubstr("192.")));
}

TEST_P(ResolverTest, OnlyTheServerThatWasAskedIsHeard) {
  GiveUpSoon();
  Open();
  DnsServer forger(loop_, world_->Address(0, GetParam().v4));
  server_->Set("relay.example.test", {one_});
  // The true answer reaches the client from another port of the same address.
  server_->forge_from = &forger;
  EXPECT_THAT(Get("relay.example.test"), HasSubstr("UNAVAILABLE"));
}

TEST_P(ResolverTest, TheLastGoodAnswerWhileTheDnsIsDown) {
  options_.min_ttl = options_.max_ttl = Duration::zero();
  options_.stale_after = milliseconds(20);
  Open();
  server_->Set("relay.example.test", {one_});
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1");
  server_->silent = true;
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1 stale");
  // It was asked for, and the late answer counts for the next.
  server_->silent = false;
  server_->Set("relay.example.test", {two_});
  resolver_->OnLinkChange();  // asks again
  std::string answer = Get("relay.example.test");
  // As often as this thread did not run for so long that the stale one came first.
  for (int i = 0; i < 100 && answer == "192.0.2.1 stale"; ++i) answer = Get("relay.example.test");
  EXPECT_EQ(answer, "192.0.2.2");
}

TEST_P(ResolverTest, AnErrorOfTheDnsDoesNotTakeTheGoodAnswerAway) {
  options_.min_ttl = options_.max_ttl = Duration::zero();
  options_.stale_after = seconds(20);
  Open();
  server_->Set("relay.example.test", {one_});
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1");
  server_->rcode = 2;  // SERVFAIL
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1 stale");
  server_->rcode = 0;
  server_->Remove("relay.example.test");
  resolver_->OnLinkChange();
  EXPECT_THAT(Get("relay.example.test"), HasSubstr("NOT_FOUND"));
}

TEST_P(ResolverTest, WhatIsCancelledIsNotCalled) {
  Open();
  server_->Set("relay.example.test", {one_});
  const std::string* cancelled = Ask("relay.example.test");
  resolver_->Cancel(last_);
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1");
  // One from the cache as well.
  const std::string* cached = Ask("relay.example.test");
  resolver_->Cancel(last_);
  EXPECT_EQ(Get("relay.example.test"), "192.0.2.1");
  EXPECT_EQ(*cancelled + *cached, "");
  // And one whose resolver goes.
  server_->silent = true;
  const std::string* orphan = Ask("other.example.test");
  for (int i = 0; i < 5; ++i) Turn();
  resolver_.reset();
  for (int i = 0; i < 5; ++i) Turn();
  EXPECT_EQ(*orphan, "");
  EXPECT_EQ(timers_.size(), 0u);
}

TEST_P(ResolverTest, NamesOfTheHostsFile) {
  Open();
  EXPECT_EQ(Get("localhost"), "127.0.0.1");
  EXPECT_EQ(server_->queries, 0);
}

TEST_P(ResolverTest, BadServersAreAnErrorAtStart) {
  options_.servers = "not a server";
  const auto made = NewResolver(loop_, &timers_, options_);
  ASSERT_FALSE(made.ok());
  EXPECT_THAT(made.status().message(), HasSubstr("not a server"));
}

}  // namespace
}  // namespace ringsock::derp
