// The command lines of the benchmarks: flags with values, each mistake named.
#ifndef RINGSOCK_BENCH_FLAGS_H_
#define RINGSOCK_BENCH_FLAGS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ringsock::bench {

// "flag=value: wanted".
absl::Status BadFlag(absl::string_view flag, absl::string_view value, absl::string_view wanted);

absl::Status ParseUint(absl::string_view flag, absl::string_view text, uint32_t low, uint32_t high,
                       uint32_t* out);
absl::Status ParseNumber(absl::string_view flag, absl::string_view text, double low, double high,
                         double* out);
// Packets a second: "250000", "250k" or "1.5M".
absl::Status ParseRate(absl::string_view flag, absl::string_view text, double* out);

// Takes the value of a flag.
using Setter = std::function<absl::Status(absl::string_view flag, absl::string_view value)>;
struct Flag {
  Setter set;
  bool takes_value = true;  // false: set() gets ""
};
using FlagTable = std::map<std::string, Flag>;

Setter UintFlag(uint32_t low, uint32_t high, uint32_t* out);
Setter NumberFlag(double low, double high, double* out);
Setter RateFlag(double* out);
// Not empty.
Setter TextFlag(absl::string_view wanted, std::string* out);
Flag SwitchFlag(bool* out);

// "--flag value", "--flag=value" and "--switch". Cancelled for --help and -h, which end it.
absl::Status ParseFlags(std::span<const char* const> arguments, const FlagTable& flags);

}  // namespace ringsock::bench

#endif  // RINGSOCK_BENCH_FLAGS_H_
