"""Real WireGuard over ringsock-gateway and ringsock-relay: direct paths that are cut and come back
while packets flow, a relay that restarts, a relay that is not the one it says.

Every test prints how many pings were lost in each phase, and why that many may be.
"""

import json
import os
import re
import sys
import time

import lab
from gateways import Gateway, Relay, endpoints_of
from lab import wait_for

INTERVAL = 0.05  # between two pings

# WireGuard begins a new handshake when nothing has come for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
# (10 s + 5 s) after it has sent something, and up to 1/3 s later by its jitter; a handshake that is
# lost is repeated after REKEY_TIMEOUT. Only handshakes try all paths, so a direct path that is cut
# is left after that time and no sooner.
REHANDSHAKE_SECONDS = 15 + 0.34 + 5
# The gateway gives up a roaming address that died after 4 s of hearing the peer over the relay
# only, and looks every second.
ROAM_SECONDS = 4 + 1
SPRAYED_PINGS = int(4 / INTERVAL)
# What a loaded machine may add to each.
SLACK_SECONDS = 15


class PingStream:
    """Pings in the background, counted by phase."""

    def __init__(self, test, host, other):
        self.test = test
        self.process = host.ping_in_background(other, 1_000_000, INTERVAL)
        self.phases = []  # (name, first, last)
        self._name, self._first, self._since = "start", 1, time.time()

    def _replies(self):
        """When each sequence number was answered."""
        return {int(seq): float(at) for at, seq in re.findall(
            r"^\[([\d.]+)\] \d+ bytes from .* icmp_seq=(\d+)", self.process.log(), re.MULTILINE)}

    def last(self):
        """The last ping sent that the log knows of."""
        return max((int(n) for n in re.findall(r"icmp_seq=(\d+)", self.process.log())), default=0)

    def flowing(self, count=20):
        """Waits until `count` pings in a row have been answered, sent from now on. Returns the
        seconds from now to the first answer of those."""
        start, now = self.last(), time.time()

        def run():
            replies = self._replies()
            newest = self.last()
            first = next((n for n in range(start + 1, newest + 1)
                          if all(k in replies for k in range(n, n + count))), None)
            return first and max(replies[first] - now, 1e-3)

        return wait_for(f"{count} pings in a row are answered", run, 120, self.test.lab)

    def phase(self, name):
        """What follows belongs to this phase."""
        last = self.last()
        self.phases.append((self._name, self._first, last))
        self._name, self._first = name, last + 1

    def stop(self):
        """Returns {phase: pings lost}, and prints it."""
        self.phase("end")
        # What was sent last may still be on its way: it is answered, or not, within the patience.
        newest = self.phases[-1][2]
        wait_for("the last pings are answered", lambda: newest in self._replies(),
                 lab=self.test.lab)
        self.process.stop(2)
        replies = self._replies()
        lost = {name: sum(n not in replies for n in range(first, last + 1))
                for name, first, last in self.phases}
        text = ", ".join(f"{name} {lost[name]} of {last - first + 1}"
                         for name, first, last in self.phases)
        print(f"{self.test.id()}: pings lost: {text}", flush=True)
        return lost


