// Options of ringsock-relay: flags, the file, and what errors name.
#include "relay/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "relay/config_table.h"
#include "relay/server.h"
#include "tests/relay/temporary_directory.h"

namespace ringsock::relay {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::StartsWith;

absl::StatusOr<Config> Parse(std::vector<std::string> args) {
  args.insert(args.begin(), "ringsock-relay");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  return ParseConfig(argv);
}

// With the host name that has to be there.
absl::StatusOr<Config> ParseNamed(std::vector<std::string> args) {
  args.insert(args.begin(), {"--hostname", "r.example"});
  return Parse(std::move(args));
}

template <typename T>
std::string Error(const absl::StatusOr<T>& value) {
  return value.ok() ? "no error" : std::string(value.status().message());
}

TEST(ConfigTest, NameAloneIsEnough) {
  const auto config = Parse({"--hostname", "relay.example.com"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->host_name, "relay.example.com");
  EXPECT_EQ(config->state_dir, "/var/lib/ringsock-relay");
  EXPECT_EQ(config->port, 443);
  EXPECT_EQ(config->stun_port, 3478);
  EXPECT_TRUE(config->plain.empty()) << "plain HTTP only when asked for";
  EXPECT_TRUE(config->metrics->ip.IsLoopback());
}

TEST(ConfigTest, EveryFlagReachesItsOption) {
  const auto config = Parse(absl::StrSplit(
      "--hostname=192.0.2.1 --state-dir /tmp/x --bind 127.0.0.1 --bind ::1 --port 8443 "
      "--plain-http 127.0.0.1:80 --cert c.pem --cert-key k.pem --fast-start=false --stun-port -1 "
      "--region-id 7 --region-code ber --region-name Berlin --public-ipv4 192.0.2.1 "
      "--public-ipv6 2001:db8::1 --allow-list keys --max-clients 10 --max-logins 5 "
      "--max-connections-per-key 2 --accepts-per-second 0 --accept-burst 9 "
      "--client-bytes-per-second 2M --client-bytes-burst 3K --queue-bytes 128K --queue-age 500ms "
      "--queue-memory 1G --write-timeout 3s --mesh-key m --mesh-with https://b.example:443 "
      "--mesh-with http://[::1]:80 --mesh-roots roots --metrics [::1]:9 --workers 3 "
      "--pin-workers false --backend mmsg --stop-grace 0s --reconnect-in 1m --log-level warn "
      "--check",
      ' '));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(
      config->ToString(),
      "hostname=192.0.2.1 state-dir=/tmp/x bind=127.0.0.1,::1 port=8443 plain-http=127.0.0.1:80 "
      "cert=c.pem cert-key=k.pem fast-start=false stun-port=-1 region-id=7 region-code=ber "
      "region-name=Berlin public-ipv4=192.0.2.1 public-ipv6=2001:db8::1 allow-list=keys "
      "max-clients=10 max-logins=5 max-connections-per-key=2 accepts-per-second=0 accept-burst=9 "
      "client-bytes-per-second=2097152 client-bytes-burst=3072 queue-bytes=131072 "
      "queue-age=500ms queue-memory=1073741824 write-timeout=3s mesh-key=m "
      "mesh-with=https://b.example:443,http://[::1]:80 mesh-roots=roots metrics=[::1]:9 workers=3 "
      "pin-workers=false backend=mmsg stop-grace=0 reconnect-in=1m log-level=warn");
  EXPECT_TRUE(config->check);
  EXPECT_EQ(config->queues.max_age, milliseconds(500));
  EXPECT_EQ(config->reconnect_in, seconds(60));
  EXPECT_EQ(config->backend, io::Backend::kMmsg);
}

TEST(ConfigTest, ErrorsNameFlagValueAndWhatIsWanted) {
  EXPECT_EQ(Error(ParseNamed({"--port", "70000"})),
            "--port \"70000\": want a number from -1 to 65535");
  EXPECT_EQ(Error(ParseNamed({"--port", "443x"})),
            "--port \"443x\": want a number from -1 to 65535");
  EXPECT_EQ(Error(ParseNamed({"--port"})), "--port: needs a value");
  EXPECT_EQ(Error(ParseNamed({"--prot", "1"})), "--prot: no such flag");
  EXPECT_EQ(Error(ParseNamed({"stray"})), "stray: no such flag");
  EXPECT_EQ(Error(ParseNamed({"--check=true"})), "--check: takes no value");
  EXPECT_EQ(Error(ParseNamed({"--port", "1", "--port=2"})), "--port: given twice");
  EXPECT_THAT(Error(ParseNamed({"--queue-age", "5"})),
              StartsWith("--queue-age \"5\": want a time"));
  EXPECT_THAT(Error(ParseNamed({"--queue-bytes", "1"})), HasSubstr("want a size from 65605"));
  EXPECT_THAT(Error(ParseNamed({"--queue-bytes", "99999999999G"})), HasSubstr("want a size"));
  EXPECT_THAT(Error(ParseNamed({"--plain-http", "80"})), StartsWith("--plain-http \"80\": "));
  EXPECT_THAT(Error(ParseNamed({"--bind", "eth0"})), StartsWith("--bind \"eth0\": "));
  EXPECT_THAT(Error(ParseNamed({"--public-ipv4", "::1"})), HasSubstr("an IPv4 address"));
  EXPECT_THAT(Error(ParseNamed({"--metrics", "9478"})), HasSubstr("ip:port, or off"));
  EXPECT_THAT(Error(ParseNamed({"--backend", "epoll"})), HasSubstr("auto, io_uring or mmsg"));
  EXPECT_THAT(Error(ParseNamed({"--region-name", "a\nb"})), HasSubstr("printable"));
  EXPECT_THAT(Error(ParseNamed({"--cert", "a\nb"})), HasSubstr("want a path"));
}

// What the table takes the server takes, so that --check finds what is wrong.
TEST(ConfigTest, TheSmallestQueuesDoForTheServer) {
  const auto config = ParseNamed({"--queue-bytes", "65605", "--queue-memory", "1M"});
  ASSERT_TRUE(config.ok()) << config.status();
  const derp::ServerIdentity identity(PrivateKey::Generate());
  Options options;
  options.identity = &identity;
  options.listen = {{{IpAddress::AnyV4(), 4430, 0}, /*tls=*/false}};
  options.queues = config->queues;
  const auto server = Server::Create(std::move(options));
  EXPECT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(Error(ParseNamed({"--queue-bytes", "64K"})), HasSubstr("want a size from 65605"));
}

TEST(ConfigTest, HostNames) {
  for (const char* good : {"a", "relay.example.com", "xn--bcher-kva.example", "192.0.2.1",
                           "2001:db8::1", "r_1.example"}) {
    EXPECT_TRUE(Parse({"--hostname", good}).ok()) << good;
  }
  for (const char* bad :
       {"", "relay.example.com:443", "https://relay", "a b", "192.0.2", "-a", "1.2.3.4.5", ".a",
        "a..b", "[2001:db8::1]", "0.0.0.0", "fe80::1%1", "r\"x"}) {
    EXPECT_THAT(Error(Parse({"--hostname", bad})), HasSubstr("want a DNS name")) << bad;
  }
  EXPECT_FALSE(Parse({"--hostname", std::string(300, 'a')}).ok());
}

TEST(ConfigTest, WhatHoldsBetweenOptions) {
  EXPECT_THAT(Error(Parse({})), HasSubstr("--hostname is missing"));
  EXPECT_THAT(Error(ParseNamed({"--cert", "x"})), HasSubstr("go together"));
  EXPECT_THAT(Error(ParseNamed({"--port", "-1"})), HasSubstr("nothing is left"));
  EXPECT_TRUE(ParseNamed({"--port", "-1", "--plain-http", "127.0.0.1:80"}).ok());
  EXPECT_THAT(Error(ParseNamed({"--mesh-with", "https://a:1"})), HasSubstr("--mesh-key"));
  EXPECT_THAT(Error(ParseNamed({"--client-bytes-burst", "1K"})),
              HasSubstr("--client-bytes-per-second"));
  EXPECT_THAT(Error(ParseNamed({"--max-clients", "10"})), HasSubstr("--max-logins"));
  EXPECT_EQ(Error(ParseNamed({"--queue-memory", "1M"})),
            "--queue-memory is less than twice --queue-bytes");
  EXPECT_TRUE(ParseNamed({"--queue-memory", "1M", "--queue-bytes", "512K"}).ok());
  EXPECT_TRUE(Parse({"--help"}).ok()) << "asks for help only";
}

TEST(ConfigTest, MeshUrls) {
  const std::string pin = "sha256-raw:" + std::string(64, 'a');
  const auto pinned = MeshUrl::Parse("https://10.0.0.2:8443#" + pin);
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(pinned->host, "10.0.0.2");
  EXPECT_EQ(pinned->port, 8443);
  EXPECT_EQ(pinned->pin, pin);
  EXPECT_TRUE(pinned->tls);
  EXPECT_EQ(MeshUrl::Parse("https://[2001:db8::1]:1/")->host, "2001:db8::1");
  EXPECT_FALSE(MeshUrl::Parse("http://a:80")->tls);
  for (const char* bad : {"", "a:443", "ftp://a:1", "https://a", "https://a:0", "https://a:65536",
                          "https://a:x", "https://:443", "https://[a]:443", "https://a:1#md5:00",
                          "https://a:1#sha256-raw:00", "https://a:+1", "https://2001:db8::1:1:x"}) {
    EXPECT_FALSE(MeshUrl::Parse(bad).ok()) << bad;
  }
  EXPECT_FALSE(MeshUrl::Parse("http://a:80#" + pin).ok()) << "nothing to pin without TLS";
}

TEST(ConfigTest, TheFileHasTheFlagsNamesAndFlagsWin) {
  const TemporaryDirectory dir;
  const std::string file = dir.Write("relay.json", R"({
      "hostname": "file.example", "port": 8443, "fast_start": false, "queue_age": "1s",
      "bind": ["127.0.0.1", "127.0.0.2"], "plain_http": "127.0.0.1:80", "queue_bytes": "1M"})");
  const auto from_file = Parse({"--config", file});
  ASSERT_TRUE(from_file.ok()) << from_file.status();
  EXPECT_EQ(from_file->host_name, "file.example");
  EXPECT_EQ(from_file->port, 8443);
  EXPECT_FALSE(from_file->fast_start);
  EXPECT_EQ(from_file->bind.size(), 2u);
  EXPECT_EQ(from_file->plain.size(), 1u);
  const auto both = Parse({"--bind=127.0.0.3", "--config", file, "--port", "1"});
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->port, 1);
  ASSERT_EQ(both->bind.size(), 1u) << "a list on the command line replaces the file's";
  EXPECT_EQ(both->bind[0], IpAddress::V4(127, 0, 0, 3));
  EXPECT_EQ(both->queues.max_age, seconds(1));
}

