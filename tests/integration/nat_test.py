"""Every kind of NAT against every other: which path two gateways find, in what time, and what is
lost, with a relay and its STUN server in the middle and wireguard-go at both ends. Endpoints are
carried by a control plane that reads endpoints_file and writes configurations; gateways reload.

Prints the table of docs/nat.md.
"""

import itertools
import re
import signal
import sys
import threading
import time

import lab
from gateways import Gateway, Relay
from lab import wait_for
from nats import KINDS, MAPPING_SECONDS, NAMES, ControlPlane, NatHost
from relay_test import PingStream

INTERVAL = 0.05  # between two pings
AT_ONCE = 5      # cells at one time
FAR = "127.3.3.40:1"
# What a handshake takes whose first message was lost (WireGuard's REKEY_TIMEOUT), and a netcheck
# that hears nothing.
HANDSHAKE_SECONDS, NETCHECK_SECONDS, SLACK_SECONDS = 5, 5, 20
# Pings from the first answer until the path is looked at for the last time: more than the 3 s after
# a handshake in which packets go over all paths (spec: SEND-2), so what is seen then stays.
PINGS = 120


def expected(a, b):
    """"direct" or "relay", by what each NAT lets in."""
    pair = {a, b}
    if "blocked" in pair:
        return "relay"
    # The symmetric one shows the other side another port than it has told, so the other must let
    # packets in from a port it has sent nothing to.
    if "symmetric" in pair and not pair & {"none", "cone"}:
        return "relay"
    return "direct"


class Cell:
    """Two hosts, each behind a NAT, with their gateways."""

    def __init__(self, nat_lab, kinds):
        self.kinds = kinds
        self.lab = nat_lab.lab
        self.hosts = [self.lab.add_host(lab.Host) if kind == "none"
                      else self.lab.add_host(NatHost, kind) for kind in kinds]
        self.relay_map = nat_lab.relay.map
        self.plane = nat_lab.plane
        self.gateways = []
        self.path = self.seconds = None
        self.lost = self.sent = 0
        self.ping = None

    def start(self, carried=True):
        for host, other in zip(self.hosts, reversed(self.hosts)):
            host.start_wireguard()
            host.add_peer(other)
            self.gateways.append(Gateway(
                host, [(other, [FAR])], derp_map=self.relay_map, private_key_file=host.key_file,
                endpoints_file=ControlPlane.file_of(host),
                engine={"shards": 1, "pin_threads": False, "ipv6": False,
                        "socket_buffer": 1 << 18}))
        if carried:
            self.carry()

    def carry(self):
        """The control plane begins its work."""
        for gateway, other in zip(self.gateways, reversed(self.gateways)):
            self.plane.add(gateway, other)

    def wait_until_told(self):
        """Until each gateway has what the other's netcheck has found."""
        for gateway, other, kind in zip(self.gateways, reversed(self.gateways), self.kinds):
            def told(gateway=gateway, other=other, kind=kind):
                state = self.plane.told(gateway)
                return (state and state["net"] and
                        (state["net"]["udp"] or kind == "blocked") and
                        other.config["peers"][0]["endpoints"][1:] and other.reloads() > 0)
            wait_for(f"what host {gateway.host.index} is told of the other's {kind}", told,
                     NETCHECK_SECONDS + lab.START_SECONDS, self.lab)
        for gateway in self.gateways:
            gateway.wait_for_relay()

    def answered(self):
        """When each ping was answered, by its number."""
        return {int(seq): float(at) for at, seq in re.findall(
            r"^\[([\d.]+)\] \d+ bytes from .* icmp_seq=(\d+)", self.ping.log(), re.MULTILINE)}

    def measure(self):
        """Pings from the first host to the second, which has them shake hands."""
        began = time.time()
        self.ping = self.hosts[0].ping_in_background(self.hosts[1], 1_000_000, INTERVAL)
        want = expected(*self.kinds)
        wait_for(f"a ping over {self.kinds} is answered", self.answered,
                 HANDSHAKE_SECONDS * 3 + SLACK_SECONDS, self.lab)
        if want == "direct":
            self.gateways[0].wait_for_path(self.hosts[1], "direct")
            self.seconds = time.time() - began
            self.gateways[1].wait_for_path(self.hosts[0], "direct")
        else:
            self.seconds = min(self.answered().values()) - began
        last = min(self.answered()) + PINGS
        wait_for("the last ping is answered", lambda: max(self.answered()) >= last, lab=self.lab)
        paths = [gateway.path_to(other) for gateway, other in
                 zip(self.gateways, reversed(self.hosts))]
        self.path = "/".join(sorted({path.split()[0] for path in paths}))
        self.ping.stop(signal.SIGINT)
        answered = self.answered()
        self.sent = max(answered)
        self.lost = self.sent - len(answered)

    def stop(self):
        for gateway in self.gateways:
            gateway.process.stop()


