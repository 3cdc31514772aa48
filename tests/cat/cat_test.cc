// Two ringsock-cats on loopback, in one process, each with its own pipe and output file.
#include "cat/cat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/key.h"

namespace ringsock::cat {
namespace {

using nlohmann::json;
using testing::SizeIs;

// A cat in a thread of its own.
class Running {
 public:
  explicit Running(Options options)
      : options_(std::move(options)), out_(std::tmpfile()), events_(options_.json, out_, out_) {
    if (pipe(pipe_) != 0) std::abort();
    thread_ = std::thread([this] { outcome_ = Cat(options_, &events_, &stop_).Run(pipe_[0]); });
  }
  ~Running() {
    Stop();
    Join();
    close(pipe_[0]);
    std::fclose(out_);
  }

  void Type(const std::string& text) {
    // A process that is stopped and goes on writes a part of what the pipe has no room for.
    for (size_t done = 0; done < text.size();) {
      const ssize_t written = write(pipe_[1], text.data() + done, text.size() - done);
      ASSERT_GT(written, 0);
      done += static_cast<size_t>(written);
    }
  }
  void EndInput() {
    if (pipe_[1] >= 0) close(pipe_[1]);
    pipe_[1] = -1;
  }
  void Stop() {
    stop_.Raise();
    EndInput();
  }
  Outcome Join() {
    if (thread_.joinable()) thread_.join();
    return outcome_;
  }
  std::string Output() {
    std::string text;
    char chunk[4096];
    ssize_t got = 0;
    for (off_t at = 0; (got = pread(fileno(out_), chunk, sizeof(chunk), at)) > 0; at += got) {
      text.append(chunk, static_cast<size_t>(got));
    }
    return text;
  }
  // The events of one kind, so far.
  std::vector<json> Events(const std::string& kind) {
    std::istringstream lines(Output());
    std::vector<json> events;
    for (std::string line; std::getline(lines, line);) {
      const json event = json::parse(line, nullptr, false);
      if (event.is_object() && event.value("event", "") == kind) events.push_back(event);
    }
    return events;
  }
  // Waits for the self event, and returns the port in it.
  int Port() {
    while (Events("self").empty()) std::this_thread::yield();
    return Events("self")[0]["port"];
  }

