// The program itself: what it says and how it ends, on bad input, ports in use and signals.
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/fd.h"
#include "tests/gateway/free_port.h"

namespace ringsock::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kKey[] = "Cp12ZWOjLKjkJaudNvN1GFTIACpxpTFCmRgdJxVCPHk=";

// A port of this host, held for as long as the object lives.
class HeldPort {
 public:
  HeldPort() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
    socklen_t length = sizeof(any);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&any), &length);
    port_ = ntohs(any.sin_port);
  }
  uint16_t port() const { return port_; }

 private:
  io::Fd fd_;
  uint16_t port_ = 0;
};

// One run of the program, both outputs in one text.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], 1);
      dup2(ends[1], 2);
      close(ends[0]);
      close(ends[1]);
      arguments.insert(arguments.begin(), "gateway/ringsock-gateway");
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(ends[1]);
    out_ = io::Fd(ends[0]);
  }
  ~Program() {
    if (pid_ > 0) kill(pid_, SIGKILL);
    Wait();
  }

  // Reads until `text` has come; false if the program ended without it.
  bool Says(const std::string& text) {
    while (output_.find(text) == std::string::npos) {
      if (!ReadMore()) return false;
    }
    return true;
  }
  // The same, of what has come after `before`.
  bool SaysAfter(const std::string& before, const std::string& text) {
    const size_t at = output_.rfind(before);
    while (output_.find(text, at) == std::string::npos) {
      if (!ReadMore()) return false;
    }
    return at != std::string::npos;
  }
  void Signal(int signal) { kill(pid_, signal); }
  // Its exit code; -1 if a signal killed it.
  int Wait() {
    if (pid_ <= 0) return -1;
    while (ReadMore()) {
    }
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  const std::string& output() const { return output_; }

 private:
  bool ReadMore() {
    std::array<char, 4096> block;
    ssize_t size = 0;
    do {
      size = read(out_.get(), block.data(), block.size());
    } while (size < 0 && errno == EINTR);
    if (size <= 0) return false;
    output_.append(block.data(), static_cast<size_t>(size));
    return true;
  }

  pid_t pid_ = -1;
  io::Fd out_;
  std::string output_;
};

struct Ports {
  uint16_t listen = FreePort();
  uint16_t local = FreePort();
};

// A file with a configuration; `more` is put before the peers.
std::string WriteConfig(const Ports& ports, const std::string& more = "",
                        const std::string& endpoint = "127.0.0.1:9",
                        const std::string& suffix = "") {
  const std::string file = std::string(std::getenv("TEST_TMPDIR")) + "/gateway.json" + suffix;
  std::ofstream(file) << R"({"wireguard": {"port": 1}, "listen_port": )" << ports.listen
                      << R"(, "local_port": )" << ports.local << ", " << more
                      << R"("peers": [{"public_key": ")" << kKey << R"(", "endpoints": [")"
                      << endpoint << "\"]}]}";
  return file;
}

constexpr char kSmall[] = R"("engine": {"shards": 1, "socket_buffer": 65536, "ipv6": false}, )";

TEST(ProgramTest, BadCommandLineIsTwo) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{}, {"--config"}, {"--nonsense"}, {"--config", "x", "stray"}}) {
    Program program(arguments);
    EXPECT_EQ(program.Wait(), 2);
    EXPECT_THAT(program.output(), HasSubstr("usage: ringsock-gateway"));
  }
  Program help({"--help"});
  EXPECT_EQ(help.Wait(), 0);
  Program missing({"--config", "/no/such/file"});
  EXPECT_EQ(missing.Wait(), 2);
  EXPECT_EQ(missing.output(), "/no/such/file: cannot be read: No such file or directory\n");
}

