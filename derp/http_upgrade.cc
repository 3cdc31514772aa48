#include "derp/http_upgrade.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "derp/json.h"

namespace ringsock::derp {
namespace {

constexpr absl::string_view kCrlf = "\r\n";
constexpr size_t kMaxChallenge = 64;

// RFC 9110, 5.6.2.
bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::StrContains("!#$%&'*+-.^_`|~", absl::string_view(&c, 1));
  });
}

// RFC 9110, 5.5: visible characters, blanks and bytes over 0x7f.
bool IsFieldValue(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

bool IsVisible(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

// Takes a line and its CRLF from the front. False if there is none.
bool TakeLine(absl::string_view* text, absl::string_view* line) {
  const size_t end = text->find(kCrlf);
  if (end == absl::string_view::npos) return false;
  *line = text->substr(0, end);
  text->remove_prefix(end + kCrlf.size());
  return true;
}

// The path of "/path?query" or, as RFC 9112 3.2.2 wants, of "http://host/path?query".
absl::string_view PathOf(absl::string_view target) {
  if (!absl::StartsWith(target, "/")) {
    const size_t scheme = target.find("://");
    if (scheme == absl::string_view::npos) return target;
    const size_t slash = target.find('/', scheme + 3);
    if (slash == absl::string_view::npos) return "/";
    target.remove_prefix(slash);
  }
  return target.substr(0, target.find('?'));
}

const char* Reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 426:
      return "Upgrade Required";
    case 431:
      return "Request Header Fields Too Large";
    case 505:
      return "HTTP Version Not Supported";
  }
  return "Error";
}

// A reply after which the connection closes. `headers` are lines with CRLF.
HttpAnswer Reply(int status, absl::string_view headers, absl::string_view body) {
  HttpAnswer answer;
  answer.status = status;
  answer.reply = absl::StrCat("HTTP/1.1 ", status, " ", Reason(status), kCrlf, headers);
  if (status != 204) {
    absl::StrAppend(&answer.reply,
                    "Content-Type: text/plain; charset=utf-8\r\nContent-Length: ", body.size(),
                    kCrlf);
  }
  const absl::string_view connection = status == 426 ? "Upgrade, close" : "close";
  absl::StrAppend(&answer.reply, "Connection: ", connection, "\r\n\r\n", body);
  return answer;
}

HttpAnswer MethodNotAllowed() { return Reply(405, "Allow: GET, HEAD\r\n", "method not allowed\n"); }

// Tells a captive portal, which answers 204 to everybody, from a relay.
HttpAnswer AnswerGenerate204(const HttpRequest& request) {
  std::string headers = "Cache-Control: no-cache, no-store, must-revalidate, max-age=0\r\n";
  const absl::string_view challenge = request.headers.Get("X-Tailscale-Challenge");
  const bool good = !challenge.empty() && challenge.size() <= kMaxChallenge &&
                    std::all_of(challenge.begin(), challenge.end(), [](char c) {
                      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                             c == '_' || c == ':' || c == '-';
                    });
  if (good) absl::StrAppend(&headers, "X-Tailscale-Response: response ", challenge, kCrlf);
  return Reply(204, headers, "");
}

HttpAnswer AnswerUpgrade(const HttpRequest& request, const PublicKey& server) {
  if (request.method != "GET") return Reply(405, "Allow: GET\r\n", "method not allowed\n");
  const HttpHeaders& headers = request.headers;
  const bool wants_derp =
      headers.HasToken("Upgrade", "DERP") || headers.HasToken("Upgrade", "websocket");
  if (request.minor_version < 1 || !wants_derp || !headers.HasToken("Connection", "Upgrade")) {
    return Reply(426, "Upgrade: DERP\r\n", "DERP requires connection upgrade\n");
  }
  HttpAnswer answer;
  answer.next = HttpAnswer::Next::kDerp;
  answer.status = 101;
  answer.ideal_node = CleanText(headers.Get("Ideal-Node"), 64);
  answer.fast_start = headers.Get("Derp-Fast-Start") == "1";
  if (answer.fast_start) return answer;
  answer.reply = absl::StrCat(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: ",
      kProtocolVersion, "\r\nDerp-Public-Key: ", server.ToHex(), "\r\n\r\n");
  return answer;
}

// Whether bytes of a body follow the head. On a connection that becomes a stream of frames they
// would be taken for frames.
bool HasBody(const HttpHeaders& headers) {
  if (headers.Has("Transfer-Encoding")) return true;
  const absl::string_view length = headers.Get("Content-Length");
  return headers.Count("Content-Length") > 1 || (!length.empty() && length != "0");
}

}  // namespace

