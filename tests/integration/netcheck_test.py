"""ringsock-netcheck in network namespaces, against Debian's coturn and ringsock-relay: hosts of one
family and of both, NATs made with nftables, blocked UDP, and what it says and exits with.

The router holds all NATs; host 1 runs the checks, host 2 is a ringsock-relay (region 1: STUN
and HTTPS), host 3 is coturn, a STUN server by another hand (region 2: STUN only).
"""

import json
import os
import sys

import lab
from gateways import Relay
from lab import wait_for

# Exit statuses.
WELL, TROUBLE, FAILED = 0, 1, 2


# A router's NAT-PMP (RFC 6886): one outside address, and every port that is asked for.
NAT_PMP = """
import socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 5351))
print("ready", flush=True)
while True:
    request, client = server.recvfrom(64)
    if request[:2] == b"\\0\\0":
        answer = struct.pack("!BBHI4s", 0, 128, 0, 1, socket.inet_aton(sys.argv[2]))
    else:
        inside, outside, lifetime = struct.unpack("!HHI", request[4:12])
        print("map", inside, outside, lifetime, flush=True)
        answer = struct.pack("!BBHIHHI", 0, 129, 0, 1, inside, outside, lifetime)
    server.sendto(answer, client)
"""


class Coturn:
    """Debian's TURN server, answering STUN only."""

    REGION = 2

    def __init__(self, host):
        self.host = host
        # A user of its own and no service: everything it writes stays in the lab's folder.
        self.process = host.start(
            "coturn", "turnserver", "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls",
            "--listening-ip", host.v4, "--listening-ip", host.v6, "--listening-port", "3478",
            "--log-file", "stdout", "--simple-log",
            "--pidfile", os.path.join(host.lab.folder, "coturn.pid"),
            "--userdb", os.path.join(host.lab.folder, "coturn.db"))
        # Its log comes late, by the block; its sockets do not.
        wait_for("coturn listens", self._listens, lab=host.lab)

    def _listens(self):
        sockets = self.host.run("ss", "-lun")
        return f"{self.host.v4}:3478" in sockets and f"[{self.host.v6}]:3478" in sockets


