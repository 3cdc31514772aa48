#!/usr/bin/python3 -B
"""ringsock-relay as a process: first start, real TLS clients, reloads, refusals, and its end.

Nothing here waits a fixed time: the program says what it has done on its log, and tests read that.
"""

import ctypes
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = ""
KEY_A = "45c7c1e397281f9127fa60004895aa23089586fae0301a101aa37a6120ec0f0f"
KEY_B = "u1D/noKldM+/gg6X9g+5wUPsdBXPUU+M/Zjv9Z4FlhQ="
MAGIC = bytes.fromhex("44455250f09f9491")
SERVER_KEY, CLIENT_INFO, SERVER_INFO, SEND_PACKET, RECV_PACKET, KEEP_ALIVE = range(1, 7)
PEER_GONE, RESTARTING = 0x08, 0x15
SECONDS = 60  # a bound for what never takes so long


class Relay:
    """One run of the program."""

    def __init__(self, *arguments):
        self.popen = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True)
        self.log = ""

    def says(self, text):
        """Reads the log up to a line with `text` and returns that line."""
        for line in self.popen.stderr:
            self.log += line
            if text in line:
                return line
        raise AssertionError(f"ended without saying \"{text}\":\n{self.log}")

    def end(self, number=None):
        """Its exit status, after a signal if one is given."""
        if number is not None:
            self.popen.send_signal(number)
        self.log += self.popen.stderr.read()
        return self.popen.wait(SECONDS)

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()
        self.popen.stderr.close()


class Client:
    """A DERP client on a TLS stream, with libsodium for the login."""

    _sodium = ctypes.CDLL("libsodium.so.23")

    def __init__(self, stream=None):
        self.stream = stream
        public, self.private = (ctypes.create_string_buffer(32) for _ in range(2))
        self._sodium.crypto_box_keypair(public, self.private)
        self.public = public.raw

    def login(self):
        self.stream.sendall(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n"
                            b"Connection: Upgrade\r\n\r\n")
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.take(1)
        kind, payload = self.receive()
        assert (kind, payload[:8]) == (SERVER_KEY, MAGIC), payload
        self.server = payload[8:40]
        info, nonce = b'{"version":2,"CanAckPings":true}', os.urandom(24)
        box = ctypes.create_string_buffer(len(info) + 16)
        self._sodium.crypto_box_easy(box, info, ctypes.c_ulonglong(len(info)), nonce, self.server,
                                     self.private)
        self.send(CLIENT_INFO, self.public + nonce + box.raw)

    def logged_in(self):
        self.login()
        kind, payload = self.receive()
        assert kind == SERVER_INFO, (kind, payload)
        return self

    def send(self, kind, payload):
        self.stream.sendall(struct.pack(">BI", kind, len(payload)) + payload)

    def take(self, count):
        data = b""
        while len(data) < count:
            piece = self.stream.recv(count - len(data))
            if not piece:
                raise EOFError("the relay ended the stream")
            data += piece
        return data

    def receive(self):
        """The next frame that is no keep-alive."""
        while True:
            kind, size = struct.unpack(">BI", self.take(5))
            payload = self.take(size)
            if kind != KEEP_ALIVE:
                return kind, payload

    def ended(self):
        """Reads to the end of the stream; the kinds of frames that still came."""
        kinds = []
        try:
            while True:
                kinds.append(self.receive()[0])
        except (EOFError, OSError):  # OSError: reset
            return kinds


class RelayTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ringsock-relay-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.state = os.path.join(self.folder, "state")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o600):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def run_relay(self, *more, state=None):
        options = {"--hostname": "127.0.0.1", "--bind": "127.0.0.1", "--port": "0",
                   "--stun-port": "0", "--metrics": "127.0.0.1:0", "--workers": "2",
                   "--stop-grace": "100ms", "--state-dir": state or self.state}
        usual = [word for pair in options.items() if pair[0] not in more for word in pair]
        relay = Relay(*usual, *more)
        self.addCleanup(relay.close)
        return relay

    def start(self, *more):
        """A relay that serves, with its map as `node` and its page as `local`."""
        relay = self.run_relay(*more)
        relay.says("relay: serving")
        relay.map = json.loads(relay.popen.stdout.readline())
        relay.node = relay.map["Regions"]["900"]["Nodes"][0]
        address = relay.log.split("metrics on http://")[1].split("/")[0]
        relay.local = ("127.0.0.1", int(address.split(":")[1]))
        return relay

    def connect(self, relay, maximum=ssl.TLSVersion.TLSv1_3):
        """A TLS connection, and the pin of the certificate that came."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin is what counts, checked by the tests
        context.maximum_version = maximum
        plain = socket.create_connection(("127.0.0.1", relay.node["DERPPort"]), SECONDS)
        stream = context.wrap_socket(plain, server_hostname="relay.example.com")
        self.addCleanup(stream.close)
        return stream, "sha256-raw:" + hashlib.sha256(stream.getpeercert(True)).hexdigest()

    def request(self, stream, method, path, **headers):
        """Sends a request and returns status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = stream
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()

    def page(self, relay, path):
        connection = http.client.HTTPConnection(*relay.local, timeout=SECONDS)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def metric(self, relay, name):
        """The value of a sample of the page, by its name with labels."""
        status, text = self.page(relay, "/metrics")
        self.assertEqual(status, 200)
        for line in text.splitlines():
            if line.startswith(f"ringsock_relay_{name} "):
                return float(line.split()[-1])
        raise AssertionError(f"no {name} in\n{text}")

    def assert_counts(self, relay, name, value):
        """That a sample comes to be `value`: workers count a moment after they have done it."""
        end = time.monotonic() + SECONDS
        while (found := self.metric(relay, name)) < value and time.monotonic() < end:
            pass
        self.assertEqual(found, value, name)


