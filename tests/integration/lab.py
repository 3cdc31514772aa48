"""Network namespaces, real WireGuard and our programs, for tests that run the whole system.

A Lab is a router namespace with hosts around it. Everything it makes carries a prefix of its own,
lives under one temporary folder and is removed by close(), also after a failure. Nothing here
sleeps a fixed time: wait_for() polls a condition and fails with the logs of every program.
"""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import xml.sax.saxutils

START_SECONDS = 60  # sanitizer builds on two busy cores start slowly


def run(*argv, check=True, timeout=60, stdin=None):
    """Runs a command to its end and returns its standard output."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what, condition, seconds=START_SECONDS, lab=None):
    """Polls condition() until it is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            logs = lab.logs() if lab else ""
            raise AssertionError(f"not within {seconds} s: {what}\n{logs}")
        time.sleep(0.02)  # between two looks at the condition, not for its own sake


class Process:
    """A program in a namespace, with its output in a file."""

    def __init__(self, lab, name, argv, namespace, stdin=None):
        self.name = name
        self.path = os.path.join(lab.folder, f"{name}.log")
        self._file = open(self.path, "w", encoding="utf-8")
        self.popen = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *argv],
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=self._file, stderr=subprocess.STDOUT, text=True)

    def log(self):
        with open(self.path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def running(self):
        return self.popen.poll() is None

    def send_signal(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=START_SECONDS):
        """Stops it and returns its exit status."""
        if self.running():
            self.popen.send_signal(number)
        try:
            status = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not stop on signal {number}\n{self.log()}")
        finally:
            self._file.close()
        return status


class Host:
    """A namespace behind the router: one interface, an IPv4 and an IPv6 address."""

    def __init__(self, lab, index):
        self.lab = lab
        self.index = index
        self.name = f"{lab.prefix}h{index}"
        self.wg = f"{lab.prefix}w{index}"
        self.device = "eth0"
        self.v4 = f"10.77.{index}.2"
        self.v6 = f"fd77:{index}::2"
        self.tunnel = f"10.78.0.{index}"
        self.tunnel6 = f"fd78::{index}"
        self.private = run("wg", "genkey").strip()
        self.public = run("wg", "pubkey", stdin=self.private).strip()
        self.key_file = os.path.join(lab.folder, f"{self.wg}.key")
        with open(os.open(self.key_file, os.O_CREAT | os.O_WRONLY, 0o600), "w",
                  encoding="ascii") as file:
            file.write(self.private)
        self.port = 41641 + index
        self.gateway = None
        self._make_links()

    def _make_links(self):
        lab, n = self.lab, self.index
        run("ip", "netns", "add", self.name)
        uplink = f"to{n}"
        run("ip", "link", "add", self.device, "netns", self.name, "type", "veth", "peer", "name",
            uplink, "netns", lab.router)
        self.ip("link", "set", "lo", "up")
        self.ip("addr", "add", f"{self.v4}/24", "dev", self.device)
        self.ip("addr", "add", f"{self.v6}/64", "dev", self.device, "nodad")
        self.ip("link", "set", self.device, "up")
        lab.ip("addr", "add", f"10.77.{n}.1/24", "dev", uplink)
        lab.ip("addr", "add", f"fd77:{n}::1/64", "dev", uplink, "nodad")
        lab.ip("link", "set", uplink, "up")
        self.ip("route", "add", "default", "via", f"10.77.{n}.1")
        self.ip("-6", "route", "add", "default", "via", f"fd77:{n}::1")

    def ip(self, *args, check=True):
        return run("ip", "-n", self.name, *args, check=check)

    def run(self, *argv, **kwargs):
        return run("ip", "netns", "exec", self.name, *argv, **kwargs)

    def start(self, name, *argv, stdin=None):
        process = Process(self.lab, f"{name}-{self.index}", list(argv), self.name, stdin)
        self.lab.processes.append(process)
        return process

    def change_address(self, last):
        """Moves the host to 10.77.N.last and fd77:N::last, as a network change would."""
        for family, old, new, bits in (("-4", self.v4, f"10.77.{self.index}.{last}", 24),
                                       ("-6", self.v6, f"fd77:{self.index}::{last}", 64)):
            nodad = ["nodad"] if family == "-6" else []
            # The old one first: an address beside it would be a secondary one and go with it.
            self.ip(family, "addr", "del", f"{old}/{bits}", "dev", self.device)
            self.ip(family, "addr", "add", f"{new}/{bits}", "dev", self.device, *nodad)
            gateway = f"10.77.{self.index}.1" if family == "-4" else f"fd77:{self.index}::1"
            self.ip(family, "route", "replace", "default", "via", gateway)
        self.v4, self.v6 = f"10.77.{self.index}.{last}", f"fd77:{self.index}::{last}"

    # WireGuard

    def start_wireguard(self):
        """Debian's wireguard-go with its interface up, and no peers yet."""
        self.start("wireguard-go", "env", "LOG_LEVEL=error", "wireguard-go", "-f", self.wg)
        wait_for("wireguard-go is up", lambda: os.path.exists(f"/var/run/wireguard/{self.wg}.sock"),
                 lab=self.lab)
        self.run("wg", "set", self.wg, "private-key", self.key_file, "listen-port", "51820")
        self.ip("addr", "add", f"{self.tunnel}/24", "dev", self.wg)
        self.ip("addr", "add", f"{self.tunnel6}/64", "dev", self.wg, "nodad")
        self.ip("link", "set", self.wg, "mtu", "1420", "up")

    def add_peer(self, other, keepalive=0):
        self.run("wg", "set", self.wg, "peer", other.public, "allowed-ips",
                 f"{other.tunnel}/32,{other.tunnel6}/128", "persistent-keepalive", str(keepalive))

    def handshake_age(self, other):
        """Seconds since the last handshake with `other`, or None."""
        for line in self.run("wg", "show", self.wg, "latest-handshakes").splitlines():
            key, when = line.split()
            if key == other.public and when != "0":
                return time.time() - int(when)
        return None

    def new_handshake(self):
        """Makes WireGuard begin a new handshake with its next packet, as it does by itself every
        two minutes: another private key and the old one again end all sessions."""
        def hexadecimal(key):
            return base64.b64decode(key).hex()

        other = run("wg", "genkey").strip()
        with socket.socket(socket.AF_UNIX) as uapi:
            uapi.connect(f"/var/run/wireguard/{self.wg}.sock")
            uapi.sendall(f"set=1\nprivate_key={hexadecimal(other)}\n"
                         f"private_key={hexadecimal(self.private)}\n\n".encode())
            answer = uapi.recv(1000).decode()
        assert "errno=0" in answer, answer

    # Traffic

    def ping(self, other, count=20, interval=0.05, v6=False):
        """Sends `count` pings through the tunnel; returns (sent, received)."""
        address = other.tunnel6 if v6 else other.tunnel
        # By itself ping gives up what is not answered two round trips after the last one is sent,
        # which is soon. With a deadline it goes on until so many are answered: some more than
        # count, since the last ones may overtake one another.
        text = self.run("ping", "-n", "-c", str(count + 10), "-i", str(interval), "-w", "60",
                        address, check=False, timeout=120)
        if "packets transmitted" not in text:
            raise AssertionError(f"ping said:\n{text}\n{self.lab.logs()}")
        answered = {int(n) for n in re.findall(r" bytes from .*icmp_seq=(\d+)", text)}
        return count, sum(n <= count for n in answered)

    def ping_in_background(self, other, count, interval=0.02):
        return self.start("ping", "ping", "-n", "-D", "-O", "-c", str(count), "-i", str(interval),
                          "-W", "5", other.tunnel)


class Lab:
    """A router and `hosts` hosts that reach each other through it."""

    _made = 0

    def __init__(self, hosts):
        Lab._made += 1
        self.prefix = f"rs{os.getpid() % 100000}x{Lab._made}"
        self.folder = tempfile.mkdtemp(prefix="ringsock-lab-")
        self.processes = []
        self.hosts = []
        self.router = f"{self.prefix}r"
        try:
            run("ip", "netns", "add", self.router)
            self.ip("link", "set", "lo", "up")
            for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                run("ip", "netns", "exec", self.router, "sysctl", "-qw", f"{name}=1")
            self.hosts = [Host(self, i + 1) for i in range(hosts)]
        except BaseException:
            self.close()
            raise

    def add_host(self, make, *args):
        """One host more, made by make(lab, index, *args)."""
        host = make(self, len(self.hosts) + 1, *args)
        self.hosts.append(host)
        return host

    def ip(self, *args):
        return run("ip", "-n", self.router, *args)

    def nft(self, text):
        """Loads nftables rules in the router."""
        run("ip", "netns", "exec", self.router, "nft", "-f", "-", stdin=text)

    def forget_connections(self):
        """Empties the router's connection table, as a NAT that restarts does."""
        run("ip", "netns", "exec", self.router, "conntrack", "-F")

    def logs(self):
        return "\n".join(f"--- {p.name} ---\n{p.log()[-4000:]}" for p in self.processes)

    def close(self):
        for process in reversed(self.processes):
            if process.running():
                process.popen.kill()
                process.popen.wait()
        names = run("ip", "netns", "list", check=False).split()
        for name in [n for n in names if n.startswith(self.prefix)]:
            for pid in run("ip", "netns", "pids", name, check=False).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            run("ip", "netns", "del", name, check=False)
        for host in self.hosts:
            for path in (f"/var/run/wireguard/{host.wg}.sock",):
                if os.path.exists(path):
                    os.unlink(path)
        shutil.rmtree(self.folder, ignore_errors=True)


class LabTest(unittest.TestCase):
    """A test with a Lab of its own: set `hosts` in the class."""

    hosts = 2

    def setUp(self):
        self.lab = Lab(self.hosts)
        self.addCleanup(self.lab.close)
        self.addCleanup(self._keep_logs)

    def _keep_logs(self):
        self._logs = self.lab.logs()

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(f"=== programs of {self.id()} ===\n{getattr(self, '_logs', '')}", flush=True)


def binary(name):
    """Path of a program of ours, given by the test rule as NAME=PATH arguments."""
    return _binaries[name]


_binaries = {}


def main(argv):
    """Runs the tests of __main__ and writes the result file that the build tool asks for."""
    for argument in argv[1:]:
        name, _, path = argument.partition("=")
        _binaries[name] = os.path.abspath(path)
    if os.geteuid() != 0:
        raise SystemExit("these tests make network namespaces and need root")
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__("__main__"))
    outcome = unittest.TextTestRunner(verbosity=2, resultclass=_RecordingResult).run(suite)
    path = os.environ.get("XML_OUTPUT_FILE")
    if path:
        _write_xml(path, outcome)
    raise SystemExit(0 if outcome.wasSuccessful() else 1)


class _RecordingResult(unittest.TextTestResult):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ran = []

    def startTest(self, test):
        super().startTest(test)
        self.ran.append(test)


def _write_xml(path, outcome):
    bad = dict((test.id(), text) for test, text in outcome.failures + outcome.errors)
    skipped = dict((test.id(), text) for test, text in outcome.skipped)
    quote = xml.sax.saxutils.quoteattr
    lines = [f'<testsuites><testsuite name="integration" tests="{len(outcome.ran)}" '
             f'failures="{len(bad)}">']
    for test in outcome.ran:
        lines.append(f"<testcase name={quote(test.id())}>")
        if test.id() in bad:
            lines.append(f"<failure message={quote(bad[test.id()][-2000:])}/>")
        elif test.id() in skipped:
            lines.append(f"<skipped message={quote(skipped[test.id()])}/>")
        lines.append("</testcase>")
    lines.append("</testsuite></testsuites>")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
