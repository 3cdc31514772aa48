// Ours against another implementation: the program `openssl` as a child, over a socket. Nothing of
// it comes into this process.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/derp/tls_certificates.h"
#include "tests/derp/tls_pair.h"

namespace ringsock::derp {
namespace {

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// `openssl` with these arguments; what is written to it and read from it is its standard input and
// output. Killed when this dies.
class Child {
 public:
  explicit Child(std::vector<std::string> arguments) {
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(out[1], STDERR_FILENO);
      for (const int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      std::vector<char*> argv = {const_cast<char*>("openssl")};
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execvp("openssl", argv.data());
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = out[0];
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(in_);
    close(out_);
  }
  void Say(const std::string& text) {
    EXPECT_EQ(write(in_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Reads on until `text` was said; false if it ends before.
  bool Hear(const std::string& text) {
    char part[4096];
    while (heard_.find(text) == std::string::npos) {
      const ssize_t size = read(out_, part, sizeof(part));
      if (size <= 0) return false;
      heard_.append(part, static_cast<size_t>(size));
    }
    return true;
  }
  const std::string& heard() const { return heard_; }
  // What was said so far does not count any more.
  void Forget() { heard_.clear(); }

 private:
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
  std::string heard_;
};

// Moves bytes between a session and a socket until `until` or the end of the stream.
template <typename Until>
void Drive(TlsEnd* end, int socket, Until until) {
  std::vector<std::byte> part(4096);
  while (end->status.ok() && !until()) {
    if (!end->written.empty()) {
      ASSERT_EQ(send(socket, end->written.data(), end->written.size(), MSG_NOSIGNAL),
                static_cast<ssize_t>(end->written.size()));
      end->written.clear();
      continue;
    }
    const ssize_t size = recv(socket, part.data(), part.size(), 0);
    if (size <= 0) {
      end->status = end->session->OnStreamEnd();
      return;
    }
    end->status = end->session->Receive(std::span(part).first(static_cast<size_t>(size)));
  }
  if (!end->written.empty()) send(socket, end->written.data(), end->written.size(), MSG_NOSIGNAL);
  end->written.clear();
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

struct Parameters {
  const char* name;
  const char* version;
  const char* suite;  // of TLS 1.3
};

class TlsOpensslTest : public testing::TestWithParam<Parameters> {
 protected:
  bool tls13() const { return std::string(GetParam().version) == "-tls1_3"; }
  void CheckDescription(const TlsEnd& end) const {
    EXPECT_EQ(end.session->own_records(), tls13());
    const std::string description = end.session->Description();
    const std::string expected =
        tls13() ? std::string("TLSv1.3 ") + GetParam().suite : std::string("TLSv1.2 ");
    EXPECT_EQ(description.substr(0, expected.size()), expected);
  }

  const TestCertificate root_ = [] {
    TestCertificateOptions options = AuthorityNamed("Test Root");
    options.not_before = time(nullptr) - kDay;  // openssl looks at the clock
    options.not_after = time(nullptr) + kDay;
    return MakeTestCertificate(options, nullptr);
  }();
  const TestCertificate leaf_ = [this] {
    TestCertificateOptions options;
    options.not_before = time(nullptr) - kDay;
    options.not_after = time(nullptr) + kDay;
    return MakeTestCertificate(options, &root_);
  }();
};

// The suites of TLS 1.2 are not those named; there it takes what both have.
INSTANTIATE_TEST_SUITE_P(
    Versions, TlsOpensslTest,
    testing::Values(Parameters{"Tls12", "-tls1_2", "TLS_AES_128_GCM_SHA256"},
                    Parameters{"Tls13Aes128", "-tls1_3", "TLS_AES_128_GCM_SHA256"},
                    Parameters{"Tls13Aes256", "-tls1_3", "TLS_AES_256_GCM_SHA384"},
                    Parameters{"Tls13ChaCha", "-tls1_3", "TLS_CHACHA20_POLY1305_SHA256"}),
    [](const auto& info) { return info.param.name; });

// Its client takes our chain, meta certificate and all.
TEST_P(TlsOpensslTest, ItsClientOurServer) {
  const auto context = NewTestServer(leaf_.chain_pem(), leaf_.key_pem);
  TlsEnd end;
  end.session = *TlsSession::NewServer(context.get(), &end, &end);
  const Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  Child client({"s_client", "-connect", "127.0.0.1:" + std::to_string(ntohs(address.sin_port)),
                GetParam().version, "-ciphersuites", GetParam().suite, "-servername", "relay.test",
                "-verify_hostname", "relay.test", "-verify_return_error", "-CAfile",
                WriteTestFile("ca.pem", root_.pem), "-quiet", "-no_ign_eof"});
  const Fd stream(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_GE(stream.get(), 0);
  Drive(&end, stream.get(), [&end] { return end.session->handshake_done(); });
  ASSERT_TRUE(end.session->handshake_done()) << end.status;
  CheckDescription(end);
  client.Say("hello from openssl\n");
  Drive(&end, stream.get(), [&end] { return end.received.find('\n') != std::string::npos; });
  EXPECT_EQ(end.received, "hello from openssl\n");
  end.Send("hello from ringsock\n");
  Drive(&end, stream.get(), [] { return true; });
  EXPECT_TRUE(client.Hear("hello from ringsock")) << client.heard();
  // New keys: K wants one of us too.
  for (int i = 0; tls13() && i < 4; ++i) {
    const std::string word = "new key " + std::to_string(i) + "\n";
    client.Forget();
    client.Say(i % 2 == 0 ? "K\n" : "k\n");
    EXPECT_TRUE(client.Hear("KEYUPDATE")) << client.heard();
    client.Say(word);
    Drive(&end, stream.get(), [&] { return end.received.find(word) != std::string::npos; });
    ASSERT_TRUE(end.status.ok()) << end.status;
    end.Send("ours for " + word);
    Drive(&end, stream.get(), [] { return true; });
    EXPECT_TRUE(client.Hear("ours for " + word)) << client.heard();
  }
  // It is told to close, and says so with close_notify.
  client.Say("Q\n");
  Drive(&end, stream.get(), [] { return false; });
  EXPECT_TRUE(end.status.ok()) << end.status;
}

// Its server, whose port it chooses and says.
TEST_P(TlsOpensslTest, OurClientItsServer) {
  Child server({"s_server", "-accept", "127.0.0.1:0", GetParam().version, "-ciphersuites",
                GetParam().suite, "-cert", WriteTestFile("leaf.pem", leaf_.pem), "-key",
                WriteTestFile("leaf.key", leaf_.key_pem), "-naccept", "2"});
  ASSERT_TRUE(server.Hear("ACCEPT 127.0.0.1:")) << server.heard();
  const size_t at = server.heard().find("ACCEPT 127.0.0.1:") + 17;
  ASSERT_TRUE(server.Hear("\n"));
  const int port = std::atoi(server.heard().c_str() + at);
  SetTestTime(time(nullptr));
  const auto context = NewTestClient(root_.pem);
  for (const bool resumed : {false, true}) {
    TlsEnd end;
    end.session = *TlsSession::NewClient(context.get(), TargetNamed("relay.test"), &end, &end);
    const Fd stream(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = Loopback(static_cast<uint16_t>(port));
    ASSERT_EQ(connect(stream.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    end.status = end.session->Start();
    Drive(&end, stream.get(), [&end] { return end.session->handshake_done(); });
    ASSERT_TRUE(end.session->handshake_done()) << end.status;
    EXPECT_EQ(end.session->resumed(), resumed);
    CheckDescription(end);
    const std::string word = resumed ? "second" : "first";
    end.Send(word + " hello\n");
    Drive(&end, stream.get(), [] { return true; });
    EXPECT_TRUE(server.Hear(word + " hello")) << server.heard();
    // What it types goes to the client, after its tickets.
    server.Say(word + " answer\n");
    Drive(&end, stream.get(),
          [&end] { return end.received.find("answer\n") != std::string::npos; });
    EXPECT_EQ(end.received, word + " answer\n");
    if (tls13()) {
      // It sends that at once; we answer.
      const int writes = end.writes;
      server.Say("K\n");
      Drive(&end, stream.get(), [&] { return end.writes > writes; });
      server.Say(word + " with a new key\n");
      Drive(&end, stream.get(),
            [&end] { return end.received.find("new key\n") != std::string::npos; });
      ASSERT_TRUE(end.status.ok()) << end.status;
      end.Send(word + " with ours\n");
      Drive(&end, stream.get(), [] { return true; });
      EXPECT_TRUE(server.Hear(word + " with ours")) << server.heard();
    }
    end.session->Shutdown();
    Drive(&end, stream.get(), [] { return true; });
  }
  SetTestTime(kTestTime);
}

}  // namespace
}  // namespace ringsock::derp
