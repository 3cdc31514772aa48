#include "stun/server.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace ringsock::stun {

uint64_t ServerStats::refused_total() const {
  return std::accumulate(refused.begin(), refused.end(), uint64_t{0});
}

Server::Server(io::Loop* loop, Dialect dialect)
    : loop_(loop), dialect_(dialect), memory_(std::make_unique<std::byte[]>(kAnswerMemory)) {}

Server::~Server() {
  for (const io::SocketId socket : sockets_) loop_->CloseUdp(socket);
}

absl::Status Server::Open(const Endpoint& bind) {
  // Where a host has several addresses, an answer from another one than asked passes no NAT box
  // and no client that looks at the source.
  const auto socket =
      loop_->OpenUdp({.bind = bind, .local_address = bind.ip.IsUnspecified()}, this);
  if (!socket.ok()) return socket.status();
  sockets_.push_back(*socket);
  return absl::OkStatus();
}

std::vector<Endpoint> Server::endpoints() const {
  std::vector<Endpoint> all;
  for (const io::SocketId socket : sockets_) all.push_back(loop_->LocalEndpoint(socket));
  return all;
}

void Server::OnReceive(io::SocketId socket, std::span<const io::RxTrain> trains) {
  used_ = 0;  // the loop has flushed since the last call
  for (const io::RxTrain& train : trains) Answer(socket, train);
}

// Answers to one train have one address and one size: they leave as one train.
void Server::Answer(io::SocketId socket, const io::RxTrain& train) {
  stats_.requests += train.packets();
  if (train.from.port == 0) {
    stats_.unanswerable += train.packets();
    return;
  }
  const size_t answer_size = train.from.IsV4() ? kResponseSizeV4 : kResponseSizeV6;
  const size_t first = used_;
  uint32_t answers = 0;
  for (uint32_t i = 0; i < train.packets(); ++i) {
    const size_t offset = size_t{i} * train.segment_size;
    const size_t size = std::min<size_t>(train.segment_size, train.size - offset);
    TransactionId id;
    const ParseResult result = ParseBindingRequest({train.data + offset, size}, dialect_, &id);
    if (result != ParseResult::kOk) {
      ++stats_.refused[static_cast<size_t>(result)];
      continue;
    }
    if (kAnswerMemory - used_ < answer_size) {
      ++stats_.overflow;
      continue;
    }
    std::array<std::byte, kResponseSizeV6> answer;
    EncodeBindingResponse(id, train.from, answer);
    std::memcpy(memory_.get() + used_, answer.data(), answer_size);
    used_ += answer_size;
    ++answers;
  }
  if (answers == 0) return;
  stats_.answered += answers;
  loop_->Send(socket, {.data = memory_.get() + first,
                       .size = static_cast<uint32_t>(used_ - first),
                       .segment_size = static_cast<uint32_t>(answer_size),
                       .to = train.from,
                       .from = train.to});
}

void Server::OnSendFailure(io::SocketId, const io::SendFailure& failure) {
  stats_.send_failed += failure.packets;
}

}  // namespace ringsock::stun