// The ports are taken, which would be the error if it got as far as opening a socket.
TEST(ProgramTest, BadConfigurationIsTwoBeforeAnySocket) {
  const HeldPort listen;
  const HeldPort local;
  const Ports ports{listen.port(), local.port()};
  const std::string secret = "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=";
  struct Case {
    std::string more;
    std::string endpoint;
    std::string error;
  };
  const Case cases[] = {
      {R"("engine": {"shards": 1000}, )", "127.0.0.1:9", "engine.shards: 1000 is not"},
      {R"("loopback_range": "127.0.0.0/16", )", "127.0.0.1:9", "overlaps 127.0.0.0/24"},
      {"", "192.0.2.1", "peers[0].endpoints[0]: \"192.0.2.1\""},
      {"", secret, "peers[0].endpoints[0]: \"qIvM...\""},
      {"\"" + secret + "\": 1, ", "127.0.0.1:9", "unknown key"},
      {"oops, ", "127.0.0.1:9", "line 1, column"},
  };
  for (const Case& bad : cases) {
    const std::string file = WriteConfig(ports, bad.more, bad.endpoint);
    Program program({"--config", file});
    EXPECT_EQ(program.Wait(), 2) << program.output();
    EXPECT_THAT(program.output(), StartsWith(file + ": "));
    EXPECT_THAT(program.output(), HasSubstr(bad.error));
    EXPECT_THAT(program.output(), Not(HasSubstr(secret.substr(0, 8))));
    EXPECT_EQ(program.output().find('\n'), program.output().size() - 1) << program.output();
  }
}

TEST(ProgramTest, CheckOpensNoSocket) {
  const HeldPort listen;
  const HeldPort local;
  Program program({"--check", "--config", WriteConfig({listen.port(), local.port()})});
  EXPECT_EQ(program.Wait(), 0);
  EXPECT_THAT(program.output(), StartsWith(std::string("wg set wg0 peer ") + kKey));
}

// What is hardly meant is said with --check and when it starts, and does not keep it from starting.
TEST(ProgramTest, WarningsAreSaidAndItRuns) {
  const std::string file = WriteConfig(Ports(), kSmall, "127.3.3.40:7");
  const std::string warning = "peers[0] ([Cp12Z]): is at a relay, but there is no derp_map\n";
  Program check({"--check", "--config", file});
  EXPECT_EQ(check.Wait(), 0);
  EXPECT_THAT(check.output(), HasSubstr("warning: " + warning));
  Program program({"--config", file});
  ASSERT_TRUE(program.Says("gateway: peers on port")) << program.output();
  EXPECT_THAT(program.output(), HasSubstr(warning));
  program.Signal(SIGTERM);
  EXPECT_EQ(program.Wait(), 0);
}

TEST(ProgramTest, PortInUseIsOneAndNamesTheCure) {
  const HeldPort held;
  Program local({"--config", WriteConfig({.listen = FreePort(), .local = held.port()}, kSmall)});
  EXPECT_EQ(local.Wait(), 1);
  EXPECT_THAT(local.output(), HasSubstr("local_port " + std::to_string(held.port()) +
                                        ": Address already in use; choose another local_port"));
  Program listen({"--config", WriteConfig({.listen = held.port(), .local = FreePort()}, kSmall)});
  EXPECT_EQ(listen.Wait(), 1);
  EXPECT_THAT(listen.output(), HasSubstr(std::to_string(held.port())));
  EXPECT_THAT(listen.output(), HasSubstr("in use"));
}

TEST(ProgramTest, SignalsEndItWithZero) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Program program({"--config", WriteConfig(Ports(), kSmall)});
    ASSERT_TRUE(program.Says("gateway: peers on port")) << program.output();
    EXPECT_THAT(program.output(), HasSubstr("wg set wg0 peer "));
    program.Signal(SIGUSR1);
    ASSERT_TRUE(program.Says("status: peer ")) << program.output();
    program.Signal(signal);
    EXPECT_EQ(program.Wait(), 0) << program.output();
    EXPECT_THAT(program.output(),
                HasSubstr(signal == SIGTERM ? "stopping on SIGTERM" : "stopping on SIGINT"));
  }
}

