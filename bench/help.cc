// The text of `ringsock-bench help`.
#include "bench/options.h"

namespace ringsock::bench {
namespace {

constexpr char kCommandsAndFlags[] =
    R"(ringsock-bench: how many packets a core moves, beside loops written by hand

usage: ringsock-bench COMMAND [FLAGS]

commands
  quick     forwarding on loopback in less than a minute, the table of ./run
  forward   what peer i sends goes to peer i^1
  echo      ... goes back to peer i
  receive   ... is counted and dropped
  send      trains leave for the peers in turn; for every 8 (short ones: 32) comes a small request,
            which keeps the pace
  latency   echo of single packets at a fixed rate, for the percentiles
  report    many of these along several axes, as a page with charts; `report --help`

load
  --size BYTES       of a datagram, 32 to 65507 (1400)
  --train N          datagrams that leave back to back in one UDP_SEGMENT send, 1 to 64 (46)
  --peers N          source addresses (64), over 8 ports per load thread; they send in turn
  --interleave N     trains that a peer sends in its turn, one by one with those of three others (1)
  --mix              trains of 1 to --train datagrams, of 64 to --size bytes each, all mixed
  --relayed PERCENT  of the peers: what they send goes on over a relay, by TLS (0). The relay and
                     the engine behind it run on the load's cores; loopback only
  --rate PPS         open loop: packets a second over all peers, such as 250k. Latency counts from
                     when a packet was due, so a stall shows in all packets it delayed. 0, and the
                     default but for latency: flat out
  --window TRAINS    flat out: trains under way at a time per load thread (what the buffers take)
  --flood            flat out without a window: what overload does
  --check N          read every N-th received train whole (8); of the others the first packet and
                     the length, which shows each loss and duplicate but no change of order inside
                     a train

measurement
  --subjects LIST    recvfrom, recvmmsg[:BATCH], recvmmsg+gro[:BATCH], uring, ringsock,
                     ringsock-mmsg; all. Without a batch, recvmmsg+gro runs with 4, 6 and 8 and
                     its best is shown. ringsock:KEY=VALUE/KEY=VALUE is the engine with other
                     options than --engine-options, as one more subject
  --rounds N         rounds; in each, every subject runs once, beginning with another one (5)
  --seconds S        of one measurement (1), after --warmup S (0.2)
  --idle-peers N     that ringsock subjects know besides, and that never send (10000)
  --shards N         cores of the measured side (1)
  --load-threads N   cores of the load (those left, at most 4)
  --subject-buffer B bytes of each socket buffer of the measured side (7340032)
  --engine-options   of the ringsock subjects: gso=0|1,gro=0|1,zero_copy=0|1,rx_buffers=N,
                     rx_batch=N,tx_queue=N,tx_slabs=N,spin_us=N. With spin_us the loops written by
                     hand do not sleep either
  --json FILE|-      everything measured, each round
)";

constexpr char kTopologiesAndFigures[] = R"(
where the packets go (--topology)
  loopback   127.0.0.0/8 of this host; needs no rights. Trains stay whole
  veth       a veth pair between two namespaces of the tool's own; root. Trains stay whole, as
             between containers and virtual machines
  niclike    the same, made to behave like a network card: segmentation offload is off (ethtool -K
             DEV gso off tso off tx-udp-segmentation off), so the kernel splits a train into packets
             when it is sent; GRO and threaded NAPI are on at the other end (ethtool -K DEV gro on;
             /sys/class/net/DEV/threaded), so the receiving core merges them again. A pfifo in front
             holds packets back while a device's ring is full; the kernel then reorders a few in a
             million. Root. With --gro-flush-us N the receiver waits so long for more to merge
             (/sys/class/net/DEV/gro_flush_timeout, and napi_defer_hard_irqs 1)
             Namespaces and devices go with the process, however it ends

figures
  ns/packet  CPU time of the measured side per packet that reached its receiver: all threads of the
             subject's process and the kernel threads bound to its cores (ksoftirqd, NAPI). Network
             work in the kernel runs in the context of whoever sends, and counts there; a kernel
             that accounts interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING) has them added from
             /proc/stat. "busy" is the same CPU time over wall time; 100% is a saturated core,
             less means that the load was the limit
  x best     CPU per packet of the best loop written by hand over this subject's, by round: median
             and range; over 1 is better
  p50us ...  microseconds from when a packet was due until it was back, over all packets; only with
             --rate or --window 1, since flat out it is the length of the queues that the window
             fills. One packet in flight: echo --size 128 --train 1 --peers 1 --window 1
  lost       packets that left the load and never came back, by reason below the table
)";

}  // namespace

std::string HelpText() { return std::string(kCommandsAndFlags) + kTopologiesAndFigures; }

}  // namespace ringsock::bench