 private:
  Options options_;
  FILE* out_;
  cat::Events events_;
  StopSignal stop_;
  int pipe_[2];
  Outcome outcome_ = Outcome::kFailed;
  std::thread thread_;
};

Options JsonOptions() {
  Options options;
  options.json = true;
  options.engine.shards = 1;
  options.engine.pin_threads = false;
  options.engine.network.watch_links = false;
  return options;
}

const PublicKey kAlice{{1}};
const PublicKey kBob{{2}};

TEST(Cat, LinesGoThereAndComeBack) {
  Options echo = JsonOptions();
  echo.echo = true;
  Running server(std::move(echo));
  Options options = JsonOptions();
  options.peers.push_back({kBob, absl::StrCat("127.0.0.1:", server.Port())});
  options.receive = 2;
  Running client(std::move(options));
  client.Type("hello\n\nworld \xff\n");
  EXPECT_EQ(client.Join(), Outcome::kDone);

  const std::vector<json> packets = client.Events("packet");
  ASSERT_THAT(packets, SizeIs(2));
  EXPECT_EQ(packets[0]["text"], "hello");
  EXPECT_EQ(packets[0]["peer"], kBob.ToBase64());
  EXPECT_EQ(packets[0]["path"], "direct4");
  EXPECT_EQ(packets[0]["size"], 5);
  EXPECT_EQ(packets[1]["base64"], "d29ybGQg/w==");
  EXPECT_THAT(client.Events("sent"), SizeIs(2));
  // spec: EP-3, EP-4
  ASSERT_THAT(client.Events("endpoints"), SizeIs(1));
  EXPECT_THAT(client.Events("endpoints")[0]["endpoints"][0]["address"].get<std::string>(),
              testing::EndsWith(absl::StrCat(":", client.Port())));
  ASSERT_THAT(client.Events("summary"), SizeIs(1));
  EXPECT_EQ(client.Events("summary")[0]["received"], 2);
  EXPECT_EQ(client.Events("status")[0]["peers"][0]["current"],
            absl::StrCat("127.0.0.1:", server.Port()));
  server.Stop();
  EXPECT_EQ(server.Join(), Outcome::kDone);
  EXPECT_EQ(server.Events("packet")[0]["peer"], nullptr);  // spec: RECV-4
}

TEST(Cat, GeneratedPacketsOverIpv6) {
  Options echo = JsonOptions();
  echo.echo = true;
  Running server(std::move(echo));
  Options options = JsonOptions();
  options.peers.push_back({kAlice, absl::StrCat("[::1]:", server.Port())});
  options.size = 1400;
  options.count = 500;
  options.receive = 500;
  options.timeout = std::chrono::seconds(20);  // only so that a failure shows its counters
  Running client(std::move(options));
  EXPECT_EQ(client.Join(), Outcome::kDone);
  const std::vector<json> packets = client.Events("packet");
  ASSERT_THAT(packets, SizeIs(500));
  for (size_t i = 0; i < packets.size(); ++i) {
    ASSERT_EQ(packets[i]["text"].get<std::string>().rfind(absl::StrCat("ringsock ", i, " "), 0), 0)
        << packets[i];
  }
}

TEST(Cat, TimeUpIsItsOwnOutcome) {
  Options options = JsonOptions();
  options.receive = 1;
  options.timeout = std::chrono::milliseconds(1);
  Running client(std::move(options));
  EXPECT_EQ(client.Join(), Outcome::kTimeUp);
}

TEST(Cat, NobodyToSendToFails) {
  Options options = JsonOptions();
  options.linger = Duration();
  Running client(std::move(options));
  client.Type("hello\n");
  client.EndInput();
  EXPECT_EQ(client.Join(), Outcome::kFailed);
  EXPECT_THAT(client.Events("error"), SizeIs(1));
}

TEST(Cat, PortInUseSaysSo) {
  Running first(JsonOptions());
  Options options = JsonOptions();
  options.engine.port = static_cast<uint16_t>(first.Port());
  Running second(std::move(options));
  EXPECT_EQ(second.Join(), Outcome::kFailed);
  EXPECT_THAT(second.Output(), testing::HasSubstr("in use"));
}

TEST(Cat, WhatNeverLeftIsAFailure) {
  Options options = JsonOptions();
  options.peers.push_back({kAlice, ""});  // no address, and none was learned
  options.linger = Duration();
  Running client(std::move(options));
  client.Type("hello\n");
  client.EndInput();
  EXPECT_EQ(client.Join(), Outcome::kFailed);
  ASSERT_THAT(client.Events("summary"), SizeIs(1));
  EXPECT_EQ(client.Events("summary")[0]["dropped"], 1);
}

TEST(Cat, ALineThatIsTooLongIsSkippedAndTheNextGoes) {
  Running sink(JsonOptions());
  Options options = JsonOptions();
  options.peers.push_back({kAlice, absl::StrCat("127.0.0.1:", sink.Port())});
  options.linger = Duration();
  Running client(std::move(options));
  client.Type(std::string(40000, 'a'));
  client.Type(std::string(40000, 'a') + "\nshort\n");
  client.EndInput();
  EXPECT_EQ(client.Join(), Outcome::kFailed);
  EXPECT_THAT(client.Events("error"), SizeIs(1));
  ASSERT_THAT(client.Events("sent"), SizeIs(1));
  EXPECT_EQ(client.Events("sent")[0]["size"], 5);
  EXPECT_EQ(client.Events("summary")[0]["not_sent"], 1);
}

}  // namespace
}  // namespace ringsock::cat