class RelayLab(lab.LabTest):
    """Two hosts with wireguard-go and a gateway, and a third with a relay."""

    hosts = 3

    def setUp(self):
        super().setUp()
        self.a, self.b, relay_host = self.lab.hosts
        self.relay = Relay(relay_host).start()

    def block(self, udp):
        """Drops UDP between the two hosts in the router, or no longer."""
        a, b = self.a.v4, self.b.v4
        rules = f"""
              ip saddr {a} ip daddr {b} meta l4proto udp counter drop
              ip saddr {b} ip daddr {a} meta l4proto udp counter drop""" if udp else ""
        self.lab.nft(f"""
            flush ruleset
            table ip lab {{
              chain forward {{
                type filter hook forward priority 0{rules}
              }}
            }}
            """)

    def connect(self, a_knows_b=True, b_knows_a=True, relay_map=None, wait=True):
        for host, other in ((self.a, self.b), (self.b, self.a)):
            host.start_wireguard()
            host.add_peer(other)
        relay = f"127.3.3.40:{Relay.REGION}"

        def gateway(host, other, known):
            return Gateway(host, [(other, [relay] + (endpoints_of(other) if known else []))],
                           derp_map=relay_map or self.relay.map, private_key_file=host.key_file)

        self.gateway_a = gateway(self.a, self.b, a_knows_b)
        self.gateway_b = gateway(self.b, self.a, b_knows_a)
        if wait:
            self.gateway_a.wait_for_relay()
            self.gateway_b.wait_for_relay()

    def wait_for_paths(self, text):
        self.gateway_a.wait_for_path(self.b, text)
        self.gateway_b.wait_for_path(self.a, text)

    def assert_lost_at_most(self, lost, phase, seconds):
        self.assertLessEqual(lost[phase] * INTERVAL, seconds, f"{phase}\n{self.lab.logs()}")

    def cut(self, pings, name, seconds):
        """Blocks UDP under traffic, and waits until pings flow over the relay."""
        pings.phase(name)
        self.block(True)
        took = pings.flowing()
        print(f"{self.id()}: {name}: back after {took:.1f} s", flush=True)
        self.assertLessEqual(took, seconds, self.lab.logs())
        self.wait_for_paths("relay of region 1 (lab)")

    def open(self, pings, name):
        """Lets UDP through, and waits until the next handshake has found the direct path."""
        pings.phase(name)
        self.block(False)
        start = time.monotonic()
        self.a.new_handshake()
        self.wait_for_paths("direct ")
        print(f"{self.id()}: {name}: direct {time.monotonic() - start:.1f} s after a handshake",
              flush=True)
        # Until no more packets go both ways, 3 s after a handshake (spec: SEND-2).
        pings.flowing(SPRAYED_PINGS)


class PathTest(RelayLab):
    # spec: SEND-2, SEND-3, PATH-1, PATH-5, RECV-3
    def test_blocked_open_blocked_open(self):
        self.block(True)
        self.connect()
        pings = PingStream(self, self.a, self.b)
        pings.flowing()
        self.wait_for_paths("relay of region 1 (lab)")
        self.open(pings, "open")
        self.cut(pings, "cut", REHANDSHAKE_SECONDS + SLACK_SECONDS)
        pings.phase("relayed again")
        pings.flowing(40)
        self.open(pings, "open again")
        lost = pings.stop()
        # WireGuard keeps what it is given until the first handshake is done, and a path that is
        # added takes nothing away.
        for phase in ("start", "open", "relayed again", "open again"):
            self.assertEqual(lost[phase], 0, f"{phase}\n{self.lab.logs()}")
        self.assert_lost_at_most(lost, "cut", REHANDSHAKE_SECONDS + SLACK_SECONDS)

    # One side has learnt the other's address from its packets, so to that side it is a roaming one,
    # which no rule takes away again (spec: SEND-4, PATH-1).
    def test_cut_of_an_address_that_was_learnt(self):
        self.block(True)
        self.connect(b_knows_a=False)
        pings = PingStream(self, self.a, self.b)
        pings.flowing()
        self.open(pings, "open")
        self.assertIn("roaming", self.gateway_b.path_to(self.a))
        self.cut(pings, "cut", REHANDSHAKE_SECONDS + ROAM_SECONDS + SLACK_SECONDS)
        pings.phase("relayed again")
        pings.flowing(40)
        self.open(pings, "open again")
        lost = pings.stop()
        for phase in ("start", "open", "relayed again", "open again"):
            self.assertEqual(lost[phase], 0, f"{phase}\n{self.lab.logs()}")
        self.assert_lost_at_most(lost, "cut", REHANDSHAKE_SECONDS + ROAM_SECONDS + SLACK_SECONDS)


