#include "relay/local_http.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "derp/http_upgrade.h"

namespace ringsock::relay {
namespace {

const char* ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Service Unavailable";
  }
}

std::string Reply(const LocalPage& page, bool with_body) {
  return absl::StrCat(
      "HTTP/1.1 ", page.status, " ", ReasonOf(page.status), "\r\nContent-Type: ", page.content_type,
      "\r\nContent-Length: ", page.body.size(), page.status == 405 ? "\r\nAllow: GET, HEAD" : "",
      "\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n", with_body ? page.body : "");
}

std::string Refusal(int status, absl::string_view why) {
  return Reply({.status = status, .body = absl::StrCat(why, "\n")}, true);
}

}  // namespace

// One connection: collects the head, sends the answer, goes.
class LocalHttp::Connection final : public io::StreamHandler {
 public:
  Connection(LocalHttp* owner, io::StreamId stream, Instant deadline)
      : owner_(owner), stream_(stream), deadline_(deadline) {}

  Instant deadline() const { return deadline_; }

  void OnConnect(io::StreamId) override {}

  void OnReceive(io::StreamId, std::span<std::byte> bytes) override {
    if (answered_) return;  // one request a connection
    switch (head_.Read(&bytes)) {
      case derp::HttpHeadReader::Result::kNeedMore:
        return;
      case derp::HttpHeadReader::Result::kTooLong:
        return Send(Refusal(431, "too many headers"));
      case derp::HttpHeadReader::Result::kDone:
        return Send(owner_->Answer(head_.head()));
    }
  }

  void OnWritable(io::StreamId) override { SendMore(); }
  // The other side may have ended its direction and still wait for the answer; without a whole
  // request there is none.
  void OnEnd(io::StreamId) override {
    if (answered_) return;
    owner_->loop_->streams()->Close(stream_);
    owner_->Forget(stream_);
  }
  void OnClose(io::StreamId, const absl::Status&) override { owner_->Forget(stream_); }

 private:
  void Send(std::string answer) {
    answered_ = true;
    answer_ = std::move(answer);
    SendMore();
  }

  void SendMore() {
    io::StreamLoop* const streams = owner_->loop_->streams();
    const absl::string_view rest = absl::string_view(answer_).substr(sent_);
    sent_ += streams->Send(stream_, std::as_bytes(std::span(rest.data(), rest.size())));
    if (!answered_ || sent_ < answer_.size()) return;
    streams->Close(stream_);  // goes on sending what is queued
    owner_->Forget(stream_);
  }

  LocalHttp* const owner_;
  const io::StreamId stream_;
  const Instant deadline_;
  derp::HttpHeadReader head_;
  bool answered_ = false;
  std::string answer_;
  size_t sent_ = 0;
};

LocalHttp::LocalHttp(io::Loop* loop, Pages pages) : loop_(loop), pages_(std::move(pages)) {}

LocalHttp::~LocalHttp() {
  if (listener_ != io::kNoStream) loop_->streams()->Close(listener_);
  for (const auto& [stream, connection] : connections_) loop_->streams()->Abort(stream);
}

absl::Status LocalHttp::Listen(const Endpoint& address) {
  io::ListenConfig config;
  config.bind = address;
  config.backlog = kMaxConnections;
  config.max_streams = kMaxConnections;
  const absl::StatusOr<io::StreamId> listener = loop_->streams()->Listen(config, this);
  if (!listener.ok()) return listener.status();
  listener_ = *listener;
  return absl::OkStatus();
}

Endpoint LocalHttp::endpoint() const { return loop_->streams()->LocalEndpoint(listener_); }

Instant LocalHttp::Tick(Instant now) {
  std::vector<io::StreamId> late;
  Instant next = Instant::max();
  for (const auto& [stream, connection] : connections_) {
    if (connection->deadline() <= now) {
      late.push_back(stream);
    } else {
      next = std::min(next, connection->deadline());
    }
  }
  for (const io::StreamId stream : late) {
    loop_->streams()->Abort(stream);
    Forget(stream);
  }
  gone_.clear();
  return next;
}

io::StreamHandler* LocalHttp::OnAccept(io::StreamId, io::StreamId stream, const Endpoint&) {
  auto connection = std::make_unique<Connection>(this, stream, loop_->clock().Now() + kTimeout);
  io::StreamHandler* const handler = connection.get();
  connections_.emplace(stream, std::move(connection));
  return handler;
}

void LocalHttp::Forget(io::StreamId stream) {
  const auto found = connections_.find(stream);
  if (found == connections_.end()) return;
  gone_.push_back(std::move(found->second));
  connections_.erase(found);
}

std::string LocalHttp::Answer(absl::string_view head) const {
  const auto request = derp::ParseHttpRequest(head);
  if (!request.ok()) return Refusal(400, request.status().message());
  const bool is_head = request->method == "HEAD";
  if (!is_head && request->method != "GET") return Refusal(405, "GET and HEAD only");
  return Reply(pages_(request->path), !is_head);
}

}  // namespace ringsock::relay
