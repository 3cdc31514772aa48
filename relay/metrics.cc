#include "relay/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "stun/message.h"

namespace ringsock::relay {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr char kPrefix[] = "ringsock_relay_";

// The families of relay/counters.h: what their label is called, and their help.
struct FamilyInfo {
  const char* family;
  const char* name;  // without prefix
  const char* label;
  const char* help;
};
constexpr FamilyInfo kFamilies[] = {
    {"connections", "connections_total", "result", "Connections that came to a listener"},
    {"logins", "logins_total", "result", "How connections ended their login"},
    {"disconnects", "disconnects_total", "reason", "Why logged in clients went"},
    {"duplicates", "duplicate_logins_total", "reason", "Logins with a key connected already"},
    {"packets", "packets_total", "direction", "Packets received and sent"},
    {"packet_bytes", "packet_bytes_total", "direction",
     "Bytes of packets from and to clients, without headers"},
    {"dropped", "dropped_packets_total", "reason", "Packets that were not delivered"},
    {"pauses", "read_pauses_total", "reason", "Times a client was not read from"},
    {"control", "control_frames_total", "kind", "Control frames, sent, received or dropped"},
    {"mesh", "mesh_total", "event", "Connections to the other servers of the region"},
};

FamilyInfo InfoOf(const CounterInfo& counter) {
  for (const FamilyInfo& info : kFamilies) {
    if (absl::string_view(info.family) == counter.family) return info;
  }
  return {counter.family, counter.family, "kind", counter.help};
}

ClientMetric Value(MetricType type, double value) {
  ClientMetric metric;
  if (type == MetricType::Counter) metric.counter.value = value;
  if (type == MetricType::Gauge) metric.gauge.value = value;
  return metric;
}

// Gathers families; each is named once, with all that is in it.
class Page {
 public:
  MetricFamily* Family(std::string name, const char* help, MetricType type) {
    families_.push_back({std::move(name), help, type, {}});
    return &families_.back();
  }
  void Single(absl::string_view name, const char* help, MetricType type, double value) {
    Family(std::string(name), help, type)->metric.push_back(Value(type, value));
  }
  void Gauge(absl::string_view name, const char* help, uint64_t value) {
    Single(absl::StrCat(kPrefix, name), help, MetricType::Gauge, static_cast<double>(value));
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  std::vector<MetricFamily> families_;
};

void AddLabelled(MetricFamily* family, std::vector<ClientMetric::Label> labels, uint64_t value) {
  ClientMetric metric = Value(family->type, static_cast<double>(value));
  metric.label = std::move(labels);
  family->metric.push_back(std::move(metric));
}

void AddServer(const Stats& stats, Page* page) {
  const char* open = "";
  MetricFamily* family = nullptr;
  for (const CounterInfo& counter : CounterTable()) {
    const FamilyInfo info = InfoOf(counter);
    if (absl::string_view(open) != counter.family) {
      family = page->Family(absl::StrCat(kPrefix, info.name), info.help, MetricType::Counter);
      open = counter.family;
    }
    std::vector<ClientMetric::Label> labels;
    if (counter.label[0] != '\0') labels.push_back({info.label, counter.label});
    AddLabelled(family, std::move(labels), stats.*counter.field);
  }
  page->Gauge("clients", "Connections that are logged in", stats.clients);
  page->Gauge("connections", "Connections, logged in or not", stats.connections);
  page->Gauge("keys", "Keys with at least one connection here", stats.keys);
  page->Gauge("mesh_keys", "Keys reached over other servers of the region", stats.mesh_keys);
  page->Gauge("queued_bytes", "Bytes that wait for clients", stats.queued_bytes);
  page->Gauge("workers", "Worker threads", stats.workers);
}

void AddStun(const stun::ServerStats& stun, Page* page) {
  MetricFamily* family = page->Family(absl::StrCat(kPrefix, "stun_requests_total"),
                                      "STUN datagrams received", MetricType::Counter);
  AddLabelled(family, {{"result", "answered"}}, stun.answered);
  for (size_t i = 0; i < stun.refused.size(); ++i) {
    const auto result = static_cast<stun::ParseResult>(i);
    if (result == stun::ParseResult::kOk) continue;
    AddLabelled(family, {{"result", stun::ParseResultName(result)}}, stun.refused[i]);
  }
  AddLabelled(family, {{"result", "unanswerable"}}, stun.unanswerable);
  AddLabelled(family, {{"result", "overflow"}}, stun.overflow);
  page->Single(absl::StrCat(kPrefix, "stun_send_failures_total"),
               "STUN answers that the kernel did not take", MetricType::Counter,
               static_cast<double>(stun.send_failed));
}

void AddReloads(const MetricsInput& input, Page* page) {
  MetricFamily* family = page->Family(absl::StrCat(kPrefix, "reloads_total"),
                                      "Files read again on SIGHUP", MetricType::Counter);
  for (size_t i = 0; i < kReloadedFiles; ++i) {
    const char* file = ReloadedFileName(static_cast<ReloadedFile>(i));
    AddLabelled(family, {{"file", file}, {"result", "ok"}}, input.reloads[i].ok);
    AddLabelled(family, {{"file", file}, {"result", "refused"}}, input.reloads[i].refused);
  }
  if (input.certificate_not_after.has_value()) {
    page->Single(absl::StrCat(kPrefix, "certificate_not_after_seconds"),
                 "Unix time at which the certificate expires", MetricType::Gauge,
                 static_cast<double>(*input.certificate_not_after));
  }
  page->Gauge("max_clients", "Limit of connections at one time", input.max_clients);
  if (input.allow_list) page->Gauge("allowed_keys", "Keys on the allow-list", input.allowed_keys);
}

// Under the names that all of Prometheus's own clients use.
void AddProcess(const ProcessStats& process, Page* page) {
  page->Single("process_cpu_seconds_total", "CPU time used, user and system", MetricType::Counter,
               process.cpu_seconds);
  page->Single("process_resident_memory_bytes", "Memory in RAM", MetricType::Gauge,
               static_cast<double>(process.resident_bytes));
  page->Single("process_start_time_seconds", "Unix time of the start", MetricType::Gauge,
               process.start_time);
  if (process.open_fds != 0) {
    page->Single("process_open_fds", "Open file descriptors", MetricType::Gauge,
                 static_cast<double>(process.open_fds));
  }
  page->Single("process_max_fds", "Limit of open file descriptors", MetricType::Gauge,
               static_cast<double>(process.max_fds));
}

std::string ReadProc(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Seconds of Unix time when the machine was booted.
double BootTime() {
  const std::string text = ReadProc("/proc/stat");
  double seconds = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.substr(0, 6) == "btime " && absl::SimpleAtod(line.substr(6), &seconds)) break;
  }
  return seconds;
}

}  // namespace

