// The command lines of the benchmarks.
#include "bench/flags.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace ringsock::bench {

absl::Status BadFlag(absl::string_view flag, absl::string_view value, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(flag, "=", value, ": ", wanted));
}

absl::Status ParseUint(absl::string_view flag, absl::string_view text, uint32_t low, uint32_t high,
                       uint32_t* out) {
  uint32_t value;
  if (!absl::SimpleAtoi(text, &value) || value < low || value > high) {
    return BadFlag(flag, text, absl::StrCat("must be a whole number from ", low, " to ", high));
  }
  *out = value;
  return absl::OkStatus();
}

absl::Status ParseNumber(absl::string_view flag, absl::string_view text, double low, double high,
                         double* out) {
  double value;
  if (!absl::SimpleAtod(text, &value) || !(value >= low && value <= high)) {
    return BadFlag(flag, text, absl::StrFormat("must be a number from %g to %g", low, high));
  }
  *out = value;
  return absl::OkStatus();
}

// "250000", "250k" or "1.5M".
absl::Status ParseRate(absl::string_view flag, absl::string_view text, double* out) {
  double factor = 1;
  absl::string_view digits = text;
  if (absl::EndsWithIgnoreCase(text, "k")) factor = 1e3;
  if (absl::EndsWithIgnoreCase(text, "m")) factor = 1e6;
  if (factor != 1) digits.remove_suffix(1);
  double value;
  if (!absl::SimpleAtod(digits, &value) || !(value * factor >= 0 && value * factor <= 1e9)) {
    return BadFlag(flag, text,
                   "must be packets a second such as 250000, 250k or 1.5M; 0 is flat out");
  }
  *out = value * factor;
  return absl::OkStatus();
}

Setter UintFlag(uint32_t low, uint32_t high, uint32_t* out) {
  return [=](absl::string_view flag, absl::string_view value) {
    return ParseUint(flag, value, low, high, out);
  };
}

Setter NumberFlag(double low, double high, double* out) {
  return [=](absl::string_view flag, absl::string_view value) {
    return ParseNumber(flag, value, low, high, out);
  };
}

Setter RateFlag(double* out) {
  return
      [=](absl::string_view flag, absl::string_view value) { return ParseRate(flag, value, out); };
}

Setter TextFlag(absl::string_view wanted, std::string* out) {
  return [wanted = std::string(wanted), out](absl::string_view flag, absl::string_view value) {
    *out = std::string(value);
    return value.empty() ? BadFlag(flag, value, wanted) : absl::OkStatus();
  };
}

Flag SwitchFlag(bool* out) {
  return {[=](absl::string_view, absl::string_view) {
            *out = true;
            return absl::OkStatus();
          },
          false};
}

absl::Status ParseFlags(std::span<const char* const> arguments, const FlagTable& flags) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const absl::string_view argument = arguments[i];
    if (argument == "--help" || argument == "-h") return absl::CancelledError("help");
    const std::pair<std::string, absl::string_view> parts =
        absl::StrSplit(argument, absl::MaxSplits('=', 1));
    const auto flag = flags.find(parts.first);
    const bool has_value = absl::StrContains(argument, '=');
    if (flag == flags.end() || (has_value && !flag->second.takes_value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(argument, ": no such flag; the command help lists them"));
    }
    absl::string_view value = parts.second;
    if (flag->second.takes_value && !has_value) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat(argument, ": needs a value"));
      }
      value = arguments[++i];
    }
    const absl::Status status = flag->second.set(flag->first, value);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace ringsock::bench
