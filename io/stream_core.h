// What the stream loops of all backends share: ids and slots, bounds of queues, the order of
// callbacks, timers, the life of a stream from connecting to the last descriptor. A backend moves
// the bytes: it implements the pure virtual calls and reports through the protected ones.
//
// A turn of the owning loop: the backend delivers what the kernel has (OnReceive and the like),
// then Turn() runs timers, tells what has been put off until callbacks are allowed, and hands
// queues to the kernel. A stream that dies stays in memory until the turn is over.
#ifndef RINGSOCK_IO_STREAM_CORE_H_
#define RINGSOCK_IO_STREAM_CORE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <queue>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "io/send_queue.h"
#include "io/stream.h"

namespace ringsock::io {

// A stream or a listener; backends add what they need.
struct Stream {
  enum class State : uint8_t {
    kListening,
    kConnecting,
    kOpen,
    kLingering,  // closed by its owner, still sending
    kDead,       // waits for the backend to let go
  };

  virtual ~Stream() = default;
  bool live() const { return state != State::kDead; }
  bool stream() const { return state != State::kListening && live(); }

  StreamId id = kNoStream;
  State state = State::kOpen;
  bool receiving = true;    // the owner wants bytes
  bool peer_ended = false;  // the other side's FIN has come
  bool end_told = false;    // and OnEnd been called
  bool finish = false;      // FIN wanted once the queue is empty
  bool finished = false;    // FIN sent
  bool writing = false;     // the backend has a request under way, or waits for room
  bool want_writable = false;
  bool dirty = false;    // in the list of queues to flush
  bool noticed = false;  // in the list of streams to tell something
  int error = 0;         // to tell: it broke
  const char* failed = "";
  StreamHandler* handler = nullptr;
  ListenHandler* listen_handler = nullptr;
  StreamId listener = kNoStream;  // that accepted it
  uint32_t accepted = 0;          // of a listener: streams that are open
  uint32_t max_accepted = 0;
  Instant timer = Instant::max();
  Endpoint local;
  Endpoint remote;
  StreamOptions options;
  StreamStats stats;
  SendQueue queue;
  std::vector<std::byte> stash;  // came before receiving was switched off
};

// Moves the first `most` of `from`, or all, to `to`, which is empty.
inline void MoveFront(std::vector<StreamId>& from, std::vector<StreamId>& to, size_t most) {
  if (from.size() <= most) return to.swap(from);
  const auto end = from.begin() + static_cast<ptrdiff_t>(most);
  to.assign(from.begin(), end);
  from.erase(from.begin(), end);
}

// The status of OnClose: "TCP 192.0.2.1:443: connect: Connection refused: nothing listens there".
absl::Status StreamError(const Endpoint& remote, const char* what, int error);

class StreamCore : public StreamLoop {
 public:
  // A turn hands over the queues of up to `most_writes` streams; the others' turn is the next.
  StreamCore(const Clock* clock, uint32_t max_streams, size_t most_writes = SIZE_MAX);

  absl::StatusOr<StreamId> Connect(const ConnectConfig& config, StreamHandler* handler) final;
  absl::StatusOr<StreamId> Listen(const ListenConfig& config, ListenHandler* handler) final;
  size_t Send(StreamId id, std::span<const std::byte> bytes) final;
  std::span<std::byte> SendSpace(StreamId id, size_t wanted) final;
  void CommitSend(StreamId id, size_t bytes) final;
  size_t SendRoom(StreamId id) const final;
  void NotifyWritable(StreamId id) final;
  uint64_t AckedBytes(StreamId id) const final;
  void SetReceiving(StreamId id, bool on) final;
  void Shutdown(StreamId id) final;
  void Close(StreamId id) final;
  void Abort(StreamId id) final;
  bool IsOpen(StreamId id) const final;
  Endpoint LocalEndpoint(StreamId id) const final;
  Endpoint RemoteEndpoint(StreamId id) const final;
  StreamStats Stats(StreamId id) const final;
  const StreamTotals& totals() const final { return totals_; }