class NetcheckTest(lab.LabTest):
    hosts = 3

    def setUp(self):
        super().setUp()
        self.client, relay_host, coturn_host = self.lab.hosts
        self.relay = Relay(relay_host).start()
        self.coturn = Coturn(coturn_host)
        # The router cannot speak IPv6 to its neighbours until its own link-local addresses have
        # proved to be alone, a second or two after it came up.
        for host in (relay_host, coturn_host):
            wait_for("IPv6 works", lambda host=host: " 1 received" in self.client.run(
                "ping", "-n", "-q", "-c", "1", "-W", "1", host.v6, check=False), lab=self.lab)
        self.map = self.relay.map
        node = self.map["Regions"][str(Relay.REGION)]["Nodes"][0]
        node["IPv4"], node["IPv6"] = relay_host.v4, relay_host.v6
        self.map["Regions"][str(Coturn.REGION)] = {
            "RegionID": Coturn.REGION, "RegionCode": "coturn", "Nodes": [
                {"Name": "2a", "RegionID": Coturn.REGION, "HostName": coturn_host.v4,
                 "IPv4": coturn_host.v4, "IPv6": coturn_host.v6, "STUNOnly": True}]}

    def nat(self, rules, v6=""):
        """`rules` for what leaves the client, in the router."""
        self.lab.nft(f"""
            flush ruleset
            table ip nat4 {{
              chain post {{
                type nat hook postrouting priority 100
                ip saddr {self.client.v4} {rules}
              }}
            }}
            {v6}
            """)

    def block_udp(self):
        self.lab.nft(f"""
            flush ruleset
            table inet block {{
              chain forward {{
                type filter hook forward priority 0
                iifname "to{self.client.index}" meta l4proto udp counter drop
              }}
            }}
            """)

    def drop_family(self, family):
        """Takes the client's addresses of one family away."""
        self.client.ip(family, "addr", "flush", "dev", self.client.device, "scope", "global")

    def netcheck(self, *flags, status, map_text=None):
        """Runs a check; returns its JSON, or its text with --text, after looking at its status."""
        path = os.path.join(self.lab.folder, "map.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write(map_text if map_text is not None else json.dumps(self.map))
        json_flag = [] if "--text" in flags else ["--json"]
        flags = [flag for flag in flags if flag != "--text"]
        process = self.client.start("netcheck", lab.binary("netcheck"), "--derp-map", path,
                                    *json_flag, *flags)
        got = process.popen.wait(120)
        text = process.log()
        self.assertEqual(got, status, f"{text}\n{self.lab.logs()}")
        return json.loads(text) if json_flag and status != FAILED else text

    def ids(self, report):
        return [finding["id"] for finding in report["findings"]]

    def latencies(self, report, family):
        return {region["id"]: region[f"{family}_ms"] for region in report["regions"]}

    def assert_both_answered(self, report, family):
        for region, latency in self.latencies(report, family).items():
            self.assertIsNotNone(latency, f"region {region} over {family}: {report}")

    # ---- Without a NAT ----

    def test_dual_stack(self):
        # What is sent to itself has half a second to come back, which a busy machine may take away.
        for _ in range(5):
            report = self.netcheck("--port", "41641", "--no-port-mapping", status=WELL)
            if report["hairpin"] == "yes":
                break
        self.assertTrue(report["udp"] and report["ipv4"] and report["ipv6"])
        self.assertEqual(report["global_v4"], f"{self.client.v4}:41641")
        self.assertEqual(report["global_v6"], f"[{self.client.v6}]:41641")
        self.assertEqual(report["behind_nat"], "no")
        self.assertEqual(report["mapping_varies"], "no")
        self.assertEqual(report["hairpin"], "yes")
        self.assertEqual(report["preferred_region"], Relay.REGION, "coturn is no relay")
        self.assertEqual(self.ids(report), [])
        self.assertFalse(report["port_mapping"]["asked"])

    def test_ipv4_only(self):
        self.drop_family("-6")
        report = self.netcheck("--no-port-mapping", status=WELL)
        self.assertTrue(report["ipv4"])
        self.assertFalse(report["ipv6"])
        self.assert_both_answered(report, "v4")
        self.assertEqual(self.ids(report), [])

    def test_ipv6_only(self):
        self.drop_family("-4")
        report = self.netcheck("--no-port-mapping", status=WELL)
        self.assertFalse(report["ipv4"])
        self.assertTrue(report["ipv6"])
        self.assert_both_answered(report, "v6")
        self.assertEqual(report["preferred_region"], Relay.REGION)
        self.assertEqual(report["behind_nat"], "unknown")

    def test_the_router_is_asked_for_a_port(self):
        # It speaks neither NAT-PMP, which it says by ICMP, nor UPnP, which it says by silence.
        report = self.netcheck(status=WELL)
        self.assertTrue(report["port_mapping"]["asked"])
        self.assertIsNone(report["port_mapping"]["external"])
        self.assertIn("NAT-PMP", report["port_mapping"]["error"])
        self.assertIn("UPnP", report["port_mapping"]["error"])

    def map_port(self, address, status):
        """A check of a host whose router speaks NAT-PMP and gives ports of `address`."""
        router = lab.Process(self.lab, "nat-pmp",
                             [sys.executable, "-c", NAT_PMP, f"10.77.{self.client.index}.1",
                              address], self.lab.router)
        self.lab.processes.append(router)
        wait_for("the router is ready", lambda: "ready" in router.log(), lab=self.lab)
        report = self.netcheck("--port", "41641", status=status)
        self.assertEqual(report["port_mapping"]["external"], f"{address}:41641")
        self.assertEqual(report["port_mapping"]["protocol"], "NAT-PMP")
        wait_for("the port is given back", lambda: "map 41641 0 0" in router.log(), lab=self.lab)
        return report

    def test_a_mapped_port_makes_up_for_a_hard_nat(self):
        self.drop_family("-6")
        outside = "10.99.0.1"
        self.lab.ip("addr", "add", f"{outside}/32", "dev", "lo")
        self.nat(f"ip daddr 10.77.2.0/23 meta l4proto udp snat to {outside} random")
        report = self.map_port(outside, WELL)
        self.assertEqual(report["mapping_varies"], "yes")
        self.assertEqual(self.ids(report), [])

    def test_a_mapped_port_of_a_router_behind_another_nat_does_not(self):
        self.drop_family("-6")
        outside = "10.99.0.1"
        self.lab.ip("addr", "add", f"{outside}/32", "dev", "lo")
        self.nat(f"ip daddr 10.77.2.0/23 meta l4proto udp snat to {outside} random")
        report = self.map_port("100.64.0.7", TROUBLE)
        self.assertEqual(self.ids(report), ["hard_nat", "double_nat"])

    # ---- NATs ----

    def test_one_outside_address(self):
        self.drop_family("-6")
        outside = "10.99.0.1"
        self.lab.ip("addr", "add", f"{outside}/32", "dev", "lo")
        self.nat(f"meta l4proto udp snat to {outside}")
        report = self.netcheck("--port", "41641", "--no-port-mapping", status=WELL)
        self.assertEqual(report["behind_nat"], "yes")
        self.assertEqual(report["global_v4"], f"{outside}:41641")
        self.assertEqual(report["mapping_varies"], "no")

    def test_a_random_port_for_each_destination_is_trouble(self):
        self.drop_family("-6")
        outside = "10.99.0.1"
        self.lab.ip("addr", "add", f"{outside}/32", "dev", "lo")
        self.nat(f"meta l4proto udp snat to {outside} random")
        report = self.netcheck("--no-port-mapping", status=TROUBLE)
        self.assertEqual(report["mapping_varies"], "yes")
        self.assertTrue(report["global_v4"].startswith(f"{outside}:"))
        self.assertEqual(self.ids(report), ["hard_nat"])
        text = self.netcheck("--no-port-mapping", "--text", status=TROUBLE)
        self.assertIn("TROUBLE: The NAT gives this host another address", text)
        self.assertIn("NAT               hard", text)

    def test_a_hard_nat_beside_ipv6_is_a_note(self):
        self.nat("masquerade random")
        report = self.netcheck("--no-port-mapping", status=WELL)
        self.assertEqual(report["mapping_varies"], "yes")
        self.assertEqual(self.ids(report), ["hard_nat"])

    # ---- Trouble ----

    def test_blocked_udp_is_measured_over_https(self):
        self.block_udp()
        report = self.netcheck("--timeout", "1s", "--no-port-mapping", status=TROUBLE)
        self.assertFalse(report["udp"])
        self.assertEqual(self.ids(report), ["udp_blocked"])
        https = self.latencies(report, "https")
        self.assertGreater(https[Relay.REGION], 0)
        self.assertIsNone(https[Coturn.REGION], "it is no relay")
        self.assertEqual(report["preferred_region"], Relay.REGION)
        text = self.netcheck("--timeout", "1s", "--no-port-mapping", "--text", status=TROUBLE)
        self.assertIn("TROUBLE: UDP is blocked", text)
        self.assertIn("Open outgoing UDP to port 3478", text)

    def test_a_relay_of_another_certificate_is_not_believed(self):
        self.block_udp()
        node = self.map["Regions"][str(Relay.REGION)]["Nodes"][0]
        node["CertName"] = "sha256-raw:" + "0" * 64
        report = self.netcheck("--timeout", "1s", "--no-port-mapping", status=TROUBLE)
        self.assertEqual(self.ids(report), ["nothing_reachable"])
        errors = {region["id"]: region["https_error"] for region in report["regions"]}
        self.assertIn("sha256", errors[Relay.REGION])

    def test_this_hosts_own_firewall(self):
        self.client.run("nft", "-f", "-", stdin="""
            table inet own {
              chain out {
                type filter hook output priority 0
                meta l4proto udp counter drop
              }
            }
            """)
        report = self.netcheck("--timeout", "1s", "--no-port-mapping", status=TROUBLE)
        self.assertEqual(self.ids(report), ["udp_refused_here", "udp_blocked"])

    def test_no_network_at_all(self):
        self.client.ip("link", "set", self.client.device, "down")
        report = self.netcheck("--timeout", "500ms", status=TROUBLE)
        self.assertEqual(self.ids(report), ["no_network", "nothing_reachable"])

    def test_a_dead_server_is_a_note(self):
        self.coturn.process.stop()
        report = self.netcheck("--no-port-mapping", status=WELL)
        self.assertEqual(self.ids(report), ["regions_silent"])

    # ---- STUN of others and ours ----

    def test_coturns_client_is_answered_by_our_server(self):
        # It sends neither SOFTWARE nor FINGERPRINT as the reference's clients do, and reads its
        # answers by itself.
        for family in ("v4", "v6"):
            for host in (self.relay.host, self.coturn.host):
                text = self.client.run("turnutils_stunclient", "-p", "3478", getattr(host, family))
                self.assertIn(f"UDP reflexive addr: {getattr(self.client, family)}:", text)

    # ---- The command itself ----

    def test_mistakes(self):
        self.assertIn("relay map", self.netcheck(map_text="nonsense", status=FAILED))
        self.assertIn("has no regions", self.netcheck(map_text="{}", status=FAILED))
        self.assertIn("no such flag", self.netcheck("--nonsense", status=FAILED))

    def test_watch_until_a_signal(self):
        path = os.path.join(self.lab.folder, "map.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.map, file)
        process = self.client.start("watch", lab.binary("netcheck"), "--derp-map", path, "--json",
                                    "--no-port-mapping", "--watch", "1s")
        wait_for("three reports", lambda: process.log().count("\n") >= 3, lab=self.lab)
        self.assertEqual(process.stop(), WELL)
        reports = [json.loads(line) for line in process.log().splitlines()]
        self.assertTrue(reports[0]["full"])
        self.assertFalse(reports[1]["full"])


if __name__ == "__main__":
    lab.main(sys.argv)