const char* ReloadedFileName(ReloadedFile file) {
  return file == ReloadedFile::kCertificate ? "certificate" : "allow_list";
}

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    stats.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }
  // Since Linux 6.2 the size of this directory is the number of open descriptors; before, 0.
  struct stat fds = {};
  if (stat("/proc/self/fd", &fds) == 0) stats.open_fds = static_cast<uint64_t>(fds.st_size);
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = limit.rlim_cur;
  // proc(5): after the program's name in parentheses, start time is field 22 and memory field 24.
  const std::string text = ReadProc("/proc/self/stat");
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return stats;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(text).substr(name_end + 2), ' ');
  constexpr size_t kFirstField = 3;
  uint64_t start_ticks = 0;
  uint64_t pages = 0;
  if (fields.size() > 24 - kFirstField &&
      absl::SimpleAtoi(fields[22 - kFirstField], &start_ticks) &&
      absl::SimpleAtoi(fields[24 - kFirstField], &pages)) {
    stats.resident_bytes = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    static const double boot_time = BootTime();
    stats.start_time =
        boot_time + static_cast<double>(start_ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  return stats;
}

std::string MetricsText(const MetricsInput& input) {
  Page page;
  AddServer(input.server, &page);
  if (input.stun.has_value()) AddStun(*input.stun, &page);
  AddReloads(input, &page);
  AddProcess(input.process, &page);
  return page.Text();
}

}  // namespace ringsock::relay