HttpHeadReader::Result HttpHeadReader::Read(MutableBytes* input) {
  constexpr absl::string_view kEnd = "\r\n\r\n";
  const size_t old_size = head_.size();
  const size_t take = std::min(input->size(), kMaxHttpHead - old_size);
  head_.append(reinterpret_cast<const char*>(input->data()), take);
  // The end may have begun in the bytes of before.
  const size_t from = old_size < kEnd.size() ? 0 : old_size - (kEnd.size() - 1);
  const size_t end = absl::string_view(head_).find(kEnd, from);
  if (end == absl::string_view::npos) {
    *input = input->subspan(take);
    return head_.size() >= kMaxHttpHead ? Result::kTooLong : Result::kNeedMore;
  }
  *input = input->subspan(end + kEnd.size() - old_size);
  head_.resize(end + kCrlf.size());
  return Result::kDone;
}

absl::StatusOr<HttpHeaders> HttpHeaders::Parse(absl::string_view lines) {
  HttpHeaders headers;
  absl::string_view line;
  while (TakeLine(&lines, &line)) {
    const size_t colon = line.find(':');
    if (colon == absl::string_view::npos) return absl::InvalidArgumentError("header without colon");
    const absl::string_view name = line.substr(0, colon);
    const absl::string_view value = absl::StripAsciiWhitespace(line.substr(colon + 1));
    if (!IsToken(name)) return absl::InvalidArgumentError("bad header name");
    if (!IsFieldValue(value)) return absl::InvalidArgumentError("bad header value");
    if (headers.fields_.size() == kMaxHttpHeaders) {
      return absl::ResourceExhaustedError("too many headers");
    }
    headers.fields_.emplace_back(name, value);
  }
  if (!lines.empty()) return absl::InvalidArgumentError("line without CRLF");
  return headers;
}

absl::string_view HttpHeaders::Get(absl::string_view name) const {
  for (const auto& [key, value] : fields_) {
    if (absl::EqualsIgnoreCase(key, name)) return value;
  }
  return "";
}

bool HttpHeaders::Has(absl::string_view name) const { return Count(name) > 0; }

size_t HttpHeaders::Count(absl::string_view name) const {
  return static_cast<size_t>(std::count_if(fields_.begin(), fields_.end(), [&](const auto& field) {
    return absl::EqualsIgnoreCase(field.first, name);
  }));
}

bool HttpHeaders::HasToken(absl::string_view name, absl::string_view token) const {
  for (const auto& [key, value] : fields_) {
    if (!absl::EqualsIgnoreCase(key, name)) continue;
    for (absl::string_view item : absl::StrSplit(value, ',')) {
      if (absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(item), token)) return true;
    }
  }
  return false;
}

absl::StatusOr<std::string> LatencyRequest(absl::string_view host) {
  if (host.empty() || !IsVisible(host)) {
    return absl::InvalidArgumentError("host: empty, or with characters no host name has");
  }
  return absl::StrCat("GET /derp/latency-check HTTP/1.1\r\nHost: ", host,
                      "\r\nConnection: close\r\n\r\n");
}

absl::StatusOr<std::string> UpgradeRequest(const UpgradeOptions& options) {
  if (options.host.empty() || !IsVisible(options.host)) {
    return absl::InvalidArgumentError("host: empty, or with characters no host name has");
  }
  if (!IsFieldValue(options.user_agent) || !IsFieldValue(options.ideal_node)) {
    return absl::InvalidArgumentError("user agent or node name: with characters no header has");
  }
  std::string request = absl::StrCat("GET /derp HTTP/1.1\r\nHost: ", options.host, kCrlf);
  if (!options.user_agent.empty()) {
    absl::StrAppend(&request, "User-Agent: ", options.user_agent, kCrlf);
  }
  absl::StrAppend(&request, "Connection: Upgrade\r\nUpgrade: DERP\r\n");
  if (options.fast_start) absl::StrAppend(&request, "Derp-Fast-Start: 1\r\n");
  if (!options.ideal_node.empty()) {
    absl::StrAppend(&request, "Ideal-Node: ", options.ideal_node, kCrlf);
  }
  absl::StrAppend(&request, kCrlf);
  return request;
}

absl::StatusOr<bool> UpgradeReplyReader::Read(MutableBytes* input) {
  if (!refused_) {
    switch (reader_.Read(input)) {
      case HttpHeadReader::Result::kNeedMore:
        return false;
      case HttpHeadReader::Result::kTooLong:
        return absl::ResourceExhaustedError("HTTP reply: endless headers");
      case HttpHeadReader::Result::kDone:
        break;
    }
    if (auto status = ParseHead(); !status.ok()) return status;
    reader_.Clear();
    if (!refused_) return true;
  }
  const size_t take = std::min(input->size(), body_left_);
  body_.append(reinterpret_cast<const char*>(input->data()), take);
  *input = input->subspan(take);
  body_left_ -= take;
  if (body_left_ == 0) return Refused();
  return false;
}

