// CPU time of the measured side.
#include "bench/cpu_meter.h"

#include <dirent.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ringsock::bench {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

uint64_t ProcessTime(pid_t process) {
  clockid_t clock;
  timespec time = {};
  if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

// The first field of schedstat: nanoseconds on a core.
uint64_t ThreadTime(int thread) {
  return std::strtoull(ReadFile(absl::StrCat("/proc/", thread, "/schedstat")).c_str(), nullptr, 10);
}

}  // namespace

std::vector<int> FindKernelThreads(const std::string& prefix) {
  std::vector<int> found;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return found;
  while (const dirent* entry = readdir(proc)) {
    const int id = std::atoi(entry->d_name);
    if (id > 0 && absl::StartsWith(ReadFile(absl::StrCat("/proc/", id, "/comm")), prefix)) {
      found.push_back(id);
    }
  }
  closedir(proc);
  std::sort(found.begin(), found.end());
  return found;
}

CoreTimes ParseProcStat(const std::string& text, const std::vector<int>& cores) {
  const uint64_t tick = 1'000'000'000 / sysconf(_SC_CLK_TCK);
  CoreTimes times;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string name;
    fields >> name;
    const auto is_wanted = [&](int core) { return name == absl::StrCat("cpu", core); };
    if (std::none_of(cores.begin(), cores.end(), is_wanted)) continue;
    // user nice system idle iowait irq softirq steal
    std::array<uint64_t, 8> v{};
    for (uint64_t& value : v) fields >> value;
    times.busy += (v[0] + v[1] + v[2] + v[5] + v[6]) * tick;
    times.interrupt += (v[5] + v[6]) * tick;
    times.stolen += v[7] * tick;
  }
  return times;
}

bool KernelAccountsInterruptsApart() {
  utsname name = {};
  uname(&name);
  std::string config = ReadFile(absl::StrCat("/boot/config-", name.release));
  if (config.empty()) {
    if (FILE* pipe = popen("zcat /proc/config.gz 2>/dev/null", "r")) {
      std::array<char, 4096> chunk;
      while (const size_t n = fread(chunk.data(), 1, chunk.size(), pipe)) {
        config.append(chunk.data(), n);
      }
      pclose(pipe);
    }
  }
  return absl::StrContains(config, "\nCONFIG_IRQ_TIME_ACCOUNTING=y");
}

CpuMeter::CpuMeter(pid_t process, std::vector<int> cores, std::vector<int> kernel_threads)
    : process_(process), cores_(std::move(cores)), kernel_threads_(std::move(kernel_threads)) {
  static const bool apart = KernelAccountsInterruptsApart();
  interrupts_apart_ = apart;
  for (const int core : cores_) {
    for (const int id : FindKernelThreads(absl::StrCat("ksoftirqd/", core, "\n"))) {
      kernel_threads_.push_back(id);
    }
  }
}

CpuMeter::Reading CpuMeter::Read() const {
  Reading reading;
  for (const int id : kernel_threads_) reading.kernel_threads += ThreadTime(id);
  reading.cores = ParseProcStat(ReadFile("/proc/stat"), cores_);
  reading.at = SystemClock().Now();
  reading.process = ProcessTime(process_);
  return reading;
}

uint64_t CpuMeter::Used(const Reading& a, const Reading& b) const {
  const uint64_t threads = b.process - a.process + b.kernel_threads - a.kernel_threads;
  return interrupts_apart_ ? threads + b.cores.interrupt - a.cores.interrupt : threads;
}

}  // namespace ringsock::bench