  // For the loop, between two waits. Returns the number of callbacks made.
  size_t Turn();
  // Turn() would do something now.
  bool HasWork() const { return !notices_.empty() || !dirty_.empty() || !freed_.empty(); }
  // When Turn() must be called at the latest.
  Instant NextTimer();

 protected:
  // ---- What a backend does. None may call a handler. ----
  virtual absl::StatusOr<std::unique_ptr<Stream>> OpenConnector(const ConnectConfig& config) = 0;
  virtual absl::StatusOr<std::unique_ptr<Stream>> OpenListener(const ListenConfig& config) = 0;
  virtual void StartConnect(Stream& stream) = 0;  // ends in Connected() or FailLater()
  virtual void StartAccepting(Stream& listener) = 0;
  // Receiving wanted or not; on also at the start, and again after it was off.
  virtual void UpdateReceiving(Stream& stream) = 0;
  // Begins to hand the queue over; called only if !writing and the queue is not empty.
  virtual void Write(Stream& stream) = 0;
  virtual void SendFin(Stream& stream) = 0;
  virtual uint64_t Acked(const Stream& stream) const = 0;
  // Lets go of everything, by a reset or not, and calls Free(), now or later.
  virtual void Release(Stream& stream, bool reset) = 0;
  // Refuses a connection that has not become a stream, with a reset.
  virtual void Refuse(Stream& unborn) = 0;
  // A timer of the backend's own (SetTimer on an open or listening stream).
  virtual void OnTimer(Stream&) {}
  // NextTimer() is not later than this from now on.
  virtual void WakeAt(Instant) {}

  // ---- What a backend reports ----
  // In a turn only: these call handlers.
  void Connected(Stream& stream);
  void Accepted(Stream& listener, std::unique_ptr<Stream> stream);
  void Received(Stream& stream, std::span<std::byte> bytes);
  void PeerEnded(Stream& stream);
  // At any time.
  void Wrote(Stream& stream, size_t bytes);  // taken by the kernel, no request under way now
  void FailLater(Stream& stream, const char* what, int error);
  void Free(Stream& stream) { freed_.push_back(Slot(stream.id)); }
  void MarkDirty(Stream& stream);
  void SetTimer(Stream& stream, Instant when);
  // Lets go of every stream by a reset, without a word to its handler.
  void KillAll();
  // Frees their memory without asking the backend.
  void DropAll() { slots_.clear(); }

  // Also finds dead streams, until they are freed.
  Stream* FindAny(uint32_t slot) const { return slots_[slot].stream.get(); }
  Stream* Find(StreamId id) const;  // null if gone or dead
  static uint32_t Slot(StreamId id) { return static_cast<uint32_t>(id & (kMaxSlots - 1)); }
  static constexpr uint32_t kSlotBits = 24;
  static constexpr uint64_t kMaxSlots = 1 << kSlotBits;

  SendChunkPool pool_;
  StreamTotals totals_;
  const Clock& clock_;

 private:
  struct SlotState {
    std::unique_ptr<Stream> stream;
    uint64_t serial = 1;
  };
  using Timer = std::pair<Instant, StreamId>;

  bool HasSlot() const { return !free_slots_.empty() || slots_.size() < max_streams_; }
  absl::Status NoSlot() const;
  Stream* Insert(std::unique_ptr<Stream> stream);
  static size_t Room(const Stream& stream) {
    const size_t limit = stream.options.send_queue;
    return limit - std::min(limit, stream.queue.size());
  }
  size_t TakeRoom(Stream& stream, size_t size);
  void Notice(Stream& stream);
  size_t Tell(Stream& stream);
  void Break(Stream& stream);
  void Kill(Stream& stream, bool reset);
  void FlushOne(Stream& stream);
  void Collect();
  size_t RunTimers();

  const uint32_t max_streams_;
  const size_t most_writes_;
  std::vector<SlotState> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> freed_;  // by the backend; their memory goes at the next turn
  std::vector<StreamId> dirty_, flushing_;
  std::vector<StreamId> notices_, telling_;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
};

}  // namespace ringsock::io

#endif  // RINGSOCK_IO_STREAM_CORE_H_