TEST(ProgramTest, ReadsItsFilesAgain) {
  const Ports ports;
  const std::string file = WriteConfig(ports, kSmall);
  Program program({"--config", file});
  ASSERT_TRUE(program.Says("gateway: peers on port")) << program.output();
  // Replaced by a rename, with nobody told.
  const std::string next = WriteConfig(ports, kSmall, "127.0.0.1:10", ".next");
  ASSERT_EQ(rename(next.c_str(), file.c_str()), 0);
  ASSERT_TRUE(program.Says("reload: changed peers: 1 with other endpoints")) << program.output();
  // In place, and not valid.
  std::ofstream(file) << "oops";
  ASSERT_TRUE(program.Says("reload: refused, the configuration of before stays in force: " + file +
                           ": line 1, column 1"))
      << program.output();
  // What takes a restart.
  WriteConfig({.listen = FreePort(), .local = ports.local}, kSmall);
  ASSERT_TRUE(program.Says("listen_port: cannot change while running; a restart is needed"))
      << program.output();
  WriteConfig(ports, kSmall, "127.0.0.1:11");
  ASSERT_TRUE(program.SaysAfter("restart is needed", "reload: changed peers: 1 with other"))
      << program.output();
  program.Signal(SIGHUP);
  ASSERT_TRUE(program.Says("SIGHUP\n")) << program.output();
  ASSERT_TRUE(program.Says("reload: nothing has changed")) << program.output();
  program.Signal(SIGTERM);
  EXPECT_EQ(program.Wait(), 0);
  // While relays and peers are still there.
  EXPECT_THAT(program.output(), HasSubstr("status: peer [Cp12Z]: "));
}

TEST(ProgramTest, TellsItsEndpoints) {
  const Ports ports;
  const std::string folder = std::getenv("TEST_TMPDIR");
  const std::string tell =
      R"("endpoints_file": "own.json", "endpoints_command": ["sh", "-c", "cat; echo told"], )";
  Program program({"--config", WriteConfig(ports, kSmall + tell)});
  ASSERT_TRUE(program.Says("endpoints_command: told")) << program.output();
  const std::string port = ":" + std::to_string(ports.listen) + "\"";
  EXPECT_THAT(program.output(), HasSubstr(port));
  std::ifstream file(folder + "/own.json");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_THAT(text, HasSubstr(port));
  // Another command runs at once.
  WriteConfig(ports, kSmall + std::string(R"("endpoints_command": ["echo", "again"], )"));
  program.Signal(SIGHUP);
  ASSERT_TRUE(program.Says("endpoints_command: again")) << program.output();
  program.Signal(SIGTERM);
  EXPECT_EQ(program.Wait(), 0);
}

// Our home is told where nothing measures which relay is near, too.
TEST(ProgramTest, TellsItsHomeWithoutNetcheck) {
  const std::string key = std::string(std::getenv("TEST_TMPDIR")) + "/home.key";
  std::ofstream(key) << "qIvMZbdmwJ9CEzfCDlrGMcSPxnqNcSiElRqtSfIyAF0=\n";
  ASSERT_EQ(chmod(key.c_str(), 0600), 0);
  Program program({"--config", WriteConfig(Ports(), R"(
      "engine": {"shards": 1, "socket_buffer": 65536, "ipv6": false, "netcheck": false},
      "private_key_file": "home.key", "derp_home": 7, "endpoints_command": ["cat"],
      "derp_map": {"Regions": {"7": {"Nodes": [{"HostName": "127.0.0.1", "DERPPort": 9}]}}}, )")});
  EXPECT_TRUE(program.Says("\"derp_region\": 7")) << program.output();
  program.Signal(SIGTERM);
  EXPECT_EQ(program.Wait(), 0);
}

}  // namespace
}  // namespace ringsock::gateway
