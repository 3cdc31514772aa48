"""Real WireGuard tunnels over ringsock-gateway, through a router between the hosts."""

import json
import re
import sys
import threading
import time

import lab
from gateways import Gateway, endpoints_of
from lab import wait_for

def pings(host, other, **kwargs):
    """Returns (sent, received)."""
    sent, received = host.ping(other, **kwargs)
    if received < sent:
        # Now and then the first handshakes of both sides cross, and wireguard-go drops a packet of
        # a session that the other one has pushed out. There is none to cross the next time.
        sent, received = host.ping(other, **kwargs)
    return sent, received


class TwoHosts(lab.LabTest):
    """wireguard-go and a gateway on two hosts, each the other's peer."""

    hosts = 2

    def connect(self, family=4, a_knows_b=True, b_knows_a=True, a_seen_at=None, **extra):
        a, b = self.lab.hosts
        for host, other in ((a, b), (b, a)):
            host.start_wireguard()
            host.add_peer(other)
        self.gateway_a = Gateway(a, [(b, endpoints_of(b, family) if a_knows_b else [])], **extra)
        a_at = [a_seen_at] if a_seen_at else endpoints_of(a, family)
        self.gateway_b = Gateway(b, [(a, a_at if b_knows_a else [])], **extra)
        return a, b

    def assert_none_lost(self, host, other, **kwargs):
        sent, received = pings(host, other, **kwargs)
        self.assertEqual(sent, received, f"host {host.index} to {other.index}")


class TunnelTest(TwoHosts):
    def test_pings_both_ways_over_ipv4(self):
        a, b = self.connect(family=4)
        self.assert_none_lost(a, b, count=100, interval=0.01)
        self.assert_none_lost(b, a, count=100, interval=0.01)
        self.assert_none_lost(a, b, count=20, interval=0.01, v6=True)

    def test_pings_both_ways_over_ipv6(self):
        a, b = self.connect(family=6)
        self.assert_none_lost(a, b, count=100, interval=0.01)
        self.assert_none_lost(b, a, count=100, interval=0.01)

    def test_recvmmsg_backend(self):
        a, b = self.connect(engine={"backend": "mmsg"})
        self.assert_none_lost(a, b, count=50, interval=0.01)
        self.assertIn("backend recvmmsg/sendmmsg", self.gateway_a.process.log())

    def test_two_shards(self):
        a, b = self.connect(engine={"shards": 2})
        self.assert_none_lost(a, b, count=50, interval=0.01)

    # spec: RECV-4, PATH-3
    def test_one_side_does_not_know_where_the_other_is(self):
        a, b = self.connect(b_knows_a=False)
        self.assert_none_lost(a, b, count=50, interval=0.01)
        # B has learned the way by now.
        self.assert_none_lost(b, a, count=50, interval=0.01)

    def test_gateways_stop_cleanly(self):
        a, b = self.connect()
        self.assert_none_lost(a, b, count=5)
        self.assertEqual(self.gateway_a.process.stop(), 0)
        self.assertEqual(self.gateway_b.process.stop(), 0)


class ThroughputTest(TwoHosts):
    """iperf3 through the tunnel."""

    def iperf(self, *flags, name="iperf3"):
        a, b = self.lab.hosts
        self.assert_none_lost(a, b, count=5)
        server = b.start(name, "iperf3", "--forceflush", "-s", "-1", "-B", b.tunnel)
        wait_for("iperf3 listens", lambda: "listening" in server.log(), lab=self.lab)
        text = a.run("iperf3", "-c", b.tunnel, "-J", "-t", "3", *flags, timeout=120)
        server.popen.wait(60)  # the next one listens at its port
        return json.loads(text)["end"]

    def test_tcp(self):
        self.connect()
        end = self.iperf()
        self.assertGreater(end["sum_received"]["bytes"], 1_000_000)
        print(f"TCP {end['sum_received']['bits_per_second'] / 1e6:.0f} Mb/s, "
              f"{end['sum_sent']['retransmits']} retransmits", flush=True)

    def test_tcp_the_other_way(self):
        self.connect()
        end = self.iperf("-R")
        self.assertGreater(end["sum_received"]["bytes"], 1_000_000)

    def test_udp(self):
        self.connect()
        # When a program does not run for a tenth of a second, iperf3's own socket overflows at the
        # first of these rates, and after a second WireGuard's device; at the last neither does. Few
        # packets are sent there, so it takes two runs that lose none.
        clean = 0
        for kilobits in (5000, 5000, 2000, 1000, 1000, 300, 300, 300, 300):
            end = self.iperf("-u", "-b", f"{kilobits}K", "-l", "1200", name=f"iperf3-{kilobits}")
            # Fewer were sent when iperf3 did not run at the end of its time.
            enough = end["sum"]["packets"] > kilobits * 3000 / 9600 / 2
            clean = clean + 1 if enough and end["sum"]["lost_packets"] == 0 else 0
            if clean >= (1 if kilobits >= 1000 else 2):
                return
        self.fail(f"lost or too few each time, at last {end['sum']}\n"
                  f"{self.lab.logs()}")


