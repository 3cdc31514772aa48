"""Hosts behind NATs of several kinds, each a namespace of its own with nftables, and a little
control plane that carries endpoints between gateways."""

import json
import os
import threading

import lab
from lab import run

KINDS = ("none", "cone", "restricted", "symmetric", "blocked")
NAMES = {"none": "no NAT", "cone": "full cone", "restricted": "port-restricted",
         "symmetric": "symmetric", "blocked": "UDP blocked"}

# What a NAT lets a silent mapping live, in seconds: Linux's own for one without an answer, and the
# shortest that is common (RFC 4787 asks for 120).
MAPPING_SECONDS = 30

# The rules of each kind. "in" is the device towards the host, "out" towards the world. What comes
# from outside uncalled is dropped in `input`, as routers do: were it let through, its connection
# would take the very port that the host's next packet wants.
_FILTER = """
  chain input {
    type filter hook input priority 0
    iifname "out" ct state new drop
  }
"""
_RULES = {
    # The mapping depends on nothing but the host's port, and lets everybody in: nftables has no
    # such NAT, so a set of ports that were used lately stands for its table of mappings.
    "cone": """
  set open {{ type inet_service; flags dynamic,timeout; timeout {seconds}s; }}
  chain used {{
    type filter hook forward priority 0
    iifname "in" meta l4proto udp update @open {{ udp sport }}
  }}
  chain pre {{
    type nat hook prerouting priority -100
    iifname "out" udp dport @open dnat to {host}
  }}
  chain post {{
    type nat hook postrouting priority 100
    oifname "out" masquerade
  }}
""",
    # The port is kept, and only who was sent to gets in.
    "restricted": """
  chain post {{
    type nat hook postrouting priority 100
    oifname "out" masquerade
  }}
""",
    # Another port for everyone who is sent to.
    "symmetric": """
  chain post {{
    type nat hook postrouting priority 100
    oifname "out" masquerade fully-random
  }}
""",
    "blocked": """
  chain no_udp {{
    type filter hook forward priority 0
    meta l4proto udp drop
  }}
  chain post {{
    type nat hook postrouting priority 100
    oifname "out" masquerade
  }}
""",
}


class NatHost(lab.Host):
    """A host behind a NAT of one of KINDS but "none", with IPv4 only."""

    def __init__(self, test_lab, index, kind):
        self.kind = kind
        super().__init__(test_lab, index)

    def _make_links(self):
        n = self.index
        self.nat = f"{self.lab.prefix}n{n}"
        self.outside = f"10.77.{n}.2"
        self.v4 = f"10.200.{n}.2"
        for name in (self.name, self.nat):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", self.device, "netns", self.name, "type", "veth", "peer", "name",
            "in", "netns", self.nat)
        run("ip", "link", "add", "out", "netns", self.nat, "type", "veth", "peer", "name",
            f"to{n}", "netns", self.lab.router)
        self.ip("addr", "add", f"{self.v4}/24", "dev", self.device)
        self.ip("link", "set", self.device, "up")
        self.ip("route", "add", "default", "via", f"10.200.{n}.1")
        for args in (("addr", "add", f"10.200.{n}.1/24", "dev", "in"), ("link", "set", "in", "up"),
                     ("addr", "add", f"{self.outside}/24", "dev", "out"),
                     ("link", "set", "out", "up"),
                     ("route", "add", "default", "via", f"10.77.{n}.1")):
            run("ip", "-n", self.nat, *args)
        self.lab.ip("addr", "add", f"10.77.{n}.1/24", "dev", f"to{n}")
        self.lab.ip("link", "set", f"to{n}", "up")
        self.in_nat("nft", "-f", "-", stdin="table ip nat {" + _FILTER + _RULES[self.kind].format(
            host=self.v4, seconds=MAPPING_SECONDS) + "}")
        for name in ("udp_timeout", "udp_timeout_stream"):
            self.in_nat("sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={MAPPING_SECONDS}")
        self.in_nat("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def mapped(self):
        """Whether a full cone has a mapping for the gateway's port."""
        return f"{self.port} " in self.in_nat("nft", "list", "set", "ip", "nat", "open")

    def in_nat(self, *argv, **kwargs):
        return run("ip", "netns", "exec", self.nat, *argv, **kwargs)


class ControlPlane:
    """Carries what each gateway publishes in its endpoints_file into the configuration of the
    other one of its pair. A thread that looks at the files now and then."""

    def __init__(self):
        self._pairs = []
        self._seen = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.problem = None

    @staticmethod
    def file_of(host):
        return os.path.join(host.lab.folder, f"endpoints-{host.index}.json")

    def add(self, gateway, other):
        """`other` learns where `gateway` is."""
        self._pairs.append((gateway, other))

    def told(self, gateway):
        """What was carried last; None if nothing was."""
        text = self._seen.get(gateway.host.index)
        return json.loads(text) if text else None

    def _run(self):
        while not self._stop.wait(0.05):
            try:
                for gateway, other in list(self._pairs):
                    self._carry(gateway, other)
            except Exception as problem:  # pylint: disable=broad-except
                self.problem = problem  # said by the test, which fails for it

    def _carry(self, gateway, other):
        try:
            with open(self.file_of(gateway.host), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return
        if self._seen.get(gateway.host.index) == text:
            return
        addresses = [one["address"] for one in json.loads(text)["endpoints"]]
        peer = other.config["peers"][0]
        relays = [one for one in peer["endpoints"] if one.startswith("127.3.3.40:")]
        peer["endpoints"] = relays + addresses[:16 - len(relays)]
        other.write()
        self._seen[gateway.host.index] = text

    def stop(self):
        self._stop.set()
        self._thread.join()
