"""The network of a host changes while pings flow: another address, another default route, a link
that is down for 10 s. A control plane carries the endpoints, and a relay is in the middle.

Prints how long nothing came through and how many pings were lost; docs/nat.md has the figures.
"""

import re
import sys
import time

import lab
from gateways import Gateway, Relay
from lab import run, wait_for
from nats import ControlPlane
from relay_test import INTERVAL, PingStream

FAR = "127.3.3.40:1"
DOWN_SECONDS = 10
# From the change until the endpoints are published and have reached the other side: settling, a
# netcheck, the control plane. By itself the gateway looks every 20 to 26 s, so more slack for a
# loaded machine than this would show nothing.
NEWS_SECONDS = 8
SLACK_SECONDS = 10
# On output a drop is an error for the sender: EPERM.
REFUSE_DIRECT = """
table inet refuse {
  chain out {
    type filter hook output priority 0
    meta oifname != "lo" meta l4proto udp drop
  }
}
"""


class ChangeTest(lab.LabTest):
    hosts = 3

    def setUp(self):
        super().setUp()
        self.a, self.b, middle = self.lab.hosts
        self.relay = Relay(middle).start()
        self.plane = ControlPlane()
        self.addCleanup(self.plane.stop)
        gateways = []
        for host, other in ((self.a, self.b), (self.b, self.a)):
            host.start_wireguard()
            host.add_peer(other)
            gateways.append(Gateway(
                host, [(other, [FAR])], derp_map=self.relay.map, private_key_file=host.key_file,
                endpoints_file=ControlPlane.file_of(host),
                engine={"shards": 1, "pin_threads": False, "ipv6": False}))
        self.gateway_a, self.gateway_b = gateways
        self.plane.add(self.gateway_a, self.gateway_b)
        self.plane.add(self.gateway_b, self.gateway_a)
        for gateway, host in ((self.gateway_a, self.a), (self.gateway_b, self.b)):
            self.wait_until_told(gateway, f"{host.v4}:{host.port}")
            gateway.wait_for_relay()
            wait_for("the endpoints of the other side are in force", gateway.reloads, lab=self.lab)
        self.pings = PingStream(self, self.a, self.b)
        self.pings.flowing()
        self.gateway_a.wait_for_path(self.b, "direct")
        self.gateway_b.wait_for_path(self.a, "direct")
        self.pings.flowing(80)  # until no more packets go both ways (spec: SEND-2)

    def endpoints(self, gateway):
        state = self.plane.told(gateway)
        return [one["address"] for one in state["endpoints"]] if state else []

    def wait_until_told(self, gateway, address, seconds=lab.START_SECONDS):
        wait_for(f"{address} is told", lambda: address in self.endpoints(gateway), seconds,
                 self.lab)

    def changed(self, name, change, outage=0.0):
        """Makes the change under pings. Returns how many of them were lost in all."""
        self.pings.phase(name)
        change()
        start = time.monotonic()
        back = self.pings.flowing()
        self.wait_until_told(self.gateway_a, f"{self.a.v4}:{self.a.port}",
                             NEWS_SECONDS + SLACK_SECONDS)
        told = time.monotonic() - start  # a second of pings included
        self.gateway_a.wait_for_relay()
        self.gateway_a.wait_for_path(self.b, "direct")
        self.gateway_b.wait_for_path(self.a, "direct")
        self.pings.phase("after")
        self.pings.flowing(80)
        lost = self.pings.stop()
        print(f"{self.id()}: {name}: pings flow again {back:.1f} s later, {lost[name]} lost, told "
              f"within {told:.1f} s", flush=True)
        self.assertEqual(lost["after"], 0, self.lab.logs())
        # Less than WireGuard's own next handshake, which would mend it after 15 s.
        self.assertLessEqual(lost[name] * INTERVAL, outage + 14)
        self.assertIn("direct", self.gateway_a.path_to(self.b))
        self.assertIn("direct", self.gateway_b.path_to(self.a))

    # spec: PATH-6, EP-1
    def test_another_address(self):
        self.changed("another address", lambda: self.a.change_address(77))

    def second_uplink(self):
        """Gives host A another way to the router, not used yet."""
        host, n = self.a, self.a.index
        run("ip", "link", "add", "eth1", "netns", host.name, "type", "veth", "peer", "name",
            f"also{n}", "netns", self.lab.router)
        host.ip("addr", "add", f"10.79.{n}.2/24", "dev", "eth1")
        host.ip("link", "set", "eth1", "up")
        self.lab.ip("addr", "add", f"10.79.{n}.1/24", "dev", f"also{n}")
        self.lab.ip("link", "set", f"also{n}", "up")

    def test_another_default_route(self):
        self.second_uplink()
        n = self.a.index

        def change():
            self.a.ip("route", "replace", "default", "via", f"10.79.{n}.1", "dev", "eth1")
            self.a.v4 = f"10.79.{n}.2"

        self.changed("another default route", change)

    def test_a_link_that_is_down(self):
        def change():
            self.a.ip("link", "set", self.a.device, "down")
            until = time.monotonic() + DOWN_SECONDS
            wait_for("the link has been down", lambda: time.monotonic() >= until,
                     DOWN_SECONDS + SLACK_SECONDS)
            self.a.ip("link", "set", self.a.device, "up")
            # As who manages the link does.
            self.a.ip("route", "replace", "default", "via", f"10.77.{self.a.index}.1")

        self.changed("link down", change, outage=DOWN_SECONDS)

    # spec: EP-8. A firewall of the host itself refuses what leaves directly, which looks like a
    # dead socket and is replaced once. A new one is no better off, so it stays with that.
    def test_sends_that_the_host_refuses(self):
        self.pings.phase("refused")
        self.a.run("nft", "-f", "-", stdin=REFUSE_DIRECT)
        wait_for("it has a new socket", lambda: self.rebinds(), lab=self.lab)
        self.a.run("nft", "delete", "table", "inet", "refuse")
        back = self.pings.flowing()
        self.pings.phase("after")
        self.pings.flowing(80)
        lost = self.pings.stop()
        print(f"{self.id()}: pings flow again {back:.1f} s after sends pass again, {lost}",
              flush=True)
        self.assertEqual(lost["after"], 0, self.lab.logs())
        self.assertEqual(self.rebinds(), ["Operation not permitted"], self.lab.logs())

    def rebinds(self):
        return re.findall(r"rebind \(sends fail: (.*)\): 0 packets in old sockets lost",
                          self.gateway_a.process.log())



if __name__ == "__main__":
    lab.main(sys.argv)