TEST(ConfigTest, FileErrorsNameFileAndKey) {
  const auto error = [](const char* text) { return Error(ParseConfigFile("f.json", text)); };
  EXPECT_EQ(error(R"({"port": 70000})"), "f.json: port: \"70000\": want a number from -1 to 65535");
  EXPECT_EQ(error(R"({"prot": 1})"), "f.json: \"prot\": no such option");
  EXPECT_EQ(error(R"({"help": true})"), "f.json: \"help\": no such option");
  EXPECT_EQ(error(R"({"config": "x"})"), "f.json: \"config\": no such option");
  EXPECT_EQ(error(R"({"port": [1]})"), "f.json: port: takes one value, not a list");
  EXPECT_THAT(error(R"({"port": 1.5})"), HasSubstr("f.json: port: must be a string"));
  EXPECT_THAT(error(R"({"port": null})"), HasSubstr("not null"));
  EXPECT_THAT(error(R"({"bind": [["::1"]]})"), HasSubstr("bind: must be"));
  EXPECT_THAT(error(R"({"port": 1, "port": 2})"), HasSubstr("there twice"));
  EXPECT_THAT(error("[1]"), StartsWith("f.json: "));
  EXPECT_THAT(error("{"), StartsWith("f.json: "));
  EXPECT_TRUE(absl::IsNotFound(Parse({"--config", "/no/such/file"}).status()));
}

// The table holds the defaults of the structs; each must be one that the flag itself takes.
TEST(ConfigTest, DefaultsAreValuesThatTheirFlagsTake) {
  const Config defaults;
  for (const ConfigOption& option : ConfigTable()) {
    if (option.flag_only) continue;
    const std::string value = option.get(defaults);
    if (value.empty() || value == "0") continue;
    Config config;
    EXPECT_TRUE(option.set(value, &config).ok()) << option.name << " " << value;
    EXPECT_EQ(option.get(config), value) << option.name;
  }
}

TEST(ConfigTest, HelpTellsEveryFlagWithinEightyColumnsOrSo) {
  const std::string usage = Usage();
  for (const ConfigOption& option : ConfigTable()) {
    EXPECT_THAT(usage, HasSubstr(std::string("  --") + option.name));
    EXPECT_GT(std::string(option.help).size(), 5u);
  }
  EXPECT_THAT(usage, HasSubstr("[443]"));
}

}  // namespace
}  // namespace ringsock::relay