absl::Status UpgradeReplyReader::ParseHead() {
  absl::string_view rest = reader_.head();
  absl::string_view line;
  int status = 0;
  // "HTTP/1.1 101 Switching Protocols"; the reason may be empty (RFC 9112, 4).
  if (!TakeLine(&rest, &line) || !absl::StartsWith(line, "HTTP/1.") || line.size() < 12 ||
      line[8] != ' ' || (line.size() > 12 && line[12] != ' ') ||
      !std::all_of(line.begin() + 9, line.begin() + 12, absl::ascii_isdigit) ||
      !absl::SimpleAtoi(line.substr(9, 3), &status)) {
    return absl::InvalidArgumentError("HTTP reply: no status line");
  }
  auto headers = HttpHeaders::Parse(rest);
  if (!headers.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("HTTP reply: ", headers.status().message()));
  }
  if (status == 101) {
    if (headers->HasToken("Upgrade", "DERP")) return absl::OkStatus();
    return absl::InvalidArgumentError("HTTP reply: 101, but not to DERP");
  }
  refused_ = true;
  status_line_ = CleanText(line.substr(9), 80);
  uint64_t length = kMaxHttpReason;  // without Content-Length: until the stream ends
  const absl::string_view promised = headers->Get("Content-Length");
  if (!promised.empty() && !absl::SimpleAtoi(promised, &length)) length = 0;
  body_left_ = static_cast<size_t>(std::min<uint64_t>(length, kMaxHttpReason));
  return absl::OkStatus();
}

absl::Status UpgradeReplyReader::Refused() const {
  const std::string reason = CleanText(absl::StripAsciiWhitespace(body_), kMaxHttpReason);
  return absl::UnavailableError(
      absl::StrCat("relay answered ", status_line_, reason.empty() ? "" : ": ", reason));
}

absl::Status UpgradeReplyReader::OnEnd() const {
  if (refused_) return Refused();
  return absl::UnavailableError("connection closed before the HTTP reply");
}

absl::StatusOr<HttpRequest> ParseHttpRequest(absl::string_view head) {
  HttpRequest request;
  absl::string_view line;
  if (!TakeLine(&head, &line)) return absl::InvalidArgumentError("no request line");
  const std::vector<absl::string_view> parts = absl::StrSplit(line, ' ');
  if (parts.size() != 3 || !IsToken(parts[0]) || parts[1].empty() || !IsVisible(parts[1])) {
    return absl::InvalidArgumentError("bad request line");
  }
  if (parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0") {
    if (!absl::StartsWith(parts[2], "HTTP/")) return absl::InvalidArgumentError("bad request line");
    return absl::UnimplementedError("HTTP/1.0 and HTTP/1.1 only");
  }
  request.method = parts[0];
  request.path = PathOf(parts[1]);
  request.minor_version = parts[2].back() - '0';
  auto headers = HttpHeaders::Parse(head);
  if (!headers.ok()) return headers.status();
  request.headers = std::move(*headers);
  const size_t hosts = request.headers.Count("Host");
  if (hosts > 1 || (hosts == 0 && request.minor_version >= 1)) {
    return absl::InvalidArgumentError("needs one Host header");
  }
  if (HasBody(request.headers)) return absl::InvalidArgumentError("takes no body");
  return request;
}

HttpAnswer AnswerHttp(absl::string_view head, const PublicKey& server) {
  const auto request = ParseHttpRequest(head);
  if (!request.ok()) {
    const std::string body = absl::StrCat(request.status().message(), "\n");
    if (absl::IsUnimplemented(request.status())) return Reply(505, "", body);
    if (absl::IsResourceExhausted(request.status())) return Reply(431, "", body);
    return Reply(400, "", body);
  }
  if (request->path == "/derp") return AnswerUpgrade(*request, server);
  const bool is_head = request->method == "HEAD";
  const bool is_get = request->method == "GET";
  if (request->path == "/derp/latency-check" || request->path == "/derp/probe") {
    if (!is_get && !is_head) return MethodNotAllowed();
    return Reply(200, "Access-Control-Allow-Origin: *\r\n", "");
  }
  if (request->path == "/generate_204") {
    return is_get || is_head ? AnswerGenerate204(*request) : MethodNotAllowed();
  }
  HttpAnswer answer = Reply(404, "", "not found\n");
  // The answer to HEAD has the headers of GET's and no body.
  if (is_head) answer.reply.resize(answer.reply.find("\r\n\r\n") + 4);
  return answer;
}

HttpAnswer AnswerHeadTooLong() { return Reply(431, "", "endless headers\n"); }

}  // namespace ringsock::derp