class RelayRestartTest(RelayLab):
    # The relay says when to come back, within 2 s; packets wait for up to 3 s meanwhile, and those
    # that the relay still held are lost.
    def test_under_relayed_traffic(self):
        self.block(True)
        self.connect()
        pings = PingStream(self, self.a, self.b)
        pings.flowing()
        pings.phase("restart")
        start = time.monotonic()
        self.relay.stop()
        self.relay.start()
        down = time.monotonic() - start
        took = pings.flowing()
        pings.phase("after")
        pings.flowing(40)
        lost = pings.stop()
        print(f"{self.id()}: relay away for {down:.1f} s, pings back {took:.1f} s later",
              flush=True)
        self.assertEqual(lost["after"], 0, self.lab.logs())
        # Tries come at most 5 s apart.
        self.assert_lost_at_most(lost, "restart", down + 5 + SLACK_SECONDS)

    def test_under_direct_traffic(self):
        self.connect()
        pings = PingStream(self, self.a, self.b)
        pings.flowing()
        self.wait_for_paths("direct ")
        pings.phase("restart")
        self.relay.stop()
        pings.flowing()
        self.relay.start()
        self.gateway_a.wait_for_relay()
        self.gateway_b.wait_for_relay()
        pings.flowing()
        self.assertEqual(sum(pings.stop().values()), 0, self.lab.logs())


class WrongCertificateTest(RelayLab):
    def test_is_said_and_leaves_the_direct_path_alone(self):
        wrong = json.loads(json.dumps(self.relay.map))
        wrong["Regions"]["1"]["Nodes"][0]["CertName"] = "sha256-raw:" + "00" * 32
        self.connect(relay_map=wrong, wait=False)
        pings = PingStream(self, self.a, self.b)
        pings.flowing()
        self.wait_for_paths("direct ")
        wait_for("the status says what is wrong",
                 lambda: re.search(r": down .*certificate", self.gateway_a.relay_line()),
                 lab=self.lab)
        print(f"{self.id()}: {self.gateway_a.relay_line()}", flush=True)
        log = self.gateway_a.process.log()
        said = [line for line in log.splitlines() if "certificate" in line and "status" not in line]
        self.assertTrue(said, log)
        pings.flowing(40)
        self.assertEqual(sum(pings.stop().values()), 0, self.lab.logs())


class CatTest(RelayLab):
    def events(self, cat, kind):
        events = [json.loads(line) for line in cat.log().splitlines() if line.startswith("{")]
        return [event for event in events if event["event"] == kind]

    def start_cat(self, host, other, *more):
        path = os.path.join(self.lab.folder, "relays.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.relay.map, file)
        cat = host.start("cat", lab.binary("cat"), "--json", "--derp-map", path,
                         "--private-key-file", host.key_file, *more,
                         f"{other.public}@127.3.3.40:{Relay.REGION}")
        wait_for("the cat is connected to the relay",
                 lambda: any(event["up"] for event in self.events(cat, "relay")), lab=self.lab)
        return cat

    # spec: RECV-3
    def test_two_cats_over_nothing_but_the_relay(self):
        self.block(True)
        echo = self.start_cat(self.b, self.a, "--echo")
        count = 50
        cat = self.start_cat(self.a, self.b, "--size", "100", "--count", str(count),
                             "--interval", "10ms", "--receive", str(count), "--timeout", "100s")
        cat.popen.wait(120)
        self.assertEqual(cat.popen.returncode, 0, self.lab.logs())
        packets = self.events(cat, "packet")
        self.assertEqual(len(packets), count)
        for packet in packets:
            self.assertEqual((packet["path"], packet["from"], packet["peer"]),
                             ("relay", "127.3.3.40:1", self.b.public))
        self.assertEqual({packet["path"] for packet in self.events(echo, "packet")}, {"relay"})
        relays = self.events(cat, "status")[0]["relays"]
        self.assertEqual([relay["region"] for relay in relays], [1])


if __name__ == "__main__":
    lab.main(sys.argv)