class NatLab(lab.LabTest):
    """A relay with STUN in the middle, and cells around it."""

    hosts = 1

    def setUp(self):
        super().setUp()
        self.relay = Relay(self.lab.hosts[0]).start()
        self.plane = ControlPlane()
        self.addCleanup(self.plane.stop)

    def together(self, calls):
        """Runs them all at one time and raises what the first of them raised."""
        problems = []

        def guarded(call):
            try:
                call()
            except BaseException as problem:  # pylint: disable=broad-except
                problems.append(problem)

        threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]


class GridTest(NatLab):
    def test_grid(self):
        pairs = list(itertools.product(KINDS, repeat=2))  # the first side sends the first ping
        cells = []
        start = time.monotonic()
        for first in range(0, len(pairs), AT_ONCE):
            batch = [Cell(self, pair) for pair in pairs[first:first + AT_ONCE]]
            cells += batch
            self.together([cell.start for cell in batch])
            self.together([cell.wait_until_told for cell in batch])
            self.together([cell.measure for cell in batch])
            self.together([cell.stop for cell in batch])
        self.assertIsNone(self.plane.problem)
        print(f"\n{len(cells)} cells in {time.monotonic() - start:.0f} s\n{table(cells)}",
              flush=True)
        for cell in cells:
            with self.subTest(cell=cell.kinds):
                self.assertEqual(cell.path, expected(*cell.kinds), self.lab.logs())
                self.assertLessEqual(cell.seconds, HANDSHAKE_SECONDS + SLACK_SECONDS)
                # What waits for the first handshake is kept by WireGuard; of the rest a packet or
                # two may go to a path that is given up at that moment.
                self.assertLessEqual(cell.lost * INTERVAL, HANDSHAKE_SECONDS + SLACK_SECONDS)


class LateTest(NatLab):
    # spec: PEER-1, SEND-3
    def test_endpoints_come_while_packets_flow_over_the_relay(self):
        """What a control plane brings is tried at once, not with the next handshake."""
        cell = Cell(self, ("restricted", "restricted"))
        cell.start(carried=False)
        for gateway in cell.gateways:
            gateway.wait_for_relay()
        a, b = cell.hosts
        pings = PingStream(self, a, b)
        pings.flowing(80)  # until no more packets go both ways (spec: SEND-2)
        self.assertIn("relay", cell.gateways[0].path_to(b))
        pings.phase("endpoints come")
        start = time.monotonic()
        cell.carry()
        for gateway, other in zip(cell.gateways, reversed(cell.hosts)):
            gateway.wait_for_path(other, "direct")
        print(f"{self.id()}: direct after {time.monotonic() - start:.1f} s", flush=True)
        pings.phase("direct")
        pings.flowing(80)
        self.assertEqual(sum(pings.stop().values()), 0, self.lab.logs())


class IdleTest(NatLab):
    # spec: EP-1
    def test_mappings_outlive_silence(self):
        """A tunnel without keep-alive is silent for more than twice as long as a mapping lives.
        Through a full cone the other side still gets in, as the gateway asks the STUN server
        meanwhile: without that, in the control, the mapping is gone."""
        kept, control = Cell(self, ("none", "cone")), Cell(self, ("none", "cone"))
        self.together([kept.start, control.start])
        self.together([kept.wait_until_told, control.wait_until_told])
        self.together([kept.measure, control.measure])
        # From now on the control's host asks no STUN server.
        control.hosts[1].in_nat("nft", "-f", "-", stdin="""
            table ip no_stun {
              chain out {
                type filter hook forward priority -10
                iifname "in" udp dport 3478 drop
              }
            }""")
        silent_until = time.monotonic() + 2 * MAPPING_SECONDS + 8
        wait_for("the tunnels are silent", lambda: time.monotonic() >= silent_until,
                 2 * MAPPING_SECONDS + 20)
        self.assertTrue(kept.hosts[1].mapped(), "the mapping is gone")
        self.assertFalse(control.hosts[1].mapped(), "the control shows nothing")
        sent, received = kept.hosts[0].ping(kept.hosts[1], count=40)
        path = kept.gateways[0].path_to(kept.hosts[1])
        print(f"{self.id()}: after {2 * MAPPING_SECONDS + 8} s of silence {sent - received} of "
              f"{sent} pings lost, path {path}", flush=True)
        self.assertEqual(sent, received, self.lab.logs())
        self.assertIn("direct", path)


def table(cells):
    """For docs/nat.md: a line a cell."""
    lines = ["| one side | other side | expected | reached | in | pings lost |",
             "|---|---|---|---|---|---|"]
    for cell in cells:
        a, b = cell.kinds
        lines.append(f"| {NAMES[a]} | {NAMES[b]} | {expected(a, b)} | {cell.path} | "
                     f"{cell.seconds:.2f} s | {cell.lost} of {cell.sent} |")
    return "\n".join(lines)


if __name__ == "__main__":
    lab.main(sys.argv)
