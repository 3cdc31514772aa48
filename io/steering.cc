// The rule twice, for us and for the kernel; tests/io/steering_test.cc holds them to each other.
//
// The program sees the UDP payload at offset 0 and the IP header at SKF_NET_OFF (run_bpf_filter in
// the kernel's net/core/sock_reuseport.c). It works on unsigned 32-bit words that it loads in
// network order. A load beyond the end of the packet ends it with 0.
#include "io/steering.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <vector>

namespace ringsock::io {
namespace {

// Multiplicative hashing (Knuth): 2^32 divided by the golden ratio.
constexpr uint32_t kMultiplier = 0x9e3779b1;
constexpr uint32_t kShift = 15;

// First words of messages whose receiver index is at 4 or 8 (WireGuard's paper, section 5.4).
constexpr uint32_t kResponse = 0x02000000;
constexpr uint32_t kCookieReply = 0x03000000;
constexpr uint32_t kData = 0x04000000;

uint32_t Mix(uint32_t hash) {
  hash *= kMultiplier;
  return hash ^ (hash >> kShift);
}

uint32_t LoadNetworkOrder(const void* bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return ntohl(word);
}

uint32_t HashSource(const Endpoint& from) {
  uint32_t hash = Mix(from.port);
  for (size_t i = from.IsV4() ? 12 : 0; i < 16; i += 4) {
    hash = Mix(hash + LoadNetworkOrder(&from.ip.bytes[i]));
  }
  return hash;
}

// A classic BPF program in the making.
class Program {
 public:
  void Add(unsigned code, uint32_t k, uint8_t if_true = 0, uint8_t if_false = 0) {
    code_.push_back({static_cast<uint16_t>(code), if_true, if_false, k});
  }
  // A = Mix(A)
  void AddMix() {
    Add(BPF_ALU | BPF_MUL | BPF_K, kMultiplier);
    Add(BPF_MISC | BPF_TAX, 0);
    Add(BPF_ALU | BPF_RSH | BPF_K, kShift);
    Add(BPF_ALU | BPF_XOR | BPF_X, 0);
  }
  void AddReturn(uint32_t sockets) {
    Add(BPF_ALU | BPF_MOD | BPF_K, sockets);
    Add(BPF_RET | BPF_A, 0);
  }
  const std::vector<sock_filter>& code() const { return code_; }

 private:
  std::vector<sock_filter> code_;
};

constexpr uint32_t NetworkHeader(uint32_t offset) {
  return static_cast<uint32_t>(SKF_NET_OFF) + offset;
}

// The port is the first half word behind the IP header: IPv4's has a length in it, IPv6's is 40
// bytes. Behind an extension header of IPv6 we read that one's first half word, which is the same
// for all packets of a peer too.
void AddSourceRule(Program& program, bool v4, uint32_t sockets) {
  if (v4) {
    program.Add(BPF_LDX | BPF_B | BPF_MSH, NetworkHeader(0));
    program.Add(BPF_LD | BPF_H | BPF_IND, NetworkHeader(0));
  } else {
    program.Add(BPF_LD | BPF_H | BPF_ABS, NetworkHeader(40));
  }
  program.AddMix();
  const uint32_t address = v4 ? 12 : 8;
  for (uint32_t i = 0; i < (v4 ? 4u : 16u); i += 4) {
    program.Add(BPF_MISC | BPF_TAX, 0);
    program.Add(BPF_LD | BPF_W | BPF_ABS, NetworkHeader(address + i));
    program.Add(BPF_ALU | BPF_ADD | BPF_X, 0);
    program.AddMix();
  }
  program.AddReturn(sockets);
}

// The index is little-endian. X says where it is.
void AddIndexRule(Program& program, uint32_t sockets) {
  constexpr uint32_t kWord = 0, kSwapped = 1;  // of the program's memory
  program.Add(BPF_LD | BPF_W | BPF_IND, 0);
  program.Add(BPF_ST, kWord);
  const struct {
    uint32_t left, mask, right;
  } bytes[] = {{24, 0xffffffff, 0}, {8, 0x00ff0000, 0}, {0, 0x0000ff00, 8}, {0, 0x000000ff, 24}};
  program.Add(BPF_LD | BPF_IMM, 0);
  program.Add(BPF_ST, kSwapped);
  for (const auto& byte : bytes) {
    program.Add(BPF_LD | BPF_MEM, kWord);
    if (byte.left != 0) program.Add(BPF_ALU | BPF_LSH | BPF_K, byte.left);
    if (byte.right != 0) program.Add(BPF_ALU | BPF_RSH | BPF_K, byte.right);
    program.Add(BPF_ALU | BPF_AND | BPF_K, byte.mask);
    program.Add(BPF_LDX | BPF_MEM, kSwapped);
    program.Add(BPF_ALU | BPF_OR | BPF_X, 0);
    program.Add(BPF_ST, kSwapped);
  }
  program.AddReturn(sockets);
}

void AddReceiverIndexRule(Program& program, bool v4, uint32_t sockets) {
  Program index;
  AddIndexRule(index, sockets);
  const auto index_lines = static_cast<uint32_t>(index.code().size());
  // Jumps count from the line behind their own.
  program.Add(BPF_LD | BPF_W | BPF_ABS, 0);                    // 0
  program.Add(BPF_JMP | BPF_JEQ | BPF_K, kData, 3, 0);         // 1: to 5
  program.Add(BPF_JMP | BPF_JEQ | BPF_K, kCookieReply, 2, 0);  // 2: to 5
  program.Add(BPF_JMP | BPF_JEQ | BPF_K, kResponse, 3, 0);     // 3: to 7
  program.Add(BPF_JMP | BPF_JA, 3 + index_lines);              // 4: to the rule by source
  program.Add(BPF_LDX | BPF_IMM, 4);                           // 5
  program.Add(BPF_JMP | BPF_JA, 1);                            // 6: to 8
  program.Add(BPF_LDX | BPF_IMM, 8);                           // 7
  for (const sock_filter& line : index.code()) program.Add(line.code, line.k);
  AddSourceRule(program, v4, sockets);
}

}  // namespace

const char* SteeringName(Steering steering) {
  switch (steering) {
    case Steering::kSource:
      return "source";
    case Steering::kReceiverIndex:
      return "receiver_index";
    default:
      return "none";
  }
}

uint32_t SteeredSocket(Steering steering, const Endpoint& from, std::span<const std::byte> datagram,
                       uint32_t sockets) {
  if (steering == Steering::kNone) return 0;
  if (steering == Steering::kSource) return HashSource(from) % sockets;
  if (datagram.size() < 4) return 0;
  const uint32_t type = LoadNetworkOrder(datagram.data());
  if (type != kData && type != kCookieReply && type != kResponse) return HashSource(from) % sockets;
  const size_t at = type == kResponse ? 8 : 4;
  if (datagram.size() < at + 4) return 0;
  return __builtin_bswap32(LoadNetworkOrder(&datagram[at])) % sockets;
}

bool AttachSteering(int fd, bool v4, Steering steering, uint32_t sockets) {
  Program program;
  if (steering == Steering::kSource) {
    AddSourceRule(program, v4, sockets);
  } else {
    AddReceiverIndexRule(program, v4, sockets);
  }
  // The kernel copies it.
  const sock_fprog request{static_cast<unsigned short>(program.code().size()),
                           const_cast<sock_filter*>(program.code().data())};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &request, sizeof request) == 0;
}

}  // namespace ringsock::io