class Serving(RelayTest):
    def test_first_start_makes_key_and_certificate_which_stay(self):
        first = self.start()
        for name in ("relay.key", "self-signed.pem"):
            mode = os.stat(os.path.join(self.state, name)).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, name)
        _, pin = self.connect(first)
        self.assertEqual(pin, first.node["CertName"])
        self.assertEqual(first.end(signal.SIGTERM), 0, first.log)
        self.assertIn("made a new key", first.log)

        second = self.start()
        self.assertNotIn("made a", second.log)
        self.assertEqual(second.node["CertName"], pin)
        keys = [log.split("public key ")[1].split()[0] for log in (first.log, second.log)]
        self.assertEqual(keys[0], keys[1])

    def test_pages_over_both_versions_of_tls(self):
        relay = self.start()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            status, headers, body = self.request(self.connect(relay, version)[0], "GET",
                                                 "/derp/probe")
            self.assertEqual((status, body), (200, b""))
            self.assertEqual(headers["Access-Control-Allow-Origin"], "*")
            status, headers, _ = self.request(
                self.connect(relay, version)[0], "GET", "/generate_204",
                **{"X-Tailscale-Challenge": "abc123"})
            self.assertEqual(status, 204)
            self.assertEqual(headers["X-Tailscale-Response"], "response abc123")
            status, _, _ = self.request(self.connect(relay, version)[0], "GET", "/derp")
            self.assertEqual(status, 426)

    def test_clients_log_in_and_reach_one_another(self):
        relay = self.start("--stop-grace", "5m")
        key = relay.log.split("public key ")[1].split()[0]
        clients = [Client(self.connect(relay)[0]).logged_in() for _ in range(4)]
        for client in clients:
            self.assertTrue(client.head.startswith(b"HTTP/1.1 101 "), client.head)
            self.assertIn(f"Derp-Public-Key: {key}".encode(), client.head)
            self.assertEqual(client.server.hex(), key)
        for sender in clients:
            for receiver in clients:
                sender.send(SEND_PACKET, receiver.public + b"to " + receiver.public)
                self.assertEqual(receiver.receive(),
                                 (RECV_PACKET, sender.public + b"to " + receiver.public))
        self.assert_counts(relay, 'packets_total{direction="out"}', 16)
        self.assertEqual(self.metric(relay, "clients"), 4)
        relay.popen.send_signal(signal.SIGTERM)
        for client in clients:
            self.assertIn(RESTARTING, client.ended())
            client.stream.close()
        self.assertEqual(relay.end(), 0, relay.log)

    def test_a_mesh_over_tls(self):
        key = self.write("mesh.key", "5b" * 32)
        other = self.start("--mesh-key", key)
        address = f"https://127.0.0.1:{other.node['DERPPort']}#"
        far = Client(self.connect(other)[0]).logged_in()
        for pin, meshed in ((other.node["CertName"], True), ("sha256-raw:" + "0" * 64, False)):
            relay = self.start("--mesh-key", key, "--mesh-with", address + pin, "--state-dir",
                               self.path(f"state-{meshed}"))
            if not meshed:
                self.assertIn("pin", relay.says(f"mesh with 127.0.0.1:{other.node['DERPPort']}"))
                continue
            while self.metric(relay, "mesh_keys") < 1:
                pass
            near = Client(self.connect(relay)[0]).logged_in()
            near.send(SEND_PACKET, far.public + b"across")
            self.assertEqual(far.receive(), (RECV_PACKET, near.public + b"across"))
            self.assert_counts(relay, 'packets_total{direction="forwarded_out"}', 1)

    def test_stun_health_and_metrics(self):
        relay = self.start()
        # A worker that a busy machine does not run for a second is called stuck.
        end = time.monotonic() + SECONDS
        while (health := self.page(relay, "/healthz")) != (200, "ok\n"):
            self.assertEqual(health, (503, "a worker is stuck\n"))
            self.assertLess(time.monotonic(), end)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(SECONDS)
            udp.connect(("127.0.0.1", relay.node["STUNPort"]))
            request = struct.pack(">HHI", 1, 0, 0x2112A442) + os.urandom(12)
            udp.send(request)
            answer = udp.recv(100)
            self.assertEqual(answer[:2], b"\x01\x01")
            self.assertEqual(answer[8:20], request[8:20])
            port = struct.unpack(">H", answer[26:28])[0] ^ 0x2112
            self.assertEqual(port, udp.getsockname()[1])
        self.assert_counts(relay, 'stun_requests_total{result="answered"}', 1)
        self.request(self.connect(relay)[0], "GET", "/derp/probe")
        self.assert_counts(relay, 'connections_total{result="accepted"}', 1)
        self.assertEqual(self.metric(relay, "workers"), 2)
        self.assertEqual(self.page(relay, "/")[0], 404)
        relay.popen.send_signal(signal.SIGUSR1)
        relay.says("status: clients=0")

    def test_plain_http_only_where_asked_for(self):
        relay = self.start()
        with socket.create_connection(("127.0.0.1", relay.node["DERPPort"]), SECONDS) as plain:
            plain.sendall(b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            try:
                while piece := plain.recv(4096):
                    answer += piece
            except ConnectionResetError:
                pass
            self.assertNotIn(b"HTTP/1.1", answer, "the TLS port answered plain HTTP")
        relay.end(signal.SIGTERM)

        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        plain = self.start("--plain-http", f"127.0.0.1:{port}")
        self.assertIn("plain HTTP on", plain.log)
        stream = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.addCleanup(stream.close)
        self.assertEqual(self.request(stream, "GET", "/derp/probe")[0], 200)

    def test_an_idle_relay_does_not_wait_out_its_grace(self):
        relay = self.start("--stop-grace", "5m")
        self.assertEqual(relay.end(signal.SIGTERM), 0, relay.log)

    def test_either_signal_ends_it_with_zero_also_with_clients(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            relay = self.start()
            idle, _ = self.connect(relay)
            self.assertEqual(relay.end(number), 0, relay.log)
            self.assertIn(f"stopping on {signal.Signals(number).name}", relay.log)
            idle.settimeout(SECONDS)
            try:
                self.assertEqual(idle.recv(1), b"")
            except OSError:  # reset, or cut without close_notify
                pass


class Reloading(RelayTest):
    def make_certificate(self, name):
        """Chain and key of a certificate of its own, made by another relay's first start."""
        state = self.path(name)
        maker = self.run_relay("--check", state=state)
        self.assertEqual(maker.end(), 0, maker.log)
        node = json.loads(maker.popen.stdout.read())["Regions"]["900"]["Nodes"][0]
        with open(os.path.join(state, "self-signed.pem"), encoding="ascii") as file:
            text = file.read()
        split = text.index("-----BEGIN", 1)
        return text[:split], text[split:], node["CertName"]

    def test_certificate_is_loaded_anew_and_a_bad_one_refused(self):
        chain, key, first = self.make_certificate("one")
        new_chain, new_key, second = self.make_certificate("two")
        self.assertNotEqual(first, second)
        self.write("chain.pem", chain, 0o644)
        self.write("key.pem", key)
        relay = self.start("--cert", self.path("chain.pem"), "--cert-key", self.path("key.pem"))
        self.assertNotIn("CertName", relay.node, "no pin of a certificate that will be renewed")
        self.assertEqual(self.connect(relay)[1], first)

        # A renewal caught half way, then a chain that is none: the first stays.
        for text, why in ((new_chain, "the private key is not that of the chain"),
                          ("nonsense", "holds no certificate")):
            self.write("chain.pem", text, 0o644)
            relay.popen.send_signal(signal.SIGHUP)
            self.assertIn("the old certificate stays", relay.says(why))
            relay.says("reload: done")
            self.assertEqual(self.connect(relay)[1], first)
        self.assert_counts(relay, 'reloads_total{file="certificate",result="refused"}', 2)

        old, pin = self.connect(relay)  # it has 10 s to say what it wants
        self.assertEqual(pin, first)
        self.write("chain.pem", new_chain, 0o644)
        self.write("key.pem", new_key)
        relay.popen.send_signal(signal.SIGHUP)
        relay.says("reload: done")
        self.assertEqual(self.request(old, "GET", "/derp/probe")[0], 200, "goes on as it began")
        self.assertEqual(self.connect(relay)[1], second)
        self.assert_counts(relay, 'reloads_total{file="certificate",result="ok"}', 1)
        self.assertEqual(relay.end(signal.SIGTERM), 0)

    def test_allow_list_is_loaded_anew_and_a_bad_one_refused(self):
        allowed = self.write("allowed", f"{KEY_A} # a\n")
        relay = self.start("--allow-list", allowed)
        self.assert_counts(relay, "allowed_keys", 1)
        self.write("allowed", f"{KEY_A}\n{KEY_B}\n")
        relay.popen.send_signal(signal.SIGHUP)
        relay.says("2 keys on the allow-list")
        self.write("allowed", f"{KEY_A}\n\nnonsense\n")
        relay.popen.send_signal(signal.SIGHUP)
        self.assertIn("allowed line 3: \"nons...\"", relay.says("the old allow_list stays"))
        relay.says("reload: done")
        self.assertEqual(self.metric(relay, "allowed_keys"), 2)
        os.unlink(allowed)
        relay.popen.send_signal(signal.SIGHUP)
        relay.says("cannot be read")
        self.assertEqual(relay.end(signal.SIGTERM), 0)


    def test_clients_taken_from_the_list_are_dropped(self):
        stays, goes = Client(), Client()
        allowed = self.write("allowed", f"{stays.public.hex()}\n{goes.public.hex()}\n")
        relay = self.start("--allow-list", allowed)
        for client in (stays, goes):
            client.stream = self.connect(relay)[0]
            client.logged_in()
        stranger = Client(self.connect(relay)[0])
        stranger.login()
        self.assertNotIn(SERVER_INFO, stranger.ended())
        self.assert_counts(relay, 'logins_total{result="denied"}', 1)

        self.write("allowed", f"{stays.public.hex()}\n")
        relay.popen.send_signal(signal.SIGHUP)
        relay.says("reload: done")
        goes.ended()
        stays.send(SEND_PACKET, stays.public + b"still here")
        self.assertEqual(stays.receive(), (RECV_PACKET, stays.public + b"still here"))
        self.assert_counts(relay, 'disconnects_total{reason="denied"}', 1)


class Refusing(RelayTest):
    def refused(self, status, text, *arguments):
        relay = self.run_relay(*arguments)
        self.assertEqual(relay.end(), status, relay.log)
        self.assertIn(text, relay.log)
        return relay

    def test_wrong_options_are_two(self):
        self.refused(2, "--prot: no such flag", "--prot", "1")
        self.refused(2, "--backend \"x\"", "--backend", "x")
        self.refused(2, "/no/such: cannot be read", "--config", "/no/such")
        self.assertFalse(os.path.exists(self.state), "nothing was made")

    def test_help_is_zero(self):
        relay = Relay("--help")
        self.addCleanup(relay.close)
        self.assertEqual(relay.end(), 0)
        self.assertIn("--hostname", relay.popen.stdout.read())

    def test_bad_files_are_one_and_name_the_cure(self):
        self.refused(0, "made a new key", "--check")
        key = os.path.join(self.state, "relay.key")
        os.chmod(key, 0o644)
        self.refused(1, f"chmod 600 {key}")
        os.chmod(key, 0o600)
        bad = self.write("bad", "nonsense\n")
        self.refused(1, f"--allow-list {bad} line 1", "--allow-list", bad)
        self.refused(1, f"--mesh-key {bad}", "--mesh-key", bad)
        self.refused(1, f"{bad}: ", "--cert", bad, "--cert-key", bad)
        with open(key, encoding="ascii") as file:
            secret = file.read().strip()
        self.write("bad", secret[1:])
        self.assertNotIn(secret[1:12], self.refused(1, "line 1", "--allow-list", bad).log)

    def test_ports_in_use_are_one_and_name_the_cure(self):
        with socket.create_server(("127.0.0.1", 0)) as tcp:
            port = tcp.getsockname()[1]
            self.refused(1, f"127.0.0.1:{port}", "--metrics", f"127.0.0.1:{port}")
            self.refused(1, "choose another port", "--plain-http", f"127.0.0.1:{port}")

    def test_a_port_that_could_be_shared_is_in_use(self):
        with socket.socket() as tcp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            tcp.bind(("127.0.0.1", 0))
            tcp.listen()
            self.refused(1, "Address already in use", "--port", str(tcp.getsockname()[1]))

    def test_a_state_directory_is_for_one(self):
        self.start()
        self.refused(1, "another ringsock-relay uses it")


def write_result(outcome):
    """The result file that the build tool asks for."""
    path = os.environ.get("XML_OUTPUT_FILE")
    if path:
        bad = len(outcome.failures) + len(outcome.errors)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'<testsuites><testsuite name="relay" tests="{outcome.testsRun}" '
                       f'failures="{bad}"/></testsuites>\n')


def enter_own_network():
    """A network with nothing but loopback in it, so that nobody takes a port that is given up."""
    if ctypes.CDLL(None).unshare(0x40000000) == 0:  # CLONE_NEWNET; needs root
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


if __name__ == "__main__":
    enter_own_network()
    PROGRAM = os.path.abspath(sys.argv[1])
    tests = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    write_result(result)
    raise SystemExit(0 if result.wasSuccessful() else 1)