class ThreePeersTest(lab.LabTest):
    hosts = 4

    def test_one_host_with_three_peers(self):
        hub, *others = self.lab.hosts
        for host in self.lab.hosts:
            host.start_wireguard()
        for other in others:
            hub.add_peer(other)
            other.add_peer(hub)
        Gateway(hub, [(other, endpoints_of(other)) for other in others])
        for other in others:
            Gateway(other, [(hub, endpoints_of(hub))])
        # One side begins. With both beginning at once, all pings of one direction were lost once;
        # the likely reason, not proven, is that each side forgets its own handshake over the
        # other's and WireGuard tries again only after 5 s.
        for other in others:
            sent, received = pings(other, hub, count=2)
            self.assertEqual(sent, received, f"host {other.index} begins")
        results = {}

        def ping(host, other):
            results[host.index, other.index] = pings(host, other, count=50, interval=0.02)

        pairs = [(hub, other) for other in others] + [(other, hub) for other in others]
        threads = [threading.Thread(target=ping, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(results), 6)
        for pair, (sent, received) in results.items():
            self.assertEqual(sent, received, f"{pair[0]} to {pair[1]}")


class RoamingTest(TwoHosts):
    """A host's address, or its address and port, change while packets flow."""

    PINGS = 400
    INTERVAL = 0.02
    SLACK_SECONDS = 3  # what a loaded machine may add to an outage

    def replies(self, ping):
        return len(re.findall(r"bytes from", ping.log()))

    def roam_in_mid_stream(self, a, b, change, may_lose):
        """Pings a → b, calls change() in the middle; returns how many pings were lost."""
        ping = a.ping_in_background(b, self.PINGS, self.INTERVAL)
        wait_for("pings flow", lambda: self.replies(ping) >= 50, lab=self.lab)
        start = time.monotonic()
        change()
        may_lose += int((time.monotonic() - start + self.SLACK_SECONDS) / self.INTERVAL)
        ping.popen.wait(120)
        log = ping.log()
        found = re.search(r"(\d+) packets transmitted, (\d+) received", log)
        sent, received = int(found.group(1)), int(found.group(2))
        print(f"{self.id()}: {sent - received} of {sent} pings lost", flush=True)
        self.assertEqual(sent, self.PINGS)
        self.assertLessEqual(sent - received, may_lose, log[-2000:] + self.lab.logs())
        # Both directions are whole again, and nothing was restarted.
        for host, other in ((a, b), (b, a)):
            sent, received = pings(host, other, count=30, interval=0.02)
            self.assertEqual(sent, received)
        self.assertTrue(self.gateway_a.process.running() and self.gateway_b.process.running())

    # spec: PATH-3, RECV-4
    def test_address_changes(self):
        a, b = self.connect()
        self.assert_none_lost(a, b, count=10)
        # Pings in flight while the address is swapped cannot be answered: their way back is gone.
        # A way that is found only by WireGuard's next handshake costs 15 s.
        self.roam_in_mid_stream(a, b, lambda: a.change_address(77), may_lose=25)

    def nat(self, a, address, port):
        """Puts host `a` behind a NAT that shows it as address:port and lets nobody in uncalled."""
        self.lab.nft(f"""
            flush ruleset
            table ip nat {{
              chain post {{
                type nat hook postrouting priority 100
                ip saddr {a.v4} udp sport {a.port} snat to {address}:{port}
              }}
              chain forward {{
                type filter hook forward priority 0
                ip daddr {a.v4} ct state new drop
              }}
            }}
            """)
        self.lab.forget_connections()

    # spec: PATH-3
    def test_address_and_port_change_behind_a_nat(self):
        a, b = self.lab.hosts
        self.lab.ip("addr", "add", "10.77.99.1/32", "dev", "lo")
        self.lab.ip("addr", "add", "10.77.99.2/32", "dev", "lo")
        self.nat(a, "10.77.99.1", 50001)
        a, b = self.connect(a_seen_at="10.77.99.1:50001")
        self.assert_none_lost(a, b, count=10)
        self.roam_in_mid_stream(a, b, lambda: self.nat(a, "10.77.99.2", 50002), may_lose=25)


if __name__ == "__main__":
    lab.main(sys.argv)
