"""ringsock-gateway and ringsock-relay on the hosts of a Lab, and what they say about paths."""

import json
import os
import re
import signal

import lab
from lab import wait_for

LOCAL_PORT = 51900  # the gateways' side that WireGuard talks to


class Gateway:
    """ringsock-gateway on a host, between its wireguard-go and the network."""

    def __init__(self, host, peers, **extra):
        """`peers` is a list of (host, list of endpoints)."""
        self.host = host
        config = {
            "wireguard": {"port": 51820, "interface": host.wg},
            "local_port": LOCAL_PORT,
            "listen_port": host.port,
            "peers": [{"public_key": peer.public, "name": f"host {peer.index}",
                       "endpoints": endpoints} for peer, endpoints in peers],
            **extra,
        }
        self.config = config
        self.path = os.path.join(host.lab.folder, f"gateway-{host.index}.json")
        self.write()
        self.process = host.start("gateway", lab.binary("gateway"), "--config", self.path)
        wait_for(f"host {host.index}'s gateway is up",
                 lambda: "peers on port" in self.process.log(), lab=host.lab)
        lines = re.findall(r"^wg set .* endpoint 127\..*$", self.process.log(), re.MULTILINE)
        assert len(lines) == len(peers), self.process.log()
        for line in lines:
            host.run(*line.split("  #")[0].split())

    def write(self):
        """Replaces its configuration file by what self.config says, as a control plane does. If it
        runs it reads it by itself."""
        new = self.path + ".new"
        with open(new, "w", encoding="utf-8") as file:
            json.dump(self.config, file)
        os.rename(new, self.path)

    def reloads(self):
        return self.process.log().count("reload: changed")

    def status(self):
        """What it says on SIGUSR1: a list of lines."""
        last = "status: towards peers: "
        before = self.process.log().count(last)
        self.process.send_signal(signal.SIGUSR1)
        wait_for("the gateway says its status",
                 lambda: self.process.log().count(last) > before, lab=self.host.lab)
        lines = re.findall(r"status: (.*)", self.process.log())
        first = max(i for i, line in enumerate(lines) if re.match(r"port \d+, ", line))
        return lines[first:]

    def path_to(self, other):
        """"direct 10.77.2.2:41643", "relay of region 1 (lab)" or "none confirmed"."""
        for line in self.status():
            found = re.match(rf"peer host {other.index}: .*, path (.*)", line)
            if found:
                return found.group(1)
        raise AssertionError(f"no such peer\n{self.process.log()}")

    def relay_line(self):
        """The status of its connection to the relay; "" without one."""
        return next((line for line in self.status() if line.startswith("relay of ")), "")

    def wait_for_path(self, other, text, seconds=lab.START_SECONDS):
        wait_for(f"host {self.host.index} reaches host {other.index} by \"{text}\"",
                 lambda: text in self.path_to(other), seconds, self.host.lab)

    def wait_for_relay(self):
        wait_for(f"host {self.host.index} is connected to the relay",
                 lambda: ": up " in self.relay_line(), lab=self.host.lab)


class Relay:
    """ringsock-relay on a host, with the certificate it makes for itself."""

    REGION = 1

    def __init__(self, host):
        self.host = host
        self.process = None
        self.starts = 0
        self.state = os.path.join(host.lab.folder, "relay")
        text = host.run(*self._command("--check"))
        # With the pin of its certificate.
        self.map = json.loads(text[text.index("{"):])

    def _command(self, *more):
        return (lab.binary("relay"), "--hostname", self.host.v4, "--state-dir", self.state,
                "--region-id", str(self.REGION), "--region-code", "lab", "--metrics", "off",
                "--workers", "1", *more)

    def start(self):
        self.starts += 1
        self.process = self.host.start(f"relay-{self.starts}", *self._command())
        wait_for("the relay listens", lambda: "TLS on" in self.process.log(), lab=self.host.lab)
        return self

    def stop(self):
        assert self.process.stop(signal.SIGTERM) == 0, self.process.log()


def endpoints_of(host, family=4):
    return [f"{host.v4}:{host.port}" if family == 4 else f"[{host.v6}]:{host.port}"]
